"""Builds histories from short words, through the record's own events."""

from __future__ import annotations

from typing import Any

from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.spec.objectives import Goal

LAST_EPOCH = 27


def begin(time: float = 0.0) -> Event:
    return {"event": "begin", "time": time, "versions": {}, "workers": 2, "fingerprint": "x"}


def suggested(trial: int, params: dict[str, Any] | None = None, source: str = "tpe", time: float = 0.0) -> Event:
    return {"event": "trial", "time": time, "trial": trial, "params": params or {}, "source": source}


def published(params: dict[str, Any] | None = None) -> Event:
    """Trial 0 as a search begins it."""
    return suggested(0, params, "published")


def job(trial: int, start: int, end: int, time: float = 0.0) -> Event:
    return {"event": "job", "time": time, "trial": trial, "start": start, "end": end}


def epoch(
    trial: int, number: int, robust: int | None = None, total: int = 1000, time: float = 0.0, clean: int | None = None
) -> Event:
    """One epoch; with `robust` (a count out of `total`) it is a rung; `clean` is `total` unless it is given."""
    event: Event = {
        "event": "epoch",
        "time": time,
        "trial": trial,
        "epoch": number,
        "is_rung": robust is not None,
        "loss": 1.0,
        "classification_loss": 0.75,
        "consistency_loss": 0.25,
        "lr": 0.1,
        "pace": 1.0,
        "consistency_factor": 1.0,
        "attack_steps": 10,
        "images": 1079,
        "seconds_attack": 0.5,
        "seconds_update": 0.25,
        "seconds_evaluation": 0.25,
        "seconds_startup": 0.0,
        "seconds_checkpoint": 0.0,
        "device": "cpu",
    }
    if robust is not None:
        right = total if clean is None else clean
        event |= {"robust_correct_validation": robust, "clean_correct_validation": right, "total_validation": total}
    return event


def epoch_report(number: int, share: float) -> dict[str, Any]:
    """What a worker reports of a rung at which this share of 200 images is robust."""
    event = epoch(0, number, round(200 * share), 200)
    return {name: value for name, value in event.items() if name not in ("event", "time", "trial")}


def job_end(trial: int, start: int, end: int, status: str = "reached", reason: str = "", time: float = 0.0) -> Event:
    return {
        "event": "job_end",
        "time": time,
        "trial": trial,
        "start": start,
        "end": end,
        "status": status,
        "reason": reason,
    }


def history_of(*events: Event, last_epoch: int = LAST_EPOCH, goal: Goal | None = None) -> History:
    history = History(last_epoch, goal or Goal())
    for event in (begin(), *events):
        history.apply(event)
    return history


def reached(trial: int, start: int, end: int, robust: int, total: int = 1000, clean: int | None = None) -> list[Event]:
    """A job that was handed out and reached its end with `robust` images of `total`."""
    middle = [epoch(trial, number) for number in range(start + 1, end)]
    return [job(trial, start, end), *middle, epoch(trial, end, robust, total, clean=clean), job_end(trial, start, end)]


def lost(trial: int, start: int, end: int, status: str = "diverged") -> list[Event]:
    return [job(trial, start, end), job_end(trial, start, end, status, "the loss is not finite")]
