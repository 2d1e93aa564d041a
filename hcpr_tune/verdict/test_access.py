"""Every access to a study's test images is recorded: when, by which command, and what it showed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hcpr_tune.common.buckets.location import Location
from hcpr_tune.common.files import read_text
from hcpr_tune.common.paths import is_file
from hcpr_tune.common.shell import typed
from hcpr_tune.search.record.events.search import TestAccessEvent, TestNumbersEvent
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.record.segments import Segments
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.search.storage.studies import COPY_OF, reopen
from hcpr_tune.verdict.model_export import retell
from hcpr_tune.verdict.state import State

Seen = Callable[[dict[str, float]], None]


class OpenTest:
    """Records a test access, before any test image is attacked, in the study's record and in the verdict's."""

    def __init__(
        self, folder: StudyFolder, history: History, record: Record[State], lease: Lease, command: str
    ) -> None:
        self._folder, self._history, self._record = folder, history, record
        self._leading, self._command = lease.check, command

    def __call__(self, models: Collection[str], scope: str) -> None:
        """`models`: all models that will be attacked on the images of `scope`.

        An access that is still open is continued, if models and images are the same; otherwise a new one begins.
        """
        test_accesses = self._record.history.test_accesses
        latest = test_accesses[-1] if test_accesses else None
        if latest and not latest["ended"] and set(models) <= set(latest["models"]) and scope == latest["scope"]:
            return
        number = write_test_access(self._folder, self._history, self._command, self._leading)
        about = {"number": number, "command": self._command, "models": sorted(models), "scope": scope}
        self._record.append({"event": "test_access", "time": self._record.clock(), **about})


def write_test_access(
    folder: StudyFolder, history: History, command: str, leading: Callable[[], None] = lambda: None
) -> int:
    """Record a test access in the study; returns its number."""
    number = len(history.test_accesses) + 1
    _append(
        folder, history, {"event": "test_access", "time": time.time(), "number": number, "command": command}, leading
    )
    return number


def write_test_numbers(folder: StudyFolder, history: History, number: int, numbers: dict[str, float]) -> None:
    """Record in the study what test access `number` showed: robust accuracy by candidate."""
    event: TestNumbersEvent = {"event": "test_numbers", "time": time.time(), "number": number, "numbers": numbers}
    _append(folder, history, event, lambda: None)


def _append(
    folder: StudyFolder, history: History, event: TestAccessEvent | TestNumbersEvent, leading: Callable[[], None]
) -> None:
    segments = None if folder.bucket is None else Segments(folder.bucket, leading)
    record = Record(folder.record, history, segments=segments, leading=leading)
    try:
        record.append(event)
    finally:
        record.close()


@contextmanager
def opened(model: Path, command: str) -> Iterator[Seen]:
    """Record a test access for the model in the folder `model`; yields a function that records the numbers it showed.

    Records nothing if the model belongs to no study. Raises `InputError` if another process holds the study's lease.
    """
    root = model.absolute().parent
    if not all(is_file(root / name, f"--model {model}") for name in ("study.toml", "record.jsonl")):
        yield lambda numbers: None
        return
    mark = root / COPY_OF
    address = read_text(mark).strip() if mark.is_file() else str(root)
    folder, _, history = reopen(str(Location.parse(address).parent), root.name, "--model ")
    lease = Lease(folder.objects, folder.address)
    try:
        number = write_test_access(folder, history, command, lease.check)
        retell(folder, history, typed())
        yield lambda numbers: write_test_numbers(folder, history, number, numbers)
        retell(folder, history, typed())
    finally:
        lease.close()
