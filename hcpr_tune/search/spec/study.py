"""A study: what is searched, on what task, with what budget. Read from a TOML file and frozen from then on."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from hcpr_tune.common.paths import is_file
from hcpr_tune.common.settings import (
    Settings,
    dotted_names,
    get_dotted,
    lay_over,
    located,
    parse_toml,
    read,
    read_toml,
    setting,
    show,
    to_plain,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.scheduling.stoppers import STOPPERS
from hcpr_tune.search.spec.objectives import OBJECTIVES, Goal
from hcpr_tune.search.spec.space import Params, Space, field_of, nested, read_points, read_space
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.training.data.registry import FOLDER
from hcpr_tune.training.recipe import FUNCTION, Recipe, Schedule, Task, recipe_from_plain

CALIBRATION_TRIALS = 6
MOST_RUNGS = 100
"""A reduction factor just above 1 would turn every epoch into a rung."""


@dataclass(frozen=True)
class Budget(Settings):
    """When the search ends: at whichever limit is reached first. Running trials then finish their epoch."""

    trials: int = setting(24, "Number of trials, including the published recipe.", at_least=1, at_most=1_000_000)
    hours: float = setting(0.0, "Wall-clock hours, over all sessions; 0: no limit.", at_least=0)
    worker_hours: float = setting(
        0.0, "Hours that trials occupy workers (GPU-hours if each trial has one GPU); 0: no limit.", at_least=0
    )


@dataclass(frozen=True)
class EarlyStopping(Settings):
    """ASHA (Li et al., MLSys 2020), its control that promotes at random, no early stopping, or a rule of the user's."""

    method: str = setting(
        "asha",
        f"Which trials are promoted: {', '.join(STOPPERS)}, or package.module:function, called with the scores at a"
        " rung.",
        choices=STOPPERS,
        forms={"package.module:function": FUNCTION.pattern},
    )
    first_rung: int = setting(3, "Epochs that every trial gets.", at_least=1)
    reduction_factor: float = setting(
        3.0, "ASHA's eta: one trial in this many is promoted from each rung.", above=1, at_most=1000
    )
    calibration: int | Literal["auto"] = setting(
        "auto",
        "Number of first trials (the published recipe, the others spread evenly over the space) that run to the last"
        " epoch whatever their scores, to measure the rank correlation of the rungs;"
        f" auto: {CALIBRATION_TRIALS}, or all if there are fewer.",
        at_least=1,
    )
    min_rank_correlation: float = setting(
        0.5,
        "A rung whose measured rank correlation with the last epoch is lower stops no trial; -1: every rung stops.",
        at_least=-1,
        at_most=1,
    )
    brackets: int = setting(
        1, "Number of brackets; bracket b starts at the b-th rung, each trial's is drawn from the seed.", at_least=1
    )

    @property
    def stops(self) -> bool:
        """Whether there are rungs below the last epoch."""
        return self.method not in STOPPERS or STOPPERS[self.method].stops


@dataclass(frozen=True)
class Sampler(Settings):
    """Where new recipes come from."""

    name: str = setting(
        "tpe",
        f"Optuna's sampler: {', '.join(SAMPLERS)}, or package.module:function, called with seed and startup_trials.",
        choices=SAMPLERS,
        forms={"package.module:function": FUNCTION.pattern},
    )
    startup_trials: int = setting(
        8,
        "Trials suggested before the sampler's model is used, calibration trials included.",
        at_least=1,
        at_most=10_000,
    )


@dataclass(frozen=True)
class Constraints(Settings):
    """Floors: a trial below one ranks behind all trials above it."""

    clean_accuracy: float = setting(0.0, "Minimum clean accuracy on validation; 0: none.", at_least=0, at_most=1)


