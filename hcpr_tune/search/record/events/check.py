"""Checks of events: each field by its schema, and fields that depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hcpr_tune.common.schema import Number, Row, Text, Truth, check_model_inputs, refuse
from hcpr_tune.search.record.events.fields import Schema, schema_of
from hcpr_tune.search.record.events.search import SEARCH, Event, Request
from hcpr_tune.search.record.events.verdict import VERDICT, VerdictEvent

TIME = Number(0, 1e11)
COUNTED = ("robust_correct_validation", "clean_correct_validation", "total_validation")
TOTAL = Number(1, 10**12, integer=True)
ANSWERS = Number(-1, 10**6, integer=True)
AT_BEGINNING = tuple(schema_of(Request))
Plain = dict[str, Any]
"""An object that was read as JSON and is not checked yet."""


def search_event(plain: object) -> Event:
    """The event of a search's record. Raises `Wrong`, naming the field, its bounds and the value."""
    check_event(plain, SEARCH)
    return cast(Event, plain)


def verdict_event(plain: object) -> VerdictEvent:
    """The same of a verdict's record."""
    check_event(plain, VERDICT)
    return cast(VerdictEvent, plain)


def check_event(event: object, schema: Schema) -> None:
    """Raises `Wrong` if an event does not conform to `schema`."""
    if not isinstance(event, dict):
        raise refuse("an event", "a table", event)
    kind = _kind(event, schema)
    TIME.check(event.get("time"), "time")
    _check_parts(kind, event, schema, "")
    for place, request in enumerate(event.get("requests", []) if kind == "begin" else []):
        Text(AT_BEGINNING).check(request["event"], f"requests[{place}].event")
        _check_parts(request["event"], request, schema, f"requests[{place}]")


def _check_parts(kind: str, event: Plain, schema: Schema, name: str) -> None:
    """Check the fields of an event, each by itself and together."""
    schema[kind].check(event, name)
    if kind == "epoch":
        _check_counts(event)
    elif kind == "job" and "start" in event:
        Number(event["start"] + 1, integer=True).check(event["end"], "end")
    elif kind == "step":
        Row(ANSWERS, len(event["labels"])).check(event["classes"], "classes")
    elif kind == "job_end":
        if "model_inputs" in event:
            check_model_inputs(event["model_inputs"], "model_inputs")
        if "failed_start" in schema[kind].known and event["status"] == "worker died":
            Truth().check(event.get("failed_start"), "failed_start")
    elif kind == "warm_start":
        for place, old in enumerate(event["trials"]):
            _check_rungs(old["scores"], f"trials[{place}].scores")


def _kind(event: Plain, schema: Schema) -> str:
    kind = event.get("event")
    Text(tuple(schema)).check(kind, "event")
    return str(kind)


def _check_counts(event: Plain) -> None:
    """Counts are given all or not at all, at a rung all; none exceeds the number of images."""
    wanted = event["is_rung"] or any(name in event for name in COUNTED)
    if wanted:
        TOTAL.check(event.get("total_validation"), "total_validation")
        for name in COUNTED[:2]:
            Number(0, event["total_validation"], integer=True).check(event.get(name), name)
    if "survived_validation" in event and not _agrees(event):
        bounds = "a bit per image in hexadecimal, as many set as robust_correct_validation says"
        raise refuse("survived_validation", bounds, event["survived_validation"])
    if "survivors_validation" in event:
        radii, counts = ([pair[place] for pair in event["survivors_validation"]] for place in (0, 1))
        falling = [event.get("clean_correct_validation", 0), *counts]
        if radii != sorted(set(radii)) or falling != sorted(falling, reverse=True):
            bounds = "rising radii, with counts that do not rise from clean_correct_validation on"
            raise refuse("survivors_validation", bounds, event["survivors_validation"])
    if "attacked_pairs_validation" in event:
        # Without totals, assume the maximum number of classes.
        classes = len(event["class_totals_validation"]) if "class_totals_validation" in event else 10**6
        for place, (true, attacked, count) in enumerate(event["attacked_pairs_validation"]):
            name = f"attacked_pairs_validation[{place}]"
            Number(0, classes - 1, integer=True).check(true, f"{name}[0]")
            Number(-1, classes - 1, integer=True).check(attacked, f"{name}[1]")
            Number(1, event.get("total_validation", 10**12), integer=True).check(count, f"{name}[2]")


def _agrees(event: Plain) -> bool:
    try:
        bits = bytes.fromhex(event["survived_validation"])
    except ValueError:
        return False
    set_bits = int.from_bytes(bits, "big").bit_count()
    return 8 * len(bits) - 7 <= event.get("total_validation", 0) <= 8 * len(bits) and set_bits == event.get(
        "robust_correct_validation"
    )


def _check_rungs(scores: Mapping[str, Any], name: str) -> None:
    for rung in scores:
        if not (rung.isascii() and rung.isdigit() and len(rung) < 10 and int(rung) > 0):
            raise refuse(f"{name}: a rung", "an epoch", rung)
