"""The schemas of the events of a record: types and ranges, for a search's record and for a verdict's.

Events are checked before they are written and before they are folded, so that a line changed by hand or written by
another version is reported with its field, bounds and value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hcpr_tune.common.schema import (
    MODEL_INPUTS,
    Maybe,
    Number,
    Plain,
    Row,
    Shape,
    Table,
    Text,
    Truth,
    check_model_inputs,
    refuse,
)

Event = dict[str, Any]
Schema = Mapping[str, Table]
"""Kind of event -> its fields."""

TIME = Number(0, 1e11)
"""Seconds since 1970, within the years that `datetime` can represent."""
SECONDS = Number(0, 1e10)
COUNT = Number(0, 10**12, integer=True)
TRIAL = Number(0, 10**9, integer=True)
EPOCH = Number(1, 10**9, integer=True)
WORKERS = Number(0, 10**6, integer=True)
SEED = Number(-(2**64), 2**64, integer=True)
CLASS = Number(0, 10**6, integer=True)
ANSWER = Number(-1, 10**6, integer=True)
"""A predicted class, -1 for NaN logits."""
SHARE = Number(0, 1)
FINITE = Number()
TEXT, TRUTH = Text(), Truth()
PARAMS = Table(others=Plain())
VERSIONS = Table(others=TEXT)

SURVIVORS = dict.fromkeys(
    ("survive_margin_10", "survive_margin_50", "survive_cross_entropy_50", "without_gradient"), COUNT
)
MASKING = Table(needed={"images": COUNT, "alarms": Row(TEXT)}, known=SURVIVORS)
WHOLE_MASKING = Table(needed={"images": COUNT, "alarms": Row(TEXT), **SURVIVORS})
"""A verdict always has the counts as well."""
SPENT = {"seconds_attack": SECONDS, "seconds_update": SECONDS, "seconds_evaluation": SECONDS}
MEASURED: dict[str, Shape] = {
    "robust_correct_validation": COUNT,
    "clean_correct_validation": COUNT,
    "total_validation": Number(1, 10**12, integer=True),
    "attacked_pairs_validation": Row(Row(Number(-1, 10**12, integer=True), 3)),
    "class_totals_validation": Row(COUNT),
    "masking_validation": MASKING,
}
COUNTED = ("robust_correct_validation", "clean_correct_validation", "total_validation")
TRAINED: dict[str, Shape] = {
    **dict.fromkeys(("loss", "classification_loss", "consistency_loss", "lr", "pace", "consistency_factor"), FINITE),
    "attack_steps": COUNT,
    "images": COUNT,
    "device": TEXT,
}
"""What a search records of each epoch in addition to what decisions use."""
BESIDE_EPOCH: dict[str, Shape] = {
    "seconds_startup": SECONDS,
    "seconds_checkpoint": SECONDS,
    "worker": Maybe(TEXT),
    "recipe": TEXT,
    "picture_failed": TEXT,
}
BUDGET = Table(
    known={
        "trials": Number(1, 10**9, integer=True),
        "epochs": Number(1, 10**9),
        "hours": Number(0, 10**7),
        "worker_hours": Number(0, 10**9),
    }
)
OLD_TRIAL = Table(
    needed={
        "params": PARAMS,
        "scores": Table(others=Table(needed={"robust_accuracy": SHARE, "clean_accuracy": SHARE})),
        "completed": TRUTH,
        "lost": TRUTH,
    }
)
ENDS = ("reached", "broken off", "worker died", "diverged", "failed", "killed")

SEARCH: Schema = {
    "begin": Table(
        needed={"versions": VERSIONS, "workers": WORKERS, "fingerprint": TEXT},
        known={"host": TEXT, "process": COUNT, "study": Table(), "requests": Row(Table(needed={"event": TEXT}))},
    ),
    "end": Table(needed={"reason": TEXT}),
    "workers": Table(needed={"workers": WORKERS}),
    "loss": Table(needed={"what": TEXT}),
    "extend": Table(needed={"budget": BUDGET}),
    "warm_start": Table(needed={"trials": Row(OLD_TRIAL)}),
    "enqueue": Table(needed={"request": TEXT, "params": PARAMS}),
    "kill": Table(needed={"request": TEXT, "trial": TRIAL}),
    "test_access": Table(needed={"number": COUNT, "command": TEXT}),
    "test_numbers": Table(needed={"number": COUNT, "numbers": Table(others=SHARE)}),
    "audit": Table(needed={"trials": Row(TRIAL)}),
    "trial": Table(needed={"trial": TRIAL, "params": PARAMS, "source": TEXT}),
    "job": Table(needed={"trial": TRIAL, "start": COUNT, "end": EPOCH}),
    "epoch": Table(
        needed={"trial": TRIAL, "epoch": EPOCH, "is_rung": TRUTH, **SPENT, **TRAINED},
        known={**MEASURED, **BESIDE_EPOCH},
    ),
    "job_end": Table(
        needed={"trial": TRIAL, "start": COUNT, "end": EPOCH, "status": Text(ENDS), "reason": TEXT},
        known={"failed_start": TRUTH, "traceback": TEXT, "splits": Table(others=TEXT), "model_inputs": MODEL_INPUTS},
    ),
}
AT_BEGINNING = ("loss", "extend", "warm_start", "enqueue", "kill", "audit")
"""Events that the beginning of a session may include as requests."""

OF_JOB = {"model": TEXT, "job": TEXT}
VERDICT: Schema = {
    "begin": Table(needed={"format": COUNT, "workers": WORKERS, "versions": VERSIONS}),
    "end": Table(needed={"reason": TEXT}),
    "workers": Table(needed={"workers": WORKERS}),
    "model": Table(needed={"model": TEXT, "candidate": TEXT, "seed": SEED, "recipe": Table(), "weights": TEXT}),
    "job": Table(needed={"job": TEXT}),
    "epoch": Table(
        needed={**OF_JOB, "epoch": EPOCH, "is_rung": TRUTH, **SPENT},
        known={**TRAINED, **MEASURED, **BESIDE_EPOCH, "masking_validation": Maybe(WHOLE_MASKING)},
    ),
    "step": Table(
        needed={
            **OF_JOB,
            "scope": TEXT,
            "chunk": COUNT,
            "attack": TEXT,
            "labels": Row(CLASS),
            "classes": Row(ANSWER),
            "warnings": Row(TEXT),
            "total": COUNT,
            "of_classes": Number(1, 10**6, integer=True),
        }
    ),
    "checks": Table(
        needed={**OF_JOB, "baseline": TEXT, "broken": COUNT, "images": COUNT}, known={"masking": Maybe(WHOLE_MASKING)}
    ),
    "job_end": Table(
        needed={**OF_JOB, "kind": TEXT, "status": TEXT, "reason": TEXT},
        known={"traceback": TEXT, "model_inputs": MODEL_INPUTS},
    ),
    "test_access": Table(
        needed={"number": COUNT, "command": TEXT, "models": Row(TEXT), "scope": TEXT},
    ),
    "test_access_end": Table(),
}


def check_event(event: Event, schema: Schema) -> None:
    """Raises `Wrong`, naming the field, its bounds and the value, if an event does not conform to `schema`."""
    if not isinstance(event, dict):
        raise refuse("an event", "a table", event)
    kind = _kind(event, schema)
    TIME.check(event.get("time"), "time")
    _check_parts(kind, event, schema, "")
    for place, request in enumerate(event.get("requests", []) if kind == "begin" else []):
        Text(AT_BEGINNING).check(request["event"], f"requests[{place}].event")
        _check_parts(request["event"], request, schema, f"requests[{place}]")


def _check_parts(kind: str, event: Event, schema: Schema, name: str) -> None:
    """Check the fields of an event, each by itself and together."""
    schema[kind].check(event, name)
    if kind == "epoch":
        _check_counts(event)
    elif kind == "job" and "start" in event:
        Number(event["start"] + 1, integer=True).check(event["end"], "end")
    elif kind == "step":
        Row(ANSWER, len(event["labels"])).check(event["classes"], "classes")
    elif kind == "job_end":
        if "model_inputs" in event:
            check_model_inputs(event["model_inputs"], "model_inputs")
        if schema is SEARCH and event["status"] == "worker died":
            TRUTH.check(event.get("failed_start"), "failed_start")
    elif kind == "warm_start":
        for place, old in enumerate(event["trials"]):
            _check_rungs(old["scores"], f"trials[{place}].scores")


def _kind(event: Event, schema: Schema) -> str:
    kind = event.get("event")
    Text(tuple(schema)).check(kind, "event")
    return str(kind)


def _check_counts(event: Event) -> None:
    """Counts are given all or not at all, at a rung all; none exceeds the number of images."""
    wanted = event["is_rung"] or any(name in event for name in COUNTED)
    total = MEASURED["total_validation"]
    if wanted:
        total.check(event.get("total_validation"), "total_validation")
        for name in COUNTED[:2]:
            Number(0, event["total_validation"], integer=True).check(event.get(name), name)
    if "attacked_pairs_validation" in event:
        # Without totals, assume the maximum number of classes.
        classes = len(event["class_totals_validation"]) if "class_totals_validation" in event else 10**6
        for place, (true, attacked, count) in enumerate(event["attacked_pairs_validation"]):
            name = f"attacked_pairs_validation[{place}]"
            Number(0, classes - 1, integer=True).check(true, f"{name}[0]")
            Number(-1, classes - 1, integer=True).check(attacked, f"{name}[1]")
            Number(1, event.get("total_validation", 10**12), integer=True).check(count, f"{name}[2]")


def _check_rungs(scores: Mapping[str, Any], name: str) -> None:
    for rung in scores:
        if not (rung.isascii() and rung.isdigit() and len(rung) < 10 and int(rung) > 0):
            raise refuse(f"{name}: a rung", "an epoch", rung)
