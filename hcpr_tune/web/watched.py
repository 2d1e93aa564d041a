"""Studies as the live page sees them: read once, and then read on as their records grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from hcpr_tune.common.buckets.location import is_bucket
from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.shell import typed
from hcpr_tune.errors import HcprTuneError, InputError
from hcpr_tune.search.record.follow import RecordFollower
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.storage import notes
from hcpr_tune.search.storage.inbox import INBOX
from hcpr_tune.search.storage.lease import LeaseHolder, read_lease_holder
from hcpr_tune.search.storage.notes import Notes
from hcpr_tune.search.storage.studies import reopen
from hcpr_tune.study import Study
from hcpr_tune.views.report.context import ReportContext
from hcpr_tune.views.verdicts import VERDICT_JSON

LOOK_EVERY = {False: 0.5, True: 5.0}
"""Seconds between two looks at a study in a folder (False) and in a bucket (True), whoever asks."""
Made = TypeVar("Made")


class WatchedStudy:
    """A study that is read on. Its properties and what they refer to are used while `reading` is held."""

    def __init__(self, storage: str, name: str) -> None:
        """Raises `InputError` if there is no such study."""
        self.storage, self.name = storage, name
        self._in_bucket = is_bucket(storage)
        self._lock = threading.RLock()
        self._made: dict[object, tuple[str, Any]] = {}
        self._looked = 0.0
        self._failed = -1, ""
        """Size of a record that could not be read, and why."""
        self._inbox: tuple[str, ...] = ()
        self.trouble = ""
        """Why the record could not be read on; empty if it could."""
        self.holder: LeaseHolder | None = None
        self.notes = Notes()
        self._open()
        self._look()

    def _open(self) -> None:
        self._stored = reopen(self.storage, self.name, "watch ")
        folder, spec, history = self._stored
        self._follower = RecordFollower(folder, spec, history)
        self._bytes = history.bytes_read  # measured before it was read: what came meanwhile is looked for again
        self._looked = time.monotonic()

    @contextmanager
    def reading(self) -> Iterator[StoredStudy]:
        """The study as it is now; nothing changes it meanwhile."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_EVERY[self._in_bucket]:
                self._look()
            yield self._stored

    def _look(self) -> None:
        """Read what has been recorded since. What cannot be read is told, and what was read before is kept."""
        objects = self._stored.folder.objects
        try:
            self._read_on()
            self._bring_verdict()
            self.notes, self._inbox = notes.read_notes(objects), tuple(objects.keys(INBOX))
            self.trouble = ""
        except (HcprTuneError, OSError) as error:
            self.trouble = str(error)
        with suppress(HcprTuneError):
            holder = read_lease_holder(objects)
            self.holder = holder if holder is not None and holder.lives(time.time()) else None
        self._looked = time.monotonic()

    def _read_on(self) -> None:
        """Raises `InputError` and `OSError`, again and again while the record cannot be read; it is read again only
        once it has changed.
        """
        size = self._stored.folder.record_bytes()
        if size == self._bytes:
            return
        if size == self._failed[0]:
            raise InputError(self._failed[1])
        try:
            self._read_new(size)
        except (HcprTuneError, OSError) as error:
            self._failed = size, str(error)
            raise

    def _read_new(self, size: int) -> None:
        if self._in_bucket or not self._stored.history.version:
            self._open()
            return
        events = list(self._follower.new())
        unread = self._stored.folder.record_bytes() - self._follower.offset
        # What is shorter, or does not follow, was replaced. And what is searched may have changed.
        if unread < 0 or (unread and not events) or any(one["event"] in ("begin", "extend") for one in events):
            self._open()
        else:
            self._bytes = size

    def _bring_verdict(self) -> None:
        """From a bucket, the verdict alone: a model need not be here to be watched."""
        folder = self._stored.folder
        if folder.bucket is not None and (data := folder.bucket.read(VERDICT_JSON)) is not None:
            path = folder.root / VERDICT_JSON
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_whole(path, data)

    @property
    def alive(self) -> bool:
        """Whether a process runs the search or a verdict."""
        return self.holder is not None

    @property
    def version(self) -> str:
        """Changes whenever something that is shown has changed."""
        with self.reading() as (folder, _, history):
            verdict = [modified(folder.root / name) for name in (VERDICT_JSON, "verdict/record.jsonl")]
            return f"{history.version}-{self.alive}-{verdict}-{hash((str(self.notes), self._inbox, self.trouble))}"

    @property
    def study(self) -> Study:
        """The same for requests."""
        return Study(self._stored)

    def context(self) -> ReportContext:
        """The study for the report's sections."""
        folder, spec, history = self._stored
        return ReportContext(folder, spec, history, self.alive, typed("hcpr_tune"), time.time())

    def made(self, what: object, make: Callable[[StoredStudy], Made], of: object = None) -> Made:
        """The result of `make`, kept under the name `what` until the study, or `of`, changes."""
        with self.reading() as stored:
            state = f"{stored.history.version}-{self.alive}-{of}"
            kept = self._made.get(what)
            if kept is None or kept[0] != state:
                kept = self._made[what] = state, make(stored)
            found: Made = kept[1]
            return found


def modified(path: Path) -> float:
    """When a file was last written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


class Studies:
    """The studies of a storage by name, each opened when it is first asked for."""

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self._open: dict[str, WatchedStudy] = {}
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    def get(self, name: str) -> WatchedStudy:
        """Raises `InputError` if there is no such study."""
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:  # to read a large study takes seconds, in which the others are not kept waiting
            if name not in self._open:
                self._open[name] = WatchedStudy(self.storage, name)
            return self._open[name]

    @contextmanager
    def reading(self, names: Sequence[str]) -> Iterator[dict[str, History]]:
        """The histories of several studies; nothing changes them meanwhile. Raises `InputError`."""
        with ExitStack() as stack:
            # Always in the same order, so that two readers never wait for each other.
            held = {name: stack.enter_context(self.get(name).reading()) for name in sorted(set(names))}
            yield {name: held[name].history for name in names}
