"""The record in a bucket, where objects cannot be appended to: a sequence of segments."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.lines import unsealed
from hcpr_tune.search.storage.object_store import ObjectStore

SEGMENTS = "record"
SEGMENT_BYTES = 64 * 1024
"""Small, because each append rewrites the whole segment; a long study has many."""
WAIT_SECONDS = 1.0
"""How long a line waits at most. A write to a bucket takes some 30 ms, during which the driver does nothing else."""


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
