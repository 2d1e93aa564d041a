"""The study's append-only record, its single source of truth: one JSON object per line, written before it takes effect.

Each line ends with the checksum of the line before it and its own, so that damaged, duplicated, deleted and moved lines
are detected. In a bucket, where objects cannot be appended to, the record is a sequence of segments, with a copy in a
local file next to the results.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from hcpr_tune.common.schema import Wrong
from hcpr_tune.common.text import encodable
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.clock import SessionClock
from hcpr_tune.search.record.events.check import Plain
from hcpr_tune.search.record.events.search import Event
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.storage.object_store import ObjectStore, storage_error
from hcpr_tune.version import VERSION

SEALED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}\r?')
"""A line. Editors and file transfers may have given it a Windows line ending."""
BEGINS = "0" * 8
"""Stands for the checksum of the line before the first."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SEGMENTS = "record"
SEGMENT_BYTES = 64 * 1024
"""Small, because each append rewrites the whole segment; a long study has many."""
WAITING = ("trial", "epoch")
"""Events whose write may be delayed, since they have no effect until a later event begins or ends a job. A worker
reports lost epochs again from its checkpoints, and a trial without a job is suggested again."""
WAIT_SECONDS = 1.0
"""How long they wait at most. A write to a bucket takes some 30 ms, during which the driver does nothing else."""


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


class Segments:
    """The record in a bucket. Each session begins a new segment.

    Lines that may wait are written with the next one that may not, or by a thread once they have waited long enough, or
    at once if nothing was written recently.
    """

    def __init__(self, place: ObjectStore, leading: Callable[[], None] = lambda: None) -> None:
        """`leading` raises if another process has taken over the study."""
        self._place, self._leading = place, leading
        self._data = self._held = b""
        self._written = -math.inf
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._failed: StorageError | None = None
        keys = place.keys(SEGMENTS)
        self._number = len(keys)
        if keys:
            self._mend(keys[-1])

    def _mend(self, key: str) -> None:
        """Cut a damaged last line from the last segment, so that lines appended after it can be read."""
        data = self._place.read(key) or b""
        begins = data[:-1].rfind(b"\n") + 1
        try:
            unsealed(data[begins:-1])
            whole = data.endswith(b"\n")
        except ValueError:
            whole = False
        if data and not whole:
            self._place.write("record.damaged", data[begins:])
            self._place.write(key, data[:begins])

    def append(self, line: bytes, waits: bool = False) -> None:
        """Add a line to the latest segment and write it, now or soon.

        Raises `StorageError`, also for a delayed write that failed since the last call.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if len(self._data) + len(self._held) + len(line) > SEGMENT_BYTES:
                self._write()
                self._number, self._data = self._number + bool(self._data), b""
            left = self._written + WAIT_SECONDS - time.monotonic()
            if waits and left > 0:
                self._held += line
                self._write_in(left)
            else:
                self._write(line)

    def _write(self, line: bytes = b"") -> None:
        # Held until it is written: a line must never be in the record without the one before it.
        self._held += line
        if self._held:
            self._place.write(f"{SEGMENTS}/{self._number:06d}.jsonl", self._data + self._held)
            self._data, self._held = self._data + self._held, b""
            self._written = time.monotonic()

    def _write_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._write_held)
            self._timer.daemon = True
            self._timer.start()

    def _write_held(self) -> None:
        with self._lock:
            self._timer = None
            try:
                self._leading()
                self._write()
            except StorageError as error:
                self._failed = error

    def close(self) -> None:
        """Drop the lines that still wait: they had no effect yet, and will be recorded again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()


def read_segments(place: ObjectStore) -> bytes:
    """The whole record from a bucket."""
    return b"".join(place.read(key) or b"" for key in place.keys(SEGMENTS))


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
        line = _seal(body, latest)
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
        self._end = size + len(line), _checksum(line)
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
                self._end = there.st_size, _checksum(self._writing)
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


def sealed(event: Mapping[str, object], after: str = BEGINS) -> bytes:
    """An event as a line of the record. `after`: the checksum of the line before it, `BEGINS` for the first."""
    return _seal(json.dumps(event, allow_nan=False).encode(), after)


def _seal(body: bytes, after: str) -> bytes:
    body = body[:-1] + f', "after": "{after}"}}'.encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _checksum(line: bytes) -> str:
    """The checksum of a line made by `sealed`."""
    return line[-len('12345678"}\n') : -len('"}\n')].decode()


def sealed_row(events: Iterable[Mapping[str, object]]) -> bytes:
    """Events as the chained lines of a record."""
    lines, latest = [], BEGINS
    for event in events:
        lines.append(sealed(event, latest))
        latest = _checksum(lines[-1])
    return b"".join(lines)


class Line(NamedTuple):
    """A line of a record."""

    event: Plain
    after: str
    """The checksum of the line before it."""
    checksum: str


def unsealed(line: bytes) -> Plain:
    """The event of a line. Raises `ValueError` if the line was changed."""
    return read_line(line).event


def read_line(line: bytes) -> Line:
    """Read a single line. Raises `ValueError` if it was changed."""
    found = SEALED.fullmatch(line.removesuffix(b"\n"))
    if found is None:
        raise ValueError("it has no checksum")
    body = found[1] + b"}"
    if zlib.crc32(body) != int(found[2], 16):
        raise ValueError("its checksum is wrong")
    try:
        event: Plain = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\ud" in body.lower():  # a lone surrogate could not be encoded anywhere else
        event = encodable(event)
    return Line(event, str(event.pop("after", "")), found[2].decode())


@dataclass(frozen=True)
class Lines:
    """A record file: its events, which `fold` checks, the bytes up to the last good line, and that line's checksum.

    `damage` describes what is wrong with the end.
    """

    events: list[Plain]
    good_bytes: int
    latest: str
    damage: str


def read_lines(path: Path) -> Lines:
    """The lines of a record file.

    Raises `InputError` for a damaged line other than the last, and for any that does not follow the line before it.
    """
    # Split as bytes, so that a line that does not decode leaves the others readable.
    *lines, half = path.read_bytes().split(b"\n")
    events: list[Plain] = []
    good, latest = 0, BEGINS
    for number, whole in enumerate(lines, start=1):
        try:
            line = read_line(whole.removeprefix(BYTE_ORDER_MARK) if number == 1 else whole)
        except ValueError as error:
            if number == len(lines) and not half:
                return Lines(events, good, latest, f"line {number} of {path}, the last one, was damaged ({error})")
            raise InputError(
                f"{path}, line {number} is damaged ({error}); restore the file from a copy, or start a new study"
            ) from None
        if number == 1:
            _check_version(path, line.event)
        if line.after != latest:
            raise InputError(
                f"{path}, line {number} does not follow the line before it: one was duplicated, deleted or moved;"
                " restore the file from a copy, or start a new study"
            )
        events.append(line.event)
        good, latest = good + len(whole) + 1, line.checksum
    return Lines(events, good, latest, f"line {len(lines) + 1} of {path}, the last one, was cut off" if half else "")


def _check_version(path: Path, begin: Plain) -> None:
    """Raises `InputError` for a record begun by version 0.1, whose events and settings have other names."""
    versions = begin.get("versions")
    earlier = str(versions.get("hcpr_tune", "")) if isinstance(versions, dict) else ""
    if earlier.startswith("0.1."):
        raise InputError(
            f"{path} was begun by hcpr_tune {earlier}, whose studies this version, {VERSION}, cannot read;"
            f" go on with hcpr_tune {earlier}, or start a new study"
        )


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