@dataclass(frozen=True)
class Resources(Settings):
    """What each trial gets, and how many run at once."""

    cpus_per_trial: float = setting(1.0, "CPU cores per trial; torch gets as many threads.", above=0, at_most=1024)
    gpus_per_trial: float | Literal["auto"] = setting(
        "auto", "GPUs per trial; auto: 1 if there are GPUs, else 0.", at_least=0
    )
    workers: int = setting(
        0,
        "Concurrent trials, also requested from an autoscaler; 0: as many as the machine or cluster has room for.",
        at_least=0,
        at_most=100_000,
    )
    checkpoint_every: int = setting(
        1,
        "Epochs between checkpoints, in addition to those at rungs; raise it if checkpoints are large."
        " A worker that dies loses at most this many epochs.",
        at_least=1,
    )
    worker_deaths: int = setting(
        3, "How often a job is restarted from its last checkpoint after its process or node died.", at_least=0
    )


@dataclass(frozen=True)
class Verdict(Settings):
    """How the search's result is evaluated: retrained on fresh seeds and attacked with AutoAttack's attacks.

    Does not influence the search.
    """

    seconds_at_end: float = setting(
        60.0,
        "A search ends with a small verdict, on the winner and the published recipe with one fresh seed each,"
        " if it fits into this many seconds; 0: none.",
        at_least=0,
    )
    finalists: int = setting(3, "How many of the best trials `hcpr_tune verdict` retrains.", at_least=1, at_most=1000)
    seeds: int = setting(5, "Seeds for the winner and its baseline.", at_least=1, at_most=1000)
    other_seeds: int = setting(
        3, "Seeds for the other finalists; the winner is chosen by this many of each.", at_least=1, at_most=1000
    )
    images: int = setting(
        0, "Validation images for choosing the winner, a fixed class-balanced subset; 0: all.", at_least=0
    )
    test_images: int = setting(0, "Test images to attack in a test access; 0: all.", at_least=0)
    chunk: int = setting(
        100, "Images that a worker attacks at once, lost if it is killed; more is faster on a GPU.", at_least=1
    )
    worker_hours: float = setting(0.0, "Worker hours for all its trainings and attacks; 0: no limit.", at_least=0)


@dataclass(frozen=True)
class Foreseen(Settings):
    """What `hcpr_tune plan --write` predicted, for comparison in the report. Does not influence the search."""

    workers: int = setting(0, "Planned workers; 0: there was no plan.", at_least=0)
    hours: float = setting(0.0, "Wall-clock hours.", at_least=0)
    worker_hours: float = setting(0.0, "Hours that trials occupy workers.", at_least=0)
    use: float = setting(0.0, "Share of worker time spent on training and evaluation.", at_least=0, at_most=1)
    epochs: int = setting(0, "Epochs trained.", at_least=0)
    score: float = setting(
        0.0,
        "True value of the chosen trial in the first objective; 0: unknown.",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class StudySettings(Settings):
    """The settings of a study apart from its recipe and search space."""

    description: str = setting("", "What the study is for.")
    objective: tuple[str, ...] = setting(
        ("robust_accuracy",),
        "What trials are ranked by, on validation; with two objectives, the Pareto front is searched.",
        choices=OBJECTIVES,
    )
    seed: int = setting(0, "Seed of the suggestions and of every trial's training.", at_least=0)
    keep_weights: int = setting(5, "How many of the best trials keep their weights.", at_least=1)
    budget: Budget = setting(Budget(), "When the search ends.")
    constraints: Constraints = setting(Constraints(), "What a trial must reach.")
    early_stopping: EarlyStopping = setting(EarlyStopping(), "How trials are stopped early.")
    sampler: Sampler = setting(Sampler(), "Where new recipes come from.")
    resources: Resources = setting(Resources(), "What a trial gets.")
    verdict: Verdict = setting(Verdict(), "How the result is evaluated.")
    plan: Foreseen = setting(Foreseen(), "What the plan predicted.")

    def check_together(self) -> None:
        if not self.objective or len(set(self.objective)) < len(self.objective):
            raise InputError(
                f"objective must name one or two different accuracies, got {show(self.objective)};"
                f" choose from {', '.join(OBJECTIVES)}"
            )
        calibration, trials = self.early_stopping.calibration, self.budget.trials
        if calibration != "auto" and calibration > trials:
            raise InputError(
                f"early_stopping.calibration must be at most budget.trials = {trials}, got {calibration};"
                " lower it, or raise budget.trials"
            )


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
        wanted = self.settings.early_stopping.calibration
        if not self.settings.early_stopping.stops:
            return 1
        room = max(1, self.settings.budget.trials - len(self.first_points))
        return min(CALIBRATION_TRIALS, room) if wanted == "auto" else wanted

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
        )

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


