"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020) as a pure function of the record.

Unlike Ray's scheduler of that name, trials are promoted, not only stopped, nothing is remembered outside the record (after a restart
the decisions are those that would have been taken without it), and a rung that does not foretell the end stops nobody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.search.history import CALIBRATION, ENQUEUED, PUBLISHED, History, Job, Trial
from hcpr_tune.search.worth import Worth, rung_worths
from hcpr_tune.seeds import derive_seed


@dataclass(frozen=True)
class NewTrial:
    """Begin trial `number`: a point that was asked for, or a new sample."""

    number: int


LOST_AT_ONCE = 5
"""So many trials lost for one reason, and no other, end a search."""

Decision = Job | NewTrial | Literal["wait", "finished"]


@dataclass(frozen=True)
class Rules:
    """What halving needs to know of a study. `rungs` end with the last epoch; `trials` leaves out the enqueued ones."""

    rungs: tuple[int, ...]
    trials: int
    reduction_factor: float = 3.0
    method: str = "asha"
    """asha promotes the best of a rung, random draws them: the baseline that shows what the scores are good for."""
    brackets: int = 1
    least_worth: float = 0.5
    seed: int = 0
    restarted: bool = False
    """Each rung is a training of its own, so that a promotion starts from scratch."""
    seconds: float = math.inf
    worker_seconds: float = math.inf

    def following(self, rung: int) -> int:
        """The rung after `rung`; the first one after 0."""
        return next(later for later in self.rungs if later > rung)

    def job(self, trial: int, rung: int, end: int) -> Job:
        """From the rung that the trial stands at to `end`."""
        return Job(trial, 0 if self.restarted else rung, end)


def next_decision(history: History, rules: Rules) -> Decision:
    """What a free worker does next.

    A job that was broken off, else a point that somebody asked for, else the best promotion from the highest rung down, else a new
    trial. So no worker idles while anything can be promoted.
    """
    if over_budget(history, rules) or hopeless(history):
        return "finished"
    broken_off = _broken_off(history, rules)
    if broken_off is not None:
        return broken_off
    if history.queue:
        return NewTrial(len(history.trials))
    promotion = _promotion(history, rules)
    if promotion is not None:
        return promotion
    if sum(trial.source != ENQUEUED for trial in history.trials.values()) < rules.trials:
        return NewTrial(len(history.trials))
    return "wait" if history.running_jobs else "finished"


def over_budget(history: History, rules: Rules) -> bool:
    """Whether the time is up. Running jobs then end with their epoch."""
    return history.seconds >= rules.seconds or history.worker_seconds >= rules.worker_seconds


def hopeless(history: History) -> str:
    """The reason why going on would burn the budget: so many trials were lost for it, none has reached a rung, and none is on its way. Empty where there is hope."""
    if len(history.lost_at_once) < LOST_AT_ONCE:
        return ""
    if any(trial.epochs for trial in history.running) or any(trial.rungs for trial in history.trials.values()):
        return ""
    # The same fault has other numbers in it each time.
    kinds = {re.sub(r"[-+.\w]*\d[-+.\w]*|nan|inf", "#", reason) for reason in history.lost_at_once}
    return history.lost_at_once[0] if len(kinds) == 1 else ""


def first_job(trial: Trial, rules: Rules) -> Job:
    """A new trial's first stretch, to the first rung of its bracket."""
    return Job(trial.number, 0, rules.rungs[bracket_of(trial, rules)])


def _broken_off(history: History, rules: Rules) -> Job | None:
    """The job of a trial that was handed out, or about to be, when the search was interrupted."""
    for trial in history.trials.values():
        if trial.status == "waiting" and (trial.target > trial.last_rung or not trial.target):
            if not trial.target:
                return first_job(trial, rules)
            return rules.job(trial.number, trial.last_rung, trial.target)
    return None


