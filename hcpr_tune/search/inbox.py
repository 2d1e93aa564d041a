"""Requests to a search from beside it: files in its folder, which the driver takes into the record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.files import write_json, write_whole
from hcpr_tune.search.record import History
from hcpr_tune.search.space import point_params
from hcpr_tune.search.study import Study

ENQUEUE, KILL = "enqueue", "kill"
LOOK_EVERY = 0.3
"""Seconds between two looks: Ray asks for work many times a second."""


def post(inbox: Path, request: dict[str, Any]) -> Path:
    """Leave a request {"kind": "enqueue", "params": ...} or {"kind": "kill", "trial": ...}, whole or not at all."""
    inbox.mkdir(exist_ok=True)
    path = inbox / f"{time.time_ns()}-{os.getpid()}.json"
    write_json(path, request)
    return path


class Inbox:
    """The driver's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked = -LOOK_EVERY

    def take(self, study: Study, history: History) -> Iterator[dict[str, Any]]:
        """The requests that can be met, oldest first. A request's file goes once its event is recorded; what makes no sense is set aside.

        A file that outlived its event, because the driver died in between, is not taken again.
        """
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.json")):
            if path.name in history.requests:
                path.unlink()
                continue
            try:
                request = checked(json.loads(path.read_text(encoding="utf-8")), study, history)
            except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
                path.rename(path.with_suffix(".refused"))
                write_whole(path.with_suffix(".reason"), f"{error}\n")
                continue
            yield {**request, "request": path.name}
            path.unlink()


def checked(request: dict[str, Any], study: Study, history: History) -> dict[str, Any]:
    """The request as the event will have it. Raises `InputError` where it cannot be met."""
    if request["kind"] == ENQUEUE:
        params = point_params(request["params"], study.recipe, study.space, "--set ", "study.toml")
        return {"kind": ENQUEUE, "params": params}
    if request["kind"] != KILL:
        raise InputError(f"{request['kind']} is no request")
    number = request["trial"]
    trial = history.trials.get(number)
    if trial is None:
        raise InputError(f"there is no trial {number}; there are {len(history.trials)}, counted from 0")
    if trial.ended:
        raise InputError(f"trial {number} has ended already ({trial.state})")
    return {"kind": KILL, "trial": number}
