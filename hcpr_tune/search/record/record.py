"""The study's append-only record, the only truth: one JSON object per line, written before a decision takes effect.

Each line ends with the checksum of the line before it and one of its own, so that a damaged one is found, and one that was doubled, deleted
or moved. In a bucket, where nothing can be appended to, the record is a row of segments, and a file beside the results is a copy of it.
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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from hcpr_tune.common.schema import Wrong
from hcpr_tune.common.text import encodable
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.clock import SessionClock
from hcpr_tune.search.record.events import Event
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.storage.object_store import ObjectStore, storage_error
from hcpr_tune.version import VERSION

SEALED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}\r?')
"""A line; an editor or a transfer may have given it the end that lines have on Windows."""
BEGINS = "0" * 8
"""What the first line says of the line before it."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SEGMENTS = "record"
SEGMENT_BYTES = 64 * 1024
"""A segment is written anew each time, so it is small; a long study has many."""
WAITING = ("trial", "epoch")
"""Events that take no effect by themselves: what comes of them is a job's beginning or end, an event of its own behind them. A worker tells epochs
that are lost again, they are in its checkpoints, and a trial without a job is suggested again."""
WAIT_SECONDS = 1.0
"""How long they wait at most: a write takes a bucket some 30 ms, in which the driver does nothing else."""


class Fold(Protocol):
    """What a record is folded into."""

    def check(self, event: Event) -> None:
        """Raises `Wrong` where an event is none, or cannot follow what is recorded."""

    def apply(self, event: Event) -> bool:
        """Fold one event in. False where it says nothing new."""


Folded = TypeVar("Folded", bound=Fold)
Heard = TypeVar("Heard", bound=Fold, contravariant=True)


class Hearing(Protocol[Heard]):
    """Somebody who is told each event after it is in the record: files, TensorBoard, the terminal."""

    def on_event(self, event: Event, history: Heard) -> None: ...

    def close(self) -> None: ...


Listener = Hearing[History]
"""Somebody who is told the events of a search."""


class Segments:
    """The record in a bucket. Each session begins a segment of its own.

    Lines that may wait are written with the next one that may not, by a thread once they have waited long enough, or at once where nothing was
    written lately.
    """

    def __init__(self, place: ObjectStore, leading: Callable[[], None] = lambda: None) -> None:
        """`leading` raises where another process has taken the study over."""
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
        """Cut a damaged last line from the last segment, so that what comes after it can be read."""
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
        """Write the latest segment with one more line, now or soon. Raises `StorageError`, also for what could not be written since the last time."""
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
        # Held before it is written: what follows a line that could not be written must not stand without it.
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
        """Whatever still waits took no effect, and is told again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()


def read_segments(place: ObjectStore) -> bytes:
    """The record that lies in a bucket, whole."""
    return b"".join(place.read(key) or b"" for key in place.keys(SEGMENTS))


class Record(Generic[Folded]):
    """Appends events to record.jsonl, folds them into `history`, and tells the listeners."""

    def __init__(
        self,
        path: Path,
        history: Folded,
        listeners: Sequence[Hearing[Folded]] = (),
        segments: Segments | None = None,
        leading: Callable[[], None] = lambda: None,
    ) -> None:
        """`leading` raises where another process has taken the study over. Raises `InputError` where another one on this machine has it."""
        self.history = history
        self.listeners = list(listeners)
        self._path, self._segments, self.leading = path, segments, leading
        self.clock = SessionClock()
        self._writing = b""
        """The latest line: an interrupt may come between its writing and the note of it."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            _lock(self._file, path)
            self._end = _drop_damaged_end(path)
            self._identity = _identity(path.stat())
        except OSError as error:
            raise storage_error(f"{path} cannot be opened", error) from error

    def append(self, event: Event) -> None:
        """Write one event, flushed to the disk, then make it take effect. Raises `StorageError` where it could not be written, or the file is not the
        one that was written so far, and then nothing is left of it.
        """
        body = json.dumps(event, allow_nan=False).encode()
        try:
            self.history.check(event)
        except Wrong as error:
            raise StorageError(
                f"{self._path}: {event.get('event')}: {error}; it could not be read again, so it is not written"
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
        """Raises `StorageError` where the file was moved, replaced or written by somebody else: it would go on where nobody looks for it."""
        try:
            there = self._path.stat()
            size, _ = self._end
            if there.st_size == size + len(self._writing) and self._is_last(self._writing):
                self._end = there.st_size, _checksum(self._writing)
            if _identity(there) != self._identity:
                wrong = "was replaced by another file"
            elif there.st_size != self._end[0]:
                wrong = f"is {there.st_size} bytes long and not {self._end[0]}: somebody else has changed it"
            else:
                return
        except (FileNotFoundError, NotADirectoryError):
            wrong = "was moved or deleted"
        except OSError as error:
            raise storage_error(f"{self._path} cannot be read", error) from error
        raise StorageError(
            f"{self._path} {wrong} while it was in use; nothing was recorded after that: put the file back as it was, then go on by --resume"
        )

    def _is_last(self, line: bytes) -> bool:
        """Whether the file ends with this line."""
        with self._path.open("rb") as file:
            file.seek(-len(line), os.SEEK_END)
            return bool(line) and file.read() == line

    def __enter__(self) -> Record[Folded]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close it. What went wrong before says more than what then cannot be closed."""
        with nullcontext() if error is None else suppress(StorageError):
            self.close()

    def close(self) -> None:
        """Close the file and every listener, whatever becomes of the others. Raises `StorageError`."""
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
    """The holder file says who leads a study; on one machine this makes it certain. Some shared file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise InputError(
            f"{path.parent} is being searched by another process; wait for its end, or stop it by Ctrl-C, before you resume it"
        ) from None
    except OSError:
        return


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def sealed(event: Event, after: str = BEGINS) -> bytes:
    """An event as a line of the record, with its checksum. `after`: that of the line before, `BEGINS` for the first."""
    return _seal(json.dumps(event, allow_nan=False).encode(), after)


def _seal(body: bytes, after: str) -> bytes:
    body = body[:-1] + f', "after": "{after}"}}'.encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _checksum(line: bytes) -> str:
    """Of a line as `sealed` makes it."""
    return line[-len('12345678"}\n') : -len('"}\n')].decode()


def sealed_row(events: Iterable[Event]) -> bytes:
    """Events as the lines of a record, each after the one before."""
    lines, latest = [], BEGINS
    for event in events:
        lines.append(sealed(event, latest))
        latest = _checksum(lines[-1])
    return b"".join(lines)


class Line(NamedTuple):
    """A line of a record."""

    event: Event
    after: str
    """The checksum of the line before."""
    checksum: str


def unsealed(line: bytes) -> Event:
    """The event of a line. Raises `ValueError` where it is not what was written."""
    return read_line(line).event


def read_line(line: bytes) -> Line:
    """A line, for itself. Raises `ValueError` where it is not what was written."""
    found = SEALED.fullmatch(line.removesuffix(b"\n"))
    if found is None:
        raise ValueError("it has no checksum")
    body = found[1] + b"}"
    if zlib.crc32(body) != int(found[2], 16):
        raise ValueError("its checksum is wrong")
    try:
        event: Event = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\ud" in body.lower():  # half of a surrogate pair is no text that can be written anywhere else
        event = encodable(event)
    return Line(event, str(event.pop("after", "")), found[2].decode())


@dataclass(frozen=True)
class Lines:
    """A record file: the events of its lines; the bytes up to the last good one, and its checksum; what is wrong with its end, empty where nothing is."""

    events: list[Event]
    good_bytes: int
    latest: str
    damage: str


def read_lines(path: Path) -> Lines:
    """The lines of a record file. Raises `InputError` for a damaged line that is not the last, and for any that does not follow the one before."""
    # Split as bytes: a damaged line must not keep the others from being read.
    *lines, half = path.read_bytes().split(b"\n")
    events: list[Event] = []
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
                f"{path}, line {number} does not follow the line before it: one was doubled, deleted or moved; restore the file from a copy, or start a new study"
            )
        events.append(line.event)
        good, latest = good + len(whole) + 1, line.checksum
    return Lines(events, good, latest, f"line {len(lines) + 1} of {path}, the last one, was cut off" if half else "")


