"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020) as a pure function of the record.

Unlike Ray's scheduler of that name, trials are promoted, not only stopped, nothing is remembered outside the record (after a restart
the decisions are those that would have been taken without it), and a rung that does not foretell the end stops nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.search.record.history import ENQUEUED, History, Job, Trial
from hcpr_tune.search.scheduling.config import AshaConfig, always_promoted, bracket_of, bracket_shares
from hcpr_tune.search.scheduling.rung_correlation import end_of
from hcpr_tune.search.scheduling.rungs import Rung, RungSystem, rung_system_of


@dataclass(frozen=True)
class NewTrial:
    """Begin trial `number`: a point that was asked for, or a new sample."""

    number: int


LOST_AT_ONCE = 5
"""So many trials lost for one reason, and no other, end a search."""

Decision = Job | NewTrial | Literal["wait", "finished"]


def next_decision(history: History, asha_config: AshaConfig) -> Decision:
    """What a free worker does next.

    A job that was broken off, else a point that somebody asked for, else the best promotion from the highest rung down, else a new
    trial. So no worker idles while anything can be promoted. O(log n) in the number of trials for each event since the last decision
    (with two objectives see `promotions.Fronts`).
    """
    if over_budget(history, asha_config) or hopeless(history):
        return "finished"
    rung_system = rung_system_of(history, asha_config)
    broken_off = _broken_off(history, rung_system)
    if broken_off is not None:
        return broken_off
    if history.queue:
        return NewTrial(len(history.trials))
    promotion = _promotion(history, rung_system)
    if promotion is not None:
        return promotion
    if len(history.trials) - history.by_source[ENQUEUED] < asha_config.trials:
        return NewTrial(len(history.trials))
    return "wait" if history.running_jobs else "finished"


def over_budget(history: History, asha_config: AshaConfig) -> bool:
    """Whether the time is up. Running jobs then end with their epoch."""
    return history.seconds >= asha_config.seconds or history.worker_seconds >= asha_config.worker_seconds


def hopeless(history: History) -> str:
    """The reason why going on would burn the budget: so many trials were lost for it, none has reached a rung, and none is on its way. Empty where there is hope."""
    if len(history.lost_at_once) < LOST_AT_ONCE:
        return ""
    if history.scored or any(trial.epochs for trial in history.running_jobs.values()):
        return ""
    # The same fault has other numbers in it each time.
    kinds = (re.sub(r"[-+.\w]*\d[-+.\w]*|nan|inf", "#", reason) for reason in history.lost_at_once)
    first = next(kinds)
    return history.lost_at_once[0] if all(kind == first for kind in kinds) else ""


def first_job(trial: Trial, asha_config: AshaConfig) -> Job:
    """A new trial's first segment, to the first rung of its bracket."""
    return Job(trial.number, 0, asha_config.rungs[bracket_of(trial, asha_config)])


def _broken_off(history: History, rung_system: RungSystem) -> Job | None:
    """The job of a trial that was handed out, or about to be, when the search was interrupted."""
    number = rung_system.broken_off()
    if number is None:
        return None
    trial, asha_config = history.trials[number], rung_system.asha_config
    return asha_config.job(number, trial.last_rung, trial.target) if trial.target else first_job(trial, asha_config)


def _promotion(history: History, rung_system: RungSystem) -> Job | None:
    """The first promotion from the highest rung down: trials that are always promoted in front, then the best of those that wait.

    No other one can be inside the quota where the best is not.
    """
    asha_config = rung_system.asha_config
    for rung in reversed(asha_config.rungs[:-1]):
        for bracket in range(asha_config.brackets):
            rung_places = rung_system.rungs[rung, bracket]
            if not rung_places.waiting:
                continue
            number = rung_places.first_always()
            if number is None and rung >= asha_config.rungs[bracket]:
                best = rung_places.best_waiting()
                if best is not None and _goes_on(history, rung_places, history.trials[best], rung, asha_config):
                    number = best
            if number is not None:
                return asha_config.job(number, rung, asha_config.following(rung))
    return None


def _goes_on(history: History, rung_places: Rung, trial: Trial, rung: int, asha_config: AshaConfig) -> bool:
    """Whether its score at `rung` promotes a trial: it is inside the quota, or the rung stops nobody."""
    if asha_config.method == "none" or rung_places.holds(trial):
        return True
    return not end_of(history, asha_config.rungs, rung).halves(asha_config.min_rank_correlation)


def earned_rungs(history: History, trial: Trial, asha_config: AshaConfig) -> list[int]:
    """The trial's rungs up to the one from which its own score would not have promoted it."""
    rungs = sorted(trial.rungs)
    if not always_promoted(trial, history):
        return rungs
    rung_system = rung_system_of(history, asha_config)
    bracket = rung_system.bracket(trial)
    for count, rung in enumerate(rungs, 1):
        judged = rung in asha_config.rungs[bracket:-1]
        if judged and not _goes_on(history, rung_system.rungs[rung, bracket], trial, rung, asha_config):
            return rungs[:count]
    return rungs


def most_epochs(asha_config: AshaConfig) -> int:
    """An upper bound on the epochs that a search can take: where no rung is worth anything, nobody is stopped."""
    return asha_config.trials * (sum(asha_config.rungs) if asha_config.restarted else asha_config.rungs[-1])


def usual_epochs(asha_config: AshaConfig, calibration: int) -> int:
    """The epochs that a search takes where every rung promotes exactly its quota, the `calibration` trials running to the end."""
    return round(sum((end - start) * times for start, end, times in usual_segments(asha_config, calibration)))


def usual_segments(asha_config: AshaConfig, calibration: int) -> list[tuple[int, int, float]]:
    """The same by segment: (from the end of epoch, to the end of epoch, how many trials train it)."""
    always = min(asha_config.trials, max(1, calibration))
    times: dict[int, float] = dict.fromkeys(asha_config.rungs, float(always))
    segments = []
    for bracket, share in enumerate(bracket_shares(asha_config)):
        reaching, begins = (asha_config.trials - always) * share, asha_config.rungs[bracket]
        for rung in asha_config.rungs:
            if rung >= begins or not asha_config.restarted:
                times[rung] += reaching
            if rung >= begins:
                reaching /= asha_config.reduction_factor
    before = 0
    for rung in asha_config.rungs:
        segments.append((0 if asha_config.restarted else before, rung, times[rung]))
        before = rung
    return segments
