"""The study's append-only record, its single source of truth: one JSON object per line, written before it takes effect.

In a bucket it is a sequence of segments, with a copy in a local file next to the results.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hcpr_tune.common.schema import Wrong
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.clock import SessionClock
from hcpr_tune.search.record.events.check import Plain
from hcpr_tune.search.record.events.search import Event
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.lines import checksum_of, read_lines, seal
from hcpr_tune.search.record.segments import Segments
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.storage.object_store import storage_error

WAITING = ("trial", "epoch")
"""Events whose write may be delayed, since they have no effect until a later event begins or ends a job. A worker
reports lost epochs again from its checkpoints, and a trial without a job is suggested again."""


EventT = TypeVar("EventT")


class Fold(Protocol[EventT]):
    """What a record with events of this type is folded into."""

    def check(self, plain: Mapping[str, object]) -> EventT:
        """The event of a line. Raises `Wrong` if it is invalid, or cannot follow what is recorded."""

    def apply(self, event: EventT) -> bool:
        """Fold in one event. Returns False if it is not news."""


Folded = TypeVar("Folded", bound=Fold[Any])
Told = TypeVar("Told", contravariant=True)
Heard = TypeVar("Heard", bound=Fold[Any], contravariant=True)


class Hearing(Protocol[Told, Heard]):
    """A listener, called with each event after it is in the record: files, TensorBoard, the terminal."""

    def on_event(self, event: Told, history: Heard) -> None: ...

    def close(self) -> None: ...


Listener = Hearing[Event, History]
"""A listener to the events of a search."""


class Record(Generic[Folded]):
    """Appends events to record.jsonl, folds them into `history`, and calls the listeners."""

    def __init__(
        self,
        path: Path,
        history: Folded,
        listeners: Sequence[Hearing[Any, Folded]] = (),
        segments: Segments | None = None,
        leading: Callable[[], None] = lambda: None,
    ) -> None:
        """`leading` raises if another process has taken over the study.

        Raises `InputError` if another process on this machine has the record open.
        """
        self.history = history
        self.listeners = list(listeners)
        self._path, self._segments, self.leading = path, segments, leading
        self.clock = SessionClock()
        self._writing = b""
        """The latest line: an interrupt may come after it was written and before `_end` is updated."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            _lock(self._file, path)
            self._end = _drop_damaged_end(path)
            self._identity = _identity(path.stat())
        except OSError as error:
            raise storage_error(f"{path} cannot be opened", error) from error

    def append(self, plain: Mapping[str, object]) -> None:
        """Write one event, flushed to disk, then apply it. It is checked first, so that it may come from a worker.

        Raises `StorageError` if it cannot be written or something else changed the file; the record is then left as it
        was.
        """
        body = json.dumps(plain, allow_nan=False).encode()
        try:
            event = self.history.check(plain)
        except Wrong as error:
            raise StorageError(
                f"{self._path}: {plain.get('event')}: {error}; it is not written, since it could not be read again"
            ) from None
        self.leading()
        self._check_place()
        size, latest = self._end
        line = seal(body, latest)
        self._writing = line
        try:
            # One write call: a signal cannot leave half a line.
            written = os.write(self._file, line)
            if written < len(line):
                os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise storage_error(f"{self._path} cannot be written", error) from error
        self._end = size + len(line), checksum_of(line)
        if self._segments is not None:
            self._segments.append(line, event["event"] in WAITING)
        if self.history.apply(event):
            try:
                for listener in self.listeners:
                    listener.on_event(event, self.history)
            except OSError as error:
                raise storage_error("the results cannot be written", error) from error

    def _check_place(self) -> None:
        """Raises `StorageError` if the file was moved, replaced or changed by someone else."""
        try:
            there = self._path.stat()
            size, _ = self._end
            if there.st_size == size + len(self._writing) and self._is_last(self._writing):
                self._end = there.st_size, checksum_of(self._writing)
            if _identity(there) != self._identity:
                wrong = "was replaced by another file"
            elif there.st_size != self._end[0]:
                wrong = f"is {there.st_size} bytes long and not {self._end[0]}: something else has changed it"
            else:
                return
        except (FileNotFoundError, NotADirectoryError):
            wrong = "was moved or deleted"
        except OSError as error:
            raise storage_error(f"{self._path} cannot be read", error) from error
        raise StorageError(
            f"{self._path} {wrong} while it was in use; nothing was recorded after that:"
            " put the file back as it was, then go on by --resume"
        )

    def _is_last(self, line: bytes) -> bool:
        """Whether the file ends with this line."""
        with self._path.open("rb") as file:
            file.seek(-len(line), os.SEEK_END)
            return bool(line) and file.read() == line

    def __enter__(self) -> Record[Folded]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close it. An earlier error matters more than one from closing."""
        with nullcontext() if error is None else suppress(StorageError):
            self.close()

    def close(self) -> None:
        """Close the file and every listener, even if closing some of them fails. Raises `StorageError`."""
        try:
            with ExitStack() as stack:
                stack.callback(os.close, self._file)
                if self._segments is not None:
                    stack.callback(self._segments.close)
                for listener in self.listeners:
                    stack.callback(listener.close)
        except OSError as error:
            raise storage_error("the results cannot be written", error) from error


def _lock(file: int, path: Path) -> None:
    """Lock the record against other processes on this machine, in addition to the lease.

    Some shared file systems have no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise InputError(
            f"{path.parent} is being searched by another process; wait for it to finish, or stop it with Ctrl-C,"
            " before you resume it"
        ) from None
    except OSError:
        return


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def fold(path: Path, events: Iterable[Plain], history: Fold[Any], hint: str) -> None:
    """Fold the events of a record file into `history`.

    Raises `InputError` naming the line, the field, its bounds and the value of an invalid event.
    """
    for number, event in enumerate(events, start=1):
        try:
            history.apply(history.check(event))
        except Exception as error:  # whatever an odd line breaks, the message must name the line
            words = str(error) if isinstance(error, ValueError) else repr(error)
            raise InputError(f"{path}, line {number} makes no sense to this version: {words}; {hint}") from None


def read_history(path: Path, last_epoch: int, goal: Goal | None = None) -> History:
    """Fold a record file. A truncated or damaged last line is ignored, and described in `History.damage`."""
    history = History(last_epoch, goal or Goal(), bytes_read=path.stat().st_size)
    lines = read_lines(path)
    fold(path, lines.events, history, "it is from another version, or was changed: restore the file from a copy")
    if lines.damage:
        history.damage = f"{lines.damage}; what it recorded is done again"
    return history


def _drop_damaged_end(path: Path) -> tuple[int, str]:
    """Move a truncated or damaged last line to record.damaged, so that the next event starts on a new line.

    Returns the remaining number of bytes and the checksum of the last line.
    """
    whole = path.read_bytes()
    lines = read_lines(path)
    good = lines.good_bytes
    if good < len(whole):
        with path.with_suffix(".damaged").open("ab") as file:
            file.write(whole[good:] + b"\n")
        os.truncate(path, good)
    return good, lines.latest
