"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020) as a pure function of the record.

Unlike Ray's scheduler of that name, trials are promoted, not only stopped, and nothing is remembered outside the record: after
a restart the decisions are those that would have been taken without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.search.record import History, Job, Trial


@dataclass(frozen=True)
class NewTrial:
    """Suggest recipe `number` and train it to the first rung."""

    number: int


Decision = Job | NewTrial | Literal["wait", "finished"]

ALWAYS_PROMOTED = frozenset({0})
"""Trial 0, the published recipe, runs to the end whatever its scores: it is what the winner is compared with."""


def next_decision(history: History, rungs: Sequence[int], reduction_factor: float, trials: int) -> Decision:
    """What a free worker does next: a broken-off job, else the best promotion from the highest rung down, else a new trial."""
    broken_off = _broken_off(history, rungs)
    if broken_off is not None:
        return broken_off
    for before, rung, following in reversed(list(zip((0, *rungs), rungs, rungs[1:], strict=False))):
        promotable = [trial for trial in _top(history, before, rung, reduction_factor) if _stands_at(trial, rung)]
        if promotable:
            return Job(promotable[0].number, rung, following)
    if len(history.trials) < trials:
        return NewTrial(len(history.trials))
    return "wait" if history.running else "finished"


def _broken_off(history: History, rungs: Sequence[int]) -> Job | None:
    """The job of a trial that was handed out, or about to be, when the search was interrupted."""
    for trial in history.trials.values():
        if trial.status == "waiting" and (trial.target > trial.last_rung or not trial.target):
            start = trial.last_rung
            return Job(trial.number, start, next(rung for rung in rungs if rung > start))
    return None


def _stands_at(trial: Trial, rung: int) -> bool:
    return trial.status == "waiting" and trial.last_rung == rung


def _top(history: History, before: int, rung: int, reduction_factor: float) -> list[Trial]:
    """The trials that may go on from `rung`: those always promoted in front, then the best of the rung, best first."""
    always = [trial for trial in history.trials.values() if trial.number in ALWAYS_PROMOTED and rung in trial.rungs]
    return always + _best(history, before, rung, reduction_factor)


def _best(history: History, before: int, rung: int, reduction_factor: float) -> list[Trial]:
    """The trials in the top 1 / reduction_factor of those recorded at `rung`, best first.

    A trial that diverged or failed between the rungs `before` and `rung` is counted here as the worst.
    """
    recorded = [trial for trial in history.trials.values() if rung in trial.rungs]
    lost = [
        trial
        for trial in history.trials.values()
        if trial.status in ("diverged", "failed") and rung not in trial.rungs and trial.last_rung == before
    ]
    quota = math.floor((len(recorded) + len(lost)) / reduction_factor + 1e-9)
    recorded.sort(key=lambda trial: (-trial.rungs[rung], trial.number))
    return recorded[:quota]


def earned_rungs(history: History, trial: Trial, rungs: Sequence[int], reduction_factor: float) -> dict[int, float]:
    """The trial's scores up to the rung from which its own score would not have promoted it."""
    if trial.number not in ALWAYS_PROMOTED:
        return dict(trial.rungs)
    earned: dict[int, float] = {}
    for before, rung in zip((0, *rungs), rungs, strict=False):
        if rung not in trial.rungs:
            break
        earned[rung] = trial.rungs[rung]
        if trial not in _best(history, before, rung, reduction_factor):
            break
    return earned


def most_epochs(rungs: Sequence[int], reduction_factor: float, trials: int) -> int:
    """An upper bound on the epochs that a search can take, whatever the scores.

    Where each score beats those before it, every trial from the first full quota on is promoted.
    """
    return _epochs(rungs, trials, lambda reaching: reaching - math.ceil(reduction_factor - 1e-9) + 1)


def usual_epochs(rungs: Sequence[int], reduction_factor: float, trials: int) -> int:
    """The epochs that a search takes where exactly the quota, and the published recipe, are promoted from each rung."""
    return _epochs(rungs, trials, lambda reaching: math.floor(reaching / reduction_factor + 1e-9))


def _epochs(rungs: Sequence[int], trials: int, promoted: Callable[[int], int]) -> int:
    total, reaching, before = 0, trials, 0
    for rung in rungs:
        total += reaching * (rung - before)
        before = rung
        reaching = min(reaching, max(0, promoted(reaching)) + len(ALWAYS_PROMOTED))
    return total
