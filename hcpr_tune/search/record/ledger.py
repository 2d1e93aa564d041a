"""The time account: seconds by purpose, what ASHA saved, what an audit says it cost, and what a plan predicted."""

from __future__ import annotations

from typing import NamedTuple, NotRequired, TypedDict

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.spec.study import StudySpec

MEASURED = ("attack", "update", "evaluation", "checkpoint")
PARTS = (*MEASURED, "startup")
Planned = dict[str, dict[str, float | None]] | None
"""The planned and the actual value of each quantity, by name; None without a plan."""


def trial_seconds(trial: Trial) -> dict[str, float]:
    """Seconds of one trial by purpose; `other` is the rest of its worker time: reports, and epochs that ran twice."""
    epochs = trial.epochs.values()
    parts = {
        "attack": sum(event["seconds_attack"] for event in epochs),
        "update": sum(event["seconds_update"] for event in epochs),
        "evaluation": sum(event["seconds_evaluation"] for event in epochs),
        "checkpoint": sum(event.get("seconds_checkpoint", 0.0) for event in epochs),
        "startup": trial.startup,
    }
    return {**parts, "other": max(0.0, trial.worker_seconds - sum(parts.values())), "held": trial.worker_seconds}


class Audit(TypedDict):
    """What early stopping cost (see `audit`)."""

    audited: list[int]
    completed: int
    better_than_the_best: int
    most_points_lost: float


class Account(TypedDict):
    """ledger.json. `total` and `trials` are by purpose, and `plan` is what was planned and what came of it."""

    unit: str
    workers: int
    wall_clock: float
    total: dict[str, float]
    saved_by_halving: float
    audit: Audit | None
    trials: dict[str, dict[str, float]]
    plan: NotRequired[Planned]


def ledger(history: History, asha_config: AshaConfig) -> Account:
    """The whole account, in seconds. `idle` is worker time without a job, including the start of a session."""
    trials = {number: trial_seconds(trial) for number, trial in history.trials.items()}
    names = (*PARTS, "other", "held")
    total = {name: sum(one[name] for one in trials.values()) for name in names}
    total["idle"] = max(0.0, history.worker_seconds_offered - total["held"])
    return {
        "unit": "seconds",
        "workers": history.workers,
        "wall_clock": history.seconds,
        "total": _rounded(total),
        "saved_by_halving": round(saved_seconds(history, asha_config), 3),
        "audit": audit(history),
        "trials": {str(number): _rounded(one) for number, one in trials.items()},
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def saved_seconds(history: History, asha_config: AshaConfig) -> float:
    """Seconds it would have taken to run the stopped trials to the last epoch, each at its own speed so far."""
    saved = 0.0
    for trial in history.trials.values():
        if trial.state == "stopped" and trial.replicate_of is None:
            later = [rung for rung in asha_config.rungs if rung > trial.last_rung]
            epochs = sum(later) if asha_config.restarted else asha_config.rungs[-1] - trial.last_rung
            saved += epochs * trial.seconds / len(trial.epochs)
    return saved


def audit(history: History) -> Audit | None:
    """What early stopping cost: how many audited trials, run to the last epoch, rank before the best other trial.

    `most_points_lost` is the largest lead, in percentage points of the first objective. None without an audit.
    """
    if not history.audited:
        return None
    ranked = history.ranked()
    done = [trial for trial in ranked if trial.number in history.audited and trial.status == "completed"]
    others = [trial for trial in ranked if trial.number not in history.audited]
    ahead = [trial for trial in done if not others or ranked.index(trial) < ranked.index(others[0])]
    points = [_first_value(history, trial) - _first_value(history, others[0]) for trial in ahead if others]
    return {
        "audited": sorted(history.audited),
        "completed": len(done),
        "better_than_the_best": len(ahead),
        "most_points_lost": round(100 * max([0.0, *points]), 3),
    }


def _first_value(history: History, trial: Trial) -> float:
    return history.goal.values(trial.scores[trial.best_rung])[0]


class Against(NamedTuple):
    """A quantity as predicted by a plan, and its actual value."""

    name: str
    planned: float | None
    """None if the plan did not predict it."""
    actual: float | None
    """None if there is no value yet."""


def against_plan(study: StudySpec, history: History) -> list[Against]:
    """The search so far against the predictions of `hcpr_tune plan`; empty without a plan.

    The planned score is the true value of the chosen trial; the actual one is measured on the images that it was chosen
    by, so it is optimistic in comparison. The number of jobs and the bytes of checkpoints are not in the history.
    """
    plan = study.settings.plan
    if not plan.workers:
        return []
    # The mean over time, since nodes join and leave.
    there = history.worker_seconds_offered / history.seconds if history.seconds else float(history.workers)
    best = history.best_trial
    parts = (trial_seconds(trial) for trial in history.trials.values())
    worked = sum(one[part] for one in parts for part in MEASURED)
    return [
        Against("workers", plan.workers, round(there, 3)),
        Against("wall_clock", 3600 * plan.hours, history.seconds),
        Against("worker_seconds", 3600 * plan.worker_hours, history.worker_seconds),
        Against("use", plan.use, worked / history.worker_seconds_offered if history.worker_seconds_offered else None),
        Against("epochs", plan.epochs, sum(len(trial.epochs) for trial in history.trials.values())),
        Against("score", plan.score or None, None if best is None else _first_value(history, best)),
    ]


def plan_plain(study: StudySpec, history: History) -> Planned:
    """`against_plan` by name; None without a plan."""
    rows = against_plan(study, history)
    return {name: {"planned": planned, "actual": actual} for name, planned, actual in rows} or None
