"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020) as a pure function of the record.

Unlike Ray's scheduler of that name, trials are promoted, not only stopped, nothing is remembered outside the record (after a restart
the decisions are those that would have been taken without it), and a rung that does not foretell the end stops nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.search.record.history import ENQUEUED, History, Job, Trial
from hcpr_tune.search.scheduling.config import Rules, always_promoted, bracket_of, bracket_shares
from hcpr_tune.search.scheduling.rung_correlation import end_of
from hcpr_tune.search.scheduling.rungs import Ladder, Quota, ladder_of


@dataclass(frozen=True)
class NewTrial:
    """Begin trial `number`: a point that was asked for, or a new sample."""

    number: int


LOST_AT_ONCE = 5
"""So many trials lost for one reason, and no other, end a search."""

Decision = Job | NewTrial | Literal["wait", "finished"]


def next_decision(history: History, rules: Rules) -> Decision:
    """What a free worker does next.

    A job that was broken off, else a point that somebody asked for, else the best promotion from the highest rung down, else a new
    trial. So no worker idles while anything can be promoted. O(log n) in the number of trials for each event since the last decision
    (with two objectives see `promotions.Fronts`).
    """
    if over_budget(history, rules) or hopeless(history):
        return "finished"
    ladder = ladder_of(history, rules)
    broken_off = _broken_off(history, ladder)
    if broken_off is not None:
        return broken_off
    if history.queue:
        return NewTrial(len(history.trials))
    promotion = _promotion(history, ladder)
    if promotion is not None:
        return promotion
    if len(history.trials) - history.by_source[ENQUEUED] < rules.trials:
        return NewTrial(len(history.trials))
    return "wait" if history.running_jobs else "finished"


def over_budget(history: History, rules: Rules) -> bool:
    """Whether the time is up. Running jobs then end with their epoch."""
    return history.seconds >= rules.seconds or history.worker_seconds >= rules.worker_seconds


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


def first_job(trial: Trial, rules: Rules) -> Job:
    """A new trial's first stretch, to the first rung of its bracket."""
    return Job(trial.number, 0, rules.rungs[bracket_of(trial, rules)])


def _broken_off(history: History, ladder: Ladder) -> Job | None:
    """The job of a trial that was handed out, or about to be, when the search was interrupted."""
    number = ladder.broken_off()
    if number is None:
        return None
    trial, rules = history.trials[number], ladder.rules
    return rules.job(number, trial.last_rung, trial.target) if trial.target else first_job(trial, rules)


def _promotion(history: History, ladder: Ladder) -> Job | None:
    """The first promotion from the highest rung down: trials that are always promoted in front, then the best of those that wait.

    No other one can be inside the quota where the best is not.
    """
    rules = ladder.rules
    for rung in reversed(rules.rungs[:-1]):
        for bracket in range(rules.brackets):
            quota = ladder.quotas[rung, bracket]
            if not quota.waiting:
                continue
            number = quota.first_always()
            if number is None and rung >= rules.rungs[bracket]:
                best = quota.best_waiting()
                if best is not None and _goes_on(history, quota, history.trials[best], rung, rules):
                    number = best
            if number is not None:
                return rules.job(number, rung, rules.following(rung))
    return None


def _goes_on(history: History, quota: Quota, trial: Trial, rung: int, rules: Rules) -> bool:
    """Whether its score at `rung` promotes a trial: it is inside the quota, or the rung stops nobody."""
    if rules.method == "none" or quota.holds(trial):
        return True
    return not end_of(history, rules.rungs, rung).halves(rules.least_worth)


def earned_rungs(history: History, trial: Trial, rules: Rules) -> list[int]:
    """The trial's rungs up to the one from which its own score would not have promoted it."""
    rungs = sorted(trial.rungs)
    if not always_promoted(trial, history):
        return rungs
    ladder = ladder_of(history, rules)
    bracket = ladder.bracket(trial)
    for count, rung in enumerate(rungs, 1):
        judged = rung in rules.rungs[bracket:-1]
        if judged and not _goes_on(history, ladder.quotas[rung, bracket], trial, rung, rules):
            return rungs[:count]
    return rungs


def most_epochs(rules: Rules) -> int:
    """An upper bound on the epochs that a search can take: where no rung is worth anything, nobody is stopped."""
    return rules.trials * (sum(rules.rungs) if rules.restarted else rules.rungs[-1])


def usual_epochs(rules: Rules, calibration: int) -> int:
    """The epochs that a search takes where every rung promotes exactly its quota, the `calibration` trials running to the end."""
    return round(sum((end - start) * times for start, end, times in usual_stretches(rules, calibration)))


def usual_stretches(rules: Rules, calibration: int) -> list[tuple[int, int, float]]:
    """The same by stretch: (from the end of epoch, to the end of epoch, how many trials train it)."""
    always = min(rules.trials, max(1, calibration))
    times: dict[int, float] = dict.fromkeys(rules.rungs, float(always))
    stretches = []
    for bracket, share in enumerate(bracket_shares(rules)):
        reaching, begins = (rules.trials - always) * share, rules.rungs[bracket]
        for rung in rules.rungs:
            if rung >= begins or not rules.restarted:
                times[rung] += reaching
            if rung >= begins:
                reaching /= rules.reduction_factor
    before = 0
    for rung in rules.rungs:
        stretches.append((0 if rules.restarted else before, rung, times[rung]))
        before = rung
    return stretches
