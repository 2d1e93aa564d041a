"""Requests to a running search: files in its folder or bucket, which the driver takes into the record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.scheduling.driver import ENQUEUE, KILL, STOP, Taken, UserRequest
from hcpr_tune.search.spec.points import point_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.object_store import FolderObjectStore, ObjectStore

INBOX = "inbox"
LOOK_EVERY = {False: 0.3, True: 2.0}
"""Seconds between checks of a folder (False) or bucket (True), since Ray asks for work many times a second."""


def post(place: ObjectStore, request: UserRequest) -> str:
    """Write a request and return its key."""
    key = f"{INBOX}/{time.time_ns()}-{os.getpid()}.json"
    place.write(key, json.dumps(request).encode())
    return key


def requests_in(place: ObjectStore) -> Iterator[tuple[str, Any]]:
    """Keys and contents of the requests, oldest first, not checked; None for invalid JSON."""
    for key in place.keys(INBOX):
        if key.endswith(".json"):
            try:
                yield key, json.loads(place.read(key) or b"")
            except (ValueError, RecursionError):
                yield key, None


def clear_stops(place: ObjectStore) -> None:
    """Delete requests to stop, which were meant for an earlier session."""
    for key, request in requests_in(place):
        if isinstance(request, dict) and request.get("kind") == STOP:
            place.delete(key)


class Inbox:
    """The driver's side of the requests."""

    def __init__(self, place: ObjectStore) -> None:
        self._place, self._every = place, LOOK_EVERY[not isinstance(place, FolderObjectStore)]
        self._looked = -self._every

    def stops(self) -> Iterator[Taken]:
        """A request to stop, if there is one; requests of other kinds are left where they are."""
        if not self._is_time():
            return
        for key, request in requests_in(self._place):
            if isinstance(request, dict) and request.get("kind") == STOP:
                self._place.delete(key)
                yield Taken({"kind": STOP}, key.removeprefix(f"{INBOX}/"))
                return

    def _is_time(self) -> bool:
        if time.monotonic() - self._looked < self._every:
            return False
        self._looked = time.monotonic()
        return True

    def take(self, study: StudySpec, history: History) -> Iterator[Taken]:
        """The valid requests, oldest first. Invalid ones are set aside as `.refused`, with a `.reason`.

        A request's file is deleted once its event is recorded; one whose event was recorded before the driver died is
        not taken again.
        """
        if not self._is_time():
            return
        for key, request in requests_in(self._place):
            name = key.removeprefix(f"{INBOX}/")
            if name in history.requests:
                self._place.delete(key)
                continue
            try:
                taken = Taken(checked(request, study, history), name)
            except (InputError, KeyError, TypeError, AttributeError) as error:
                self._refuse(key, request, error)
                continue
            if taken.request["kind"] == STOP:
                self._place.delete(key)  # it leaves no event
                yield taken
                return
            yield taken
            self._place.delete(key)

    def _refuse(self, key: str, request: Any, error: Exception) -> None:
        stem = key.removesuffix(".json")
        self._place.write(f"{stem}.refused", json.dumps(request).encode())
        self._place.write(f"{stem}.reason", f"{clean(str(error))}\n".encode())
        self._place.delete(key)


def checked(request: Mapping[str, Any], study: StudySpec, history: History) -> UserRequest:
    """The request with all values of its point. Raises `InputError` if it is invalid."""
    if request["kind"] == STOP:
        return {"kind": STOP}
    if request["kind"] == ENQUEUE:
        params = point_params(request["params"], study.recipe, study.space, "--set ", "study.toml")
        return {"kind": ENQUEUE, "params": params}
    if request["kind"] != KILL:
        raise InputError(f"{request['kind']} is not a kind of request")
    number = request["trial"]
    trial = history.trials.get(number)
    if trial is None:
        raise InputError(f"there is no trial {number}; there are {len(history.trials)}, counted from 0")
    if trial.ended:
        raise InputError(f"trial {number} has ended already ({trial.state})")
    return {"kind": KILL, "trial": number}
