"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020) as a pure function of the record.

Unlike Ray's ASHA scheduler, this one promotes trials instead of only stopping them, keeps no state outside the record
(a restart does not change its decisions), and ignores rungs that do not predict the final ranking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.search.record.history import ENQUEUED, REPLICATE, History, Job, Trial
from hcpr_tune.search.scheduling.config import AshaConfig, always_promoted, bracket_of, bracket_shares
from hcpr_tune.search.scheduling.rung_correlation import end_of
from hcpr_tune.search.scheduling.rung_system import RungSystem, rung_system_of
from hcpr_tune.search.scheduling.rungs import Rung


@dataclass(frozen=True)
class NewTrial:
    """Start trial `number`: an enqueued point, or a new suggestion."""

    number: int


LOST_AT_ONCE = 5
"""A search ends after losing this many trials, all for the same reason."""

Decision = Job | NewTrial | Literal["wait", "finished"]


def next_decision(history: History, asha_config: AshaConfig) -> Decision:
    """What a free worker does next.

    In this order: an interrupted job, an enqueued point, the best promotion from the highest rung down, a new trial. So
    no worker idles while anything can be promoted. What is kept back for replicates is not spent here (see
    `search.selection.replication`). O(log n) in the number of trials for each event since the last
    decision (for two objectives see `rungs.Fronts`).
    """
    if over_budget(history, asha_config) or hopeless(history):
        return "finished"
    rung_system = rung_system_of(history, asha_config)
    broken_off = _broken_off(history, rung_system)
    if broken_off is not None:
        return broken_off
    if over_budget(history, asha_config, 1 - asha_config.kept_back):
        return _waits_or_finished(history)
    if history.queue:
        return NewTrial(len(history.trials))
    promotion = _promotion(history, rung_system)
    if promotion is not None:
        return promotion
    suggested = len(history.trials) - history.by_source[ENQUEUED] - history.by_source[REPLICATE]
    if suggested < asha_config.trials:
        return NewTrial(len(history.trials))
    return _waits_or_finished(history)


def _waits_or_finished(history: History) -> Literal["wait", "finished"]:
    """Replicates that run keep no one waiting: nothing here depends on them."""
    return "wait" if any(trial.replicate_of is None for trial in history.running_jobs.values()) else "finished"


def over_budget(history: History, asha_config: AshaConfig, share: float = 1.0) -> bool:
    """Whether so much of the time budget is spent. After all of it, running jobs finish their epoch."""
    return (
        history.seconds >= share * asha_config.seconds or history.worker_seconds >= share * asha_config.worker_seconds
    )


def hopeless(history: History) -> str:
    """The reason for giving up the search, or an empty string.

    A search is given up if `LOST_AT_ONCE` trials or more were lost, all for this reason, no trial has reached a rung
    and no running trial has finished an epoch.
    """
    if len(history.lost_at_once) < LOST_AT_ONCE:
        return ""
    if history.scored or any(trial.epochs for trial in history.running_jobs.values()):
        return ""
    # Messages of the same fault differ in their numbers.
    kinds = (re.sub(r"[-+.\w]*\d[-+.\w]*|nan|inf", "#", reason) for reason in history.lost_at_once)
    first = next(kinds)
    return history.lost_at_once[0] if all(kind == first for kind in kinds) else ""


def first_job(trial: Trial, asha_config: AshaConfig) -> Job:
    """A new trial's first segment, to the first rung of its bracket; the whole of a training without rungs."""
    if trial.single_schedule:
        return Job(trial.number, 0, asha_config.rungs[-1])
    return Job(trial.number, 0, asha_config.rungs[bracket_of(trial, asha_config)])


def _broken_off(history: History, rung_system: RungSystem) -> Job | None:
    """The job that an interrupted search had started or was about to start."""
    number = rung_system.broken_off()
    if number is None:
        return None
    trial, asha_config = history.trials[number], rung_system.asha_config
    return asha_config.job(trial, trial.last_rung, trial.target) if trial.target else first_job(trial, asha_config)


def _promotion(history: History, rung_system: RungSystem) -> Job | None:
    """The first promotion from the highest rung down: trials that are always promoted, then the best waiting one.

    If the rung does not promote the one that it calls the best, it promotes none.
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
                return asha_config.job(history.trials[number], rung, asha_config.following(rung))
    return None


def _goes_on(history: History, rung_places: Rung, trial: Trial, rung: int, asha_config: AshaConfig) -> bool:
    """Whether a trial's score at `rung` promotes it: by the study's rule, or because the rung stops no trial."""
    if rung_places.holds(trial):
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
    """An upper bound on the epochs of a search, reached if the rungs predict nothing and no trial is stopped."""
    longest = sum(asha_config.rungs) if asha_config.restarted else asha_config.rungs[-1]
    return asha_config.trials * longest + asha_config.replicates * asha_config.rungs[-1]


def usual_epochs(asha_config: AshaConfig, calibration: int) -> int:
    """The epochs of a search if every rung promotes exactly its quota and `calibration` trials are never stopped."""
    return round(sum((end - start) * times for start, end, times in usual_segments(asha_config, calibration)))


def usual_segments(asha_config: AshaConfig, calibration: int) -> list[tuple[int, int, float]]:
    """The same by segment: (after epoch, to the end of epoch, number of trainings of it), replicates last."""
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
    if asha_config.replicates:
        segments.append((0, asha_config.rungs[-1], float(asha_config.replicates)))
    return segments