def find_space(name: str, option: str = "--space") -> Path:
    """The file of a space, given as the path of a TOML file or the name of one in search_spaces/.

    Raises `InputError`, which names the `option`.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not is_file(path, f"{option} {name}"):
            raise InputError(f"{option} {name}: there is no such file; give the path of a study's TOML file")
        return path
    package = Path(__file__).parents[2]
    folders = (Path("search_spaces"), package.parent / "search_spaces", package / "search_spaces")
    known: dict[str, Path] = {}
    for folder in reversed(folders):
        known |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name not in known:
        raise InputError(
            f"{option} {show(name)} is unknown; known: {', '.join(sorted(known)) or 'none'},"
            " or give the path of a TOML file"
        )
    return known[name]


DERIVED = {
    "segment_ends": "it follows from early_stopping.first_rung, early_stopping.reduction_factor and recipe.epochs",
    "stop_epoch": "early stopping decides it",
    "threads": "it follows from resources.cpus_per_trial",
    "seed": "every trial trains with the study's seed; set that",
    "task": "it belongs in the table [task]",
}
"""Recipe fields that a study file cannot set in [recipe], and why."""


def read_study(path: Path, overrides: Sequence[tuple[str, Any]] = (), given: str = "") -> StudySpec:
    """Read a study file and apply `overrides` (dotted name, value).

    A dotted name is a key of the file, or a field of the recipe, which is then fixed and no longer searched. `given` is
    the overrides as they were written on the command line, for messages. A relative path of the images is made
    absolute. Raises `InputError` naming file, key, bounds, value and hint.
    """
    where = f"{path} with {given}" if given else str(path)
    tables = read_toml(path)
    if isinstance(tables.get("search"), dict):
        tables["search"] = nested(tables["search"], where)
    own: dict[str, Any] = {}
    for dotted, value in overrides:
        own |= _override(tables, dotted, value, where)
    return at_home(study_from_plain(tables, where, own))


def at_home(study: StudySpec) -> StudySpec:
    """The study with an absolute path of its images, since workers run in other folders.

    `~` is left for each machine to expand. A path that is not used is left as it is.
    """
    task = study.recipe.task
    folder = task.dataset.removeprefix(FOLDER)
    if folder != task.dataset:
        task = replace(task, dataset=f"{FOLDER}{_absolute(folder)}")
    elif task.dataset != Task.dataset:
        task = replace(task, root=_absolute(task.root))
    return study if task == study.recipe.task else replace(study, recipe=replace(study.recipe, task=task))


def _absolute(path: str) -> str:
    if path.startswith(("~", "/")):
        return path
    try:
        return str(Path.cwd() / path)
    except OSError as error:
        raise InputError(
            f"the images in {show(path)} cannot be found from the current directory: {error}; give an absolute path"
        ) from None


def check_reopens(study: StudySpec, where: str) -> None:
    """Raises `InputError` if the study's file would not be read back as this study: it could not be resumed."""
    try:
        again = study_from_plain(parse_toml(study_to_toml(study), "study.toml"), "study.toml")
    except (InputError, UnicodeEncodeError) as error:
        raise InputError(
            f"this study could not be opened again: {error}; change what it names, and report it ({where})"
        ) from None
    if again != replace(study, begun_as=""):
        one, other = study_to_plain(study), study_to_plain(again)
        wrong = next((name for name in one if one[name] != other.get(name)), "it")
        raise InputError(
            f"this study could not be opened again: its {wrong} would be read as something else;"
            f" write that table differently, and report it ({where})"
        )