def _promotion(history: History, rules: Rules) -> Job | None:
    waiting: dict[int, set[int]] = {}
    for trial in history.trials.values():
        if trial.status == "waiting" and trial.rungs:
            waiting.setdefault(trial.last_rung, set()).add(trial.number)
    if not waiting.keys() & set(rules.rungs[:-1]):
        return None
    worths = rung_worths(history, rules.rungs)
    for rung in reversed(rules.rungs[:-1]):
        if rung not in waiting:
            continue
        for bracket in range(rules.brackets):
            for trial in _going_on(history, rung, bracket, rules, worths[rung]):
                if trial.number in waiting[rung]:
                    return rules.job(trial.number, rung, rules.following(rung))
    return None


def always_promoted(trial: Trial, history: History) -> bool:
    """Runs to the end whatever its scores: the published recipe, which the winner is compared with, the calibration, and what is audited."""
    return trial.source in (PUBLISHED, CALIBRATION) or trial.number in history.audited


def bracket_of(trial: Trial, rules: Rules) -> int:
    """The bracket that a trial is in, drawn from the study's seed: bracket b begins at rung b.

    A bracket's chance falls with the epochs of its first stretch, so that all of them cost the same there.
    """
    if rules.brackets == 1 or trial.source in (PUBLISHED, CALIBRATION, ENQUEUED):
        return 0
    draw = derive_seed(rules.seed, "bracket", trial.number) / 2**63
    for bracket, share in enumerate(bracket_shares(rules)):
        draw -= share
        if draw < 0:
            return bracket
    return rules.brackets - 1


def bracket_shares(rules: Rules) -> list[float]:
    """The chance of each bracket."""
    weights = [1 / rung for rung in rules.rungs[: rules.brackets]]
    return [weight / sum(weights) for weight in weights]


def _going_on(history: History, rung: int, bracket: int, rules: Rules, worth: Worth) -> list[Trial]:
    """The trials of a bracket that may go on from `rung`: those always promoted in front, then the best, best first."""
    always = [
        trial
        for trial in history.trials.values()
        if rung in trial.rungs and bracket_of(trial, rules) == bracket and always_promoted(trial, history)
    ]
    return always + _best(history, rung, bracket, rules, worth)


def _best(history: History, rung: int, bracket: int, rules: Rules, worth: Worth) -> list[Trial]:
    """The top 1 / reduction_factor of the trials of a bracket recorded at `rung`, best first; all of them where the rung is worth too little.

    A trial that diverged or failed on its way to the rung is counted here as the worst.
    """
    if rung < rules.rungs[bracket]:
        return []
    kept: list[Trial] | None = history.derived.get(("best", rung, bracket, rules))
    if kept is not None:
        return kept
    members = [trial for trial in history.trials.values() if bracket_of(trial, rules) == bracket]
    recorded = [trial for trial in members if rung in trial.rungs]
    lost = sum(trial.lost and rung not in trial.rungs and trial.target == rung for trial in members)
    best = _ordered(history, recorded, rung, rules)
    if rules.method != "none" and worth.halves(rules.least_worth):
        best = best[: math.floor((len(recorded) + lost) / rules.reduction_factor + 1e-9)]
    history.derived["best", rung, bracket, rules] = best
    return best


def _ordered(history: History, trials: Iterable[Trial], rung: int, rules: Rules) -> list[Trial]:
    if rules.method == "random":
        return sorted(trials, key=lambda trial: derive_seed(rules.seed, "promotion", rung, trial.number))
    return history.goal.order(trials, rung)


def earned_rungs(history: History, trial: Trial, rules: Rules) -> list[int]:
    """The trial's rungs up to the one from which its own score would not have promoted it."""
    rungs = sorted(trial.rungs)
    if not always_promoted(trial, history):
        return rungs
    worths = rung_worths(history, rules.rungs)
    earned: list[int] = []
    for rung in rungs:
        earned.append(rung)
        judged = rung in worths and rung >= rules.rungs[bracket_of(trial, rules)]
        if judged and trial not in _best(history, rung, bracket_of(trial, rules), rules, worths[rung]):
            break
    return earned


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
