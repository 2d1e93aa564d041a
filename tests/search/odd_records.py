"""Records that were sealed rightly and say odd things: events mutated, doubled, deleted, moved, from a seed."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Iterable
from typing import Any

from hcpr_tune.search.record.history import Event
from hcpr_tune.search.record.lines import BEGINS
from hcpr_tune.search.spec.study import StudySpec, study_to_plain
from tests.views.recorded import recorded

ODD: tuple[Any, ...] = (
    10**400, -(10**400), 2**63, 10**13, -1, 0, 1, 2, 7, 10**6, 1.5, -0.5, 1e308, 1e-320, float("inf"), float("nan"),
    None, True, False, "", "x", "-1", "1", "\udc80\n=1", "killed", "published",
    [], [[]], [1], [1, 2, 3], [[1, 2]], {}, {"x": 1}, {"1": {}},
)  # fmt: skip
"""Values that some field may have been given by hand, by another version or by a broken disk."""


def base_events(study: StudySpec, trials: int = 6) -> list[Event]:
    """A record with every kind of event."""
    made = [json.loads(json.dumps(event)) for event in recorded(study, trials, lost=0.3)]
    begin = made[0] | {"fingerprint": study.fingerprint, "study": study_to_plain(study)}
    params = dict(next(event["params"] for event in made if event["event"] == "trial"))
    rung = str(study.rungs[0])
    old = {
        "params": params,
        "scores": {rung: {"robust_accuracy": 0.5, "clean_accuracy": 0.7}},
        "completed": False,
        "lost": False,
    }
    begin["requests"] = [
        {"event": "loss", "what": "a line"},
        {"event": "extend", "time": 1.0, "budget": {"trials": 30, "hours": 2.0}},
        {"event": "warm_start", "time": 1.0, "from": "old", "fingerprint": "y", "trials": [old]},
    ]
    first = next(place for place, event in enumerate(made) if event["event"] == "job_end")
    time = made[first]["time"]
    middle: list[Event] = [
        {"event": "workers", "time": time, "workers": 3},
        {"event": "loss", "time": time, "trial": 0, "what": "a checkpoint"},
        {"event": "enqueue", "time": time, "request": "a.json", "params": params},
    ]
    number = sum(event["event"] == "trial" for event in made)
    job = {"time": made[-1]["time"], "trial": number, "start": 0, "end": study.rungs[0]}
    after: list[Event] = [
        {"event": "trial", "time": job["time"], "trial": number, "params": params, "source": "enqueued"},
        {"event": "job", **job},
        {
            "event": "job_end",
            **job,
            "status": "worker died",
            "reason": "its worker process died",
            "failed_start": False,
        },
        {"event": "job", **job},
        {"event": "kill", "time": job["time"], "request": "b.json", "trial": number},
        {"event": "audit", "time": job["time"], "trials": [1, 2]},
    ]
    end: list[Event] = [
        {"event": "test_access", "time": job["time"] + 5, "number": 1, "command": "hcpr_tune verdict x --test"},
        {"event": "test_numbers", "time": job["time"] + 6, "number": 1, "numbers": {"trial 1": 0.5}},
    ]
    return [begin, *made[1 : first + 1], *middle, *made[first + 1 : -1], *after, made[-1], *end]


def mutated(events: Iterable[Event], draws: random.Random) -> list[Event]:
    """The events with one to three things wrong."""
    found = copy.deepcopy(list(events))
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        place = draws.randrange(len(found))
        how = draws.choice((*["nudge"] * 6, *["field"] * 4, "leave out", "double", "delete", "swap", "retype", "copy"))
        if how == "double":
            found.insert(place, copy.deepcopy(found[place]))
        elif how == "delete" and len(found) > 1:
            del found[place]
        elif how == "swap":
            other = draws.randrange(len(found))
            found[place], found[other] = found[other], found[place]
        elif how == "retype":
            found[place]["event"] = draws.choice([event.get("event", "") for event in found] + ["x", "apply", ""])
        elif how == "copy":
            name = draws.choice(list(found[place]) or ["x"])
            other = draws.choice(found)
            other[name] = copy.deepcopy(found[place].get(name))
        else:
            holder, key = _place(found[place] or {"x": 1}, draws)
            if how == "leave out":
                del holder[key]
            elif how == "nudge":
                holder[key] = nudged(holder[key], draws)
            else:
                holder[key] = copy.deepcopy(draws.choice(ODD))
    return found


def nudged(value: Any, draws: random.Random) -> Any:
    """Another value of the same kind, such as a record might have elsewhere."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draws.choice((0, 1, 2, 3, 4, 9, 100, value + 1, value - 1, value * 2))
    if isinstance(value, float):
        return draws.choice((0.0, 1.0, -value, value * 2, value / 2, value + 1, 1e9, 1e-9))
    if isinstance(value, str):
        return draws.choice(
            ("", "=1", "published", "enqueued", "failed", "killed", "broken off", value + "x", "\udc80")
        )
    return copy.deepcopy(draws.choice(ODD))


def _place(value: Any, draws: random.Random) -> tuple[Any, Any]:
    """A position in a nested value, as container and key: the keys of a level are equally likely."""
    key = draws.choice(list(value) if isinstance(value, dict) else range(len(value)))
    below = value[key]
    return _place(below, draws) if isinstance(below, dict | list) and below and draws.random() < 0.7 else (value, key)


def resealed(events: Iterable[Event]) -> bytes:
    """Lines with right checksums, also where no record of ours has such values."""
    lines, latest = [], BEGINS
    for event in events:
        body = json.dumps(event | {"after": latest}).encode()
        latest = f"{zlib.crc32(body):08x}"
        lines.append(body[:-1] + f', "crc32": "{latest}"}}\n'.encode())
    return b"".join(lines)