def _check_version(path: Path, begin: Event) -> None:
    """Raises `InputError` where an earlier version began the record, whose events and settings have other names."""
    versions = begin.get("versions")
    earlier = str(versions.get("hcpr_tune", "")) if isinstance(versions, dict) else ""
    if earlier.startswith("0.1."):
        raise InputError(
            f"{path} was begun by hcpr_tune {earlier}, whose studies this version, {VERSION}, cannot read; go on with hcpr_tune {earlier}, or start a new study"
        )


def fold(path: Path, events: Iterable[Event], history: Fold, hint: str) -> None:
    """Fold the events of a record file. Raises `InputError` that names the line, the field, its law and the value where one makes no sense."""
    for number, event in enumerate(events, start=1):
        try:
            history.check(event)
            history.apply(event)
        except Exception as error:  # whatever an odd line breaks, it is the line that is to be named
            words = str(error) if isinstance(error, ValueError) else repr(error)
            raise InputError(f"{path}, line {number} makes no sense to this version: {words}; {hint}") from None


def read_history(path: Path, last_epoch: int, goal: Goal | None = None) -> History:
    """Fold a record file. A last line that is cut off or damaged does not count: what it said is done again, and `damage` names it."""
    history = History(last_epoch, goal or Goal(), bytes_read=path.stat().st_size)
    lines = read_lines(path)
    fold(path, lines.events, history, "it is from another version, or was changed: restore the file from a copy")
    if lines.damage:
        history.damage = f"{lines.damage}; what it said is done again"
    return history


def _drop_damaged_end(path: Path) -> tuple[int, str]:
    """Cut a last line that does not count, so that the next event starts on a line of its own; returns the bytes that are left, and the checksum of
    the last line. What is cut goes to record.damaged.
    """
    whole = path.read_bytes()
    lines = read_lines(path)
    good = lines.good_bytes
    if good < len(whole):
        with path.with_suffix(".damaged").open("ab") as file:
            file.write(whole[good:] + b"\n")
        os.truncate(path, good)
    return good, lines.latest
