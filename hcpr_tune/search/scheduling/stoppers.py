"""The rules of early stopping: which trials a rung promotes. A user's own is the same object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.text import one_line
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.scheduling.rungs import Fronts, RuledRung, Rung
from hcpr_tune.training.plugins import accepted, load, reporting

WHAT = "early_stopping.method"
TRIED = {3: 0.75, 1: 0.5, 2: 0.5, 0: 0.25}
"""Scores that a user's rule is tried on before a search begins."""


@dataclass(frozen=True)
class StopperSpec:
    """A rule of early stopping.

    `rung(history, config, epoch)` returns an empty rung, which is told of each trial that reaches the epoch, waits or
    is lost there, and says which it promotes.
    """

    rung: Callable[[History, AshaConfig, int], Rung]
    stops: bool = True
    """False: every trial trains to the last epoch, and there is no rung before it."""


def _asha(history: History, config: AshaConfig, epoch: int) -> Rung:
    """The best 1 / reduction_factor of the trials."""
    goal = history.goal
    if len(goal.objectives) > 1:
        return Fronts(config.reduction_factor, lambda trials: goal.order(trials, epoch))
    return Rung(config.reduction_factor, lambda trial: (*goal.place(trial.scores[epoch]), trial.number))


def _random(history: History, config: AshaConfig, epoch: int) -> Rung:
    """As many, drawn at random: the control that shows what the scores are good for."""
    return Rung(
        config.reduction_factor,
        lambda trial: (derive_seed(config.seed, "promotion", epoch, trial.number), 0, trial.number),
    )


def _none(history: History, config: AshaConfig, epoch: int) -> Rung:
    """All of them, the best first."""
    return _asha(history, replace(config, reduction_factor=1.0), epoch)


STOPPERS = {
    "asha": StopperSpec(_asha),
    "random": StopperSpec(_random),
    "none": StopperSpec(_none, stops=False),
}
"""The rules by name."""


def stopper_spec(name: str) -> StopperSpec:
    """The rule of that name, or the user's: package.module:name is a function or a `StopperSpec`.

    The function takes those that it wants of `scores` (trial number -> first objective at the rung, the best trial
    first by the study's objectives and constraints), `lost` (number of trials that were lost on their way to the rung),
    `epoch` (of the rung) and `reduction_factor`, and returns the numbers of the trials that are promoted. It must be
    pure. Raises `InputError` if it cannot be imported.
    """
    if name in STOPPERS:
        return STOPPERS[name]
    found = load(name, WHAT, StopperSpec)
    return found if isinstance(found, StopperSpec) else StopperSpec(partial(_own, name, found))


def _own(name: str, rule: Callable[..., Iterable[int]], history: History, config: AshaConfig, epoch: int) -> Rung:
    goal = history.goal

    def promoted(ordered: list[Trial], lost: int) -> frozenset[int]:
        scores = {trial.number: goal.values(trial.scores[epoch])[0] for trial in ordered}
        return _promoted(name, rule, scores, _more(config, epoch, lost))

    return RuledRung(lambda trials: goal.order(trials, epoch), promoted)


def _promoted(
    name: str, rule: Callable[..., Iterable[int]], scores: dict[int, float], more: dict[str, float]
) -> frozenset[int]:
    """What a user's rule promotes. Raises `PluginError` for what it raises, and for trials that are not at the rung."""
    with reporting(f"{WHAT} {name}: choosing from {len(scores)} trials"):
        found = frozenset(rule(**accepted(rule, {"scores": dict(scores), **more})))
        if not found <= scores.keys():
            strange = sorted(map(repr, found - scores.keys()))
            raise ValueError(f"it must return trials of `scores`, got {one_line(', '.join(strange), 100)}")
        return found


def check_stopper(config: AshaConfig) -> None:
    """Raises `InputError` if a user's rule cannot be imported, or raises an error for a few scores."""
    if config.method in STOPPERS:
        return
    found = load(config.method, WHAT, StopperSpec)
    if not isinstance(found, StopperSpec):
        _promoted(config.method, found, TRIED, _more(config, config.rungs[0], 0))


def _more(config: AshaConfig, epoch: int, lost: int) -> dict[str, float]:
    return {"epoch": epoch, "lost": lost, "reduction_factor": config.reduction_factor}


def without_own_code(config: AshaConfig) -> AshaConfig:
    """The same for a view, which imports no one's code: instead of a user's rule, one that promotes no trial."""
    if config.method in STOPPERS:
        return config
    return replace(config, method="asha", reduction_factor=math.inf, min_rank_correlation=-1.0)