def _override(tables: dict[str, Any], dotted: str, value: Any, where: str) -> dict[str, Any]:
    """Set a value in the tables; returns the plain values that it replaced, by dotted name."""
    recipe_fields = dotted_names(Recipe)
    head = dotted.partition(".")[0]
    known = {item.name for item in fields(StudySettings)} | {"recipe", "task", "search", "first_points"}
    if head not in known and (dotted in recipe_fields or head in {name.partition(".")[0] for name in recipe_fields}):
        dotted, head = f"recipe.{dotted}", "recipe"
    if head not in known:
        raise unknown_key(dotted, [*known, *recipe_fields], where)
    before = {dotted: get_dotted(tables, dotted)}
    lay_over(tables, dotted, value, where)
    if head == "recipe":
        _fix(tables.get("search", {}), dotted.removeprefix("recipe."))
    return before


def _fix(search: Any, name: str) -> None:
    """Remove the dimensions of the field `name`, and of all fields below it, from the nested search table."""
    head, _, rest = name.partition(".")
    if not isinstance(search, dict):
        return
    if not rest:
        for key in [key for key in search if field_of(key) == head]:
            del search[key]
    elif head in search:
        _fix(search[head], rest)
        if search[head] == {}:
            del search[head]


def study_from_plain(tables: dict[str, Any], where: str, instead: Mapping[str, Any] | None = None) -> StudySpec:
    """A study from the nested tables of its file; `instead`: the file's values that were overridden, by dotted name."""
    tables = copy.deepcopy(tables)
    search, task, recipe = (tables.pop(name, {}) for name in ("search", "task", "recipe"))
    points = tables.pop("first_points", [])
    if isinstance(tables.get("objective"), str):
        tables["objective"] = [tables["objective"]]
    for name, table in (("search", search), ("task", task), ("recipe", recipe)):
        if not isinstance(table, dict):
            raise InputError(
                f"{name} must be a table, got {show(table)}; write [{name}] with its keys below it ({where})"
            )
    unknown = set(tables) - {item.name for item in fields(StudySettings)}
    if unknown:
        known = [item.name for item in fields(StudySettings)] + ["search", "task", "recipe", "first_points"]
        raise unknown_key(min(unknown), known, where)
    settings = read(StudySettings, tables, where, instead=instead)
    for name, reason in DERIVED.items():
        if name in recipe:
            raise InputError(f"recipe.{name} cannot be set in a study: {reason} ({where})")
    try:
        # Read once without the rungs, which need the epochs, so that the recipe's own errors come first.
        below = {name.removeprefix("recipe."): value for name, value in (instead or {}).items()}
        epochs = _read_recipe({**recipe, "task": task}, where, below).epochs
        rungs = rung_epochs(settings.early_stopping, epochs)
        _check_brackets(settings.early_stopping, rungs)
    except InputError as error:
        raise located(error, where) from None
    derived = {
        "task": task,
        "segment_ends": [rung for rung in rungs if rung < epochs],
        "threads": max(1, int(settings.resources.cpus_per_trial)),
        "seed": settings.seed,
    }
    full = recipe_from_plain({**recipe, **derived}, where)
    space = read_space(search, full, where)
    study = StudySpec(settings, full, space, read_points(points, full, space, where))
    calibration, before = settings.early_stopping.calibration, len(study.first_points)
    if calibration != "auto" and calibration + before > settings.budget.trials:
        raise InputError(
            f"early_stopping.calibration = {calibration} and {before} first_points must together be"
            f" at most budget.trials = {settings.budget.trials}; lower one, or raise budget.trials ({where})"
        )
    return study


def _check_brackets(early_stopping: EarlyStopping, rungs: Sequence[int]) -> None:
    if early_stopping.stops and early_stopping.brackets > len(rungs):
        raise InputError(
            f"early_stopping.brackets must be at most the number of rungs, {len(rungs)}"
            f" (epochs {', '.join(map(str, rungs))}), got {early_stopping.brackets}; lower it"
        )


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


def _read_recipe(values: dict[str, Any], where: str, instead: Mapping[str, Any]) -> Recipe:
    """The recipe of a study file; errors name the keys as they are in the file."""
    try:
        return recipe_from_plain(values, where, instead)
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith("task.") else f"recipe.{message}") from None


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
