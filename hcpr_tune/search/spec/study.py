"""A study: what is searched, on what task, with what budget. Frozen from its beginning on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tomli_w

from hcpr_tune.common.settings import (
    show,
    to_plain,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.scheduling.asha import most_epochs, usual_epochs
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.spec.dimensions import Params, Space
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.spec.settings import (
    CALIBRATION_SHARE,
    CALIBRATION_TRIALS,
    EarlyStopping,
    Foreseen,
    StudySettings,
)
from hcpr_tune.training.recipe import Recipe, Schedule

MOST_RUNGS = 100
"""A reduction factor just above 1 would turn every epoch into a rung."""


@dataclass(frozen=True)
class StudySpec:
    """A study as it runs: `settings`, the recipe of trial 0, the search space, and points to try first."""

    settings: StudySettings
    recipe: Recipe
    space: Space
    first_points: tuple[Params, ...] = ()
    begun_as: str = ""
    """The fingerprint of the study that this one extends."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which trials are compared, the last epoch included."""
        return self.recipe.rungs

    @property
    def goal(self) -> Goal:
        floors = {name: floor for name, floor in to_plain(self.settings.constraints).items() if floor}
        return Goal(self.settings.objective, floors)

    @property
    def calibration(self) -> int:
        """Number of trials that run to the last epoch whatever their scores; 1 without early stopping."""
        wanted, budget = self.settings.early_stopping.calibration, self.settings.budget
        if not self.settings.early_stopping.stops:
            return 1
        if wanted != "auto":
            return wanted
        affordable = 0
        if not budget.hours and not budget.worker_hours:
            # Only the number of trials ends the search, so it is known how many epochs it usually trains.
            asha_config = self.asha_config
            each = most_epochs(asha_config) / asha_config.trials
            affordable = math.floor(CALIBRATION_SHARE * usual_epochs(asha_config, 1) / each)
        return min(max(CALIBRATION_TRIALS, affordable), max(1, budget.trials - len(self.first_points)))

    @property
    def restarted(self) -> bool:
        """Whether each rung is a separate training."""
        return self.recipe.lr_schedule.mode == "restarted"

    @property
    def asha_config(self) -> AshaConfig:
        stopping, budget = self.settings.early_stopping, self.settings.budget
        return AshaConfig(
            rungs=self.rungs,
            trials=budget.trials,
            reduction_factor=stopping.reduction_factor,
            method=stopping.method,
            brackets=min(stopping.brackets, len(self.rungs)),
            min_rank_correlation=stopping.min_rank_correlation,
            seed=self.settings.seed,
            restarted=self.restarted,
            seconds=3600 * budget.hours or math.inf,
            worker_seconds=3600 * budget.worker_hours or math.inf,
            kept_back=self.settings.replication.budget_share if self.replicates else 0.0,
            replicates=self.replicates * (1 + min(self.settings.replication.finalists, budget.trials - 1)),
        )

    @property
    def replicates(self) -> int:
        """Fresh seeds of each finalist; none with two objectives, where there is not one answer, or for one trial."""
        chosen = len(self.settings.objective) == 1 and self.settings.budget.trials > 1
        return self.settings.replication.replicates if chosen else 0

    @property
    def single_schedule(self) -> Recipe:
        """The recipe as the published one and replicates are trained: no rung before the last epoch."""
        return replace(self.recipe, segment_ends=(), lr_schedule=self.settings.replication.lr_schedule)

    @property
    def fingerprint(self) -> str:
        """A hash of everything in the study: equal fingerprints mean equal studies."""
        if self.begun_as:
            return self.begun_as
        canonical = json.dumps(study_to_plain(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def rung_epochs(early_stopping: EarlyStopping, epochs: int) -> tuple[int, ...]:
    """first_rung * reduction_factor^k below `epochs`, then `epochs`; only `epochs` without early stopping."""
    if not early_stopping.stops:
        return (epochs,)
    if early_stopping.first_rung > epochs:
        raise InputError(
            f"early_stopping.first_rung must be at most recipe.epochs = {epochs}, got {early_stopping.first_rung};"
            " lower it, or raise recipe.epochs"
        )
    first, factor = early_stopping.first_rung, early_stopping.reduction_factor
    rungs, power = [], 0
    # The slack keeps rounding errors in products such as 3 * 1.1^k from losing a whole epoch.
    while (rung := int(first * factor**power + 1e-9)) < epochs:
        rungs.append(rung)
        if len(rungs) == MOST_RUNGS:
            raise InputError(
                f"early_stopping.reduction_factor must be large enough for at most {MOST_RUNGS} rungs"
                f" from epoch {first} to {epochs}, got {show(factor)};"
                " raise it, or early_stopping.first_rung, or set early_stopping.method = none"
            )
        # Skip the powers that round to the same epoch: a factor just above 1 has millions of them.
        power = max(power + 1, math.ceil(math.log((rung + 1) / first) / math.log(factor) - 1e-9))
    return (*rungs, epochs)


DERIVED = {
    "segment_ends": "it follows from early_stopping.first_rung, early_stopping.reduction_factor and recipe.epochs",
    "stop_epoch": "early stopping decides it",
    "threads": "it follows from resources.cpus_per_trial",
    "seed": "every trial trains with the study's seed; set that",
    "task": "it belongs in the table [task]",
}
"""Recipe fields that a study file cannot set in [recipe], and why."""


def extend(study: StudySpec, budget: Mapping[str, float]) -> StudySpec:
    """The study with a new budget (trials, hours, worker_hours) and, for `epochs`, a new top rung.

    Raises `InputError`.
    """
    more: dict[str, Any] = {name: value for name, value in budget.items() if name != "epochs"}
    settings = replace(study.settings, budget=replace(study.settings.budget, **more))
    recipe = study.recipe
    if "epochs" in budget:
        recipe = _with_top_rung(study, int(budget["epochs"]))
    return replace(study, settings=settings, recipe=recipe, begun_as=study.fingerprint)


def extended(study: StudySpec, budgets: Sequence[Mapping[str, float]]) -> StudySpec:
    """The study with several extensions applied in order; each `epochs` adds a rung."""
    for budget in budgets:
        study = extend(study, budget)
    return study


def _with_top_rung(study: StudySpec, epochs: int) -> Recipe:
    """The recipe with `epochs` as a rung above the last one.

    Raises `InputError` if the new recipe would have trained the first epochs differently.
    """
    recipe = study.recipe
    if epochs <= recipe.epochs:
        raise InputError(
            f"--epochs must be above the {recipe.epochs} epochs of the study, got {epochs}; give a higher number"
        )
    mode = recipe.lr_schedule.mode
    over_trial = [
        name
        for name, schedule in (
            ("pace", recipe.pace),
            ("consistency", recipe.consistency),
            ("attack.steps", recipe.attack.steps),
        )
        if isinstance(schedule, Schedule)
        and (schedule.over == "trial" or f"{name}.over" in study.space)
        and (schedule.shape != "constant" or f"{name}.shape" in study.space)
    ]
    if mode == "single" or (mode == "annealed" and over_trial):
        what = "lr_schedule.mode is single" if mode == "single" else f"{over_trial[0]}.over is trial"
        raise InputError(
            f"--epochs cannot extend this study: its {what}, so longer trials would have been trained differently"
            " from the start; begin a new study with --warm-start"
        )
    return replace(recipe, epochs=epochs, segment_ends=recipe.rungs)


def study_to_plain(study: StudySpec) -> dict[str, Any]:
    """The study as the tables of a file, defaults included: the inverse of `study_from_plain`."""
    recipe = to_plain(study.recipe)
    task = recipe["task"]
    for name in DERIVED:
        del recipe[name]
    plain = to_plain(study.settings)
    if len(study.settings.objective) == 1:
        plain["objective"] = study.settings.objective[0]
    if study.settings.plan == Foreseen():
        del plain["plan"]
    if study.first_points:
        plain["first_points"] = [dict(point) for point in study.first_points]
    return plain | {
        "task": task,
        "recipe": recipe,
        "search": {name: dim.to_plain() for name, dim in study.space.items()},
    }


def study_to_toml(study: StudySpec) -> str:
    """The resolved study as a TOML file for --space."""
    return tomli_w.dumps(study_to_plain(study))
