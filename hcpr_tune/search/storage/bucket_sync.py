"""The files that people look at, copied to the bucket of a study while it runs. The record and the checkpoints have ways of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from hcpr_tune.common.bucket import Bucket
from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.history import Event, History

EVERY_SECONDS = 20.0
OWN_WAYS = ("record/", "inbox/", "checkpoints/", "holder.json", "job.json", "study.toml")
"""Keys that others write."""


class BucketSync:
    """A listener with a thread of its own, so that the search does not wait for uploads of tables and curves."""

    def __init__(self, root: Path, bucket: Bucket, leading: Callable[[], None], every: float = EVERY_SECONDS) -> None:
        """`leading` raises `StorageError` where another process has taken the study over: then nothing more is touched."""
        self._root, self._bucket, self._leading = root, bucket, leading
        self._sent: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(every,), daemon=True)
        self._thread.start()

    def on_event(self, event: Event, history: History) -> None:
        """Nothing: the files are what is copied."""

    def close(self) -> None:
        """Copy what is left. Raises `StorageError`."""
        self._stop.set()
        self._thread.join()
        self.sync()

    def _keep(self, every: float) -> None:
        while not self._stop.wait(every):
            # The last copy, at the end, says what is wrong; the record itself is safe.
            try:
                self.sync()
            except StorageError:
                continue

    def sync(self) -> None:
        """Upload what changed, and delete what is gone from the trials' folders: curves that a resumed search has written anew."""
        self._leading()
        here = {
            path.relative_to(self._root).as_posix(): path
            for path in self._root.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
        for key, path in here.items():
            if key.startswith(OWN_WAYS) or key.startswith("record."):
                continue
            try:
                status = path.stat()
                state = status.st_mtime_ns, status.st_size
                if self._sent.get(key) != state:
                    self._bucket.upload(path, key)
                    self._sent[key] = state
            except FileNotFoundError:  # replaced or deleted in between
                continue
        for key in self._bucket.keys("trials"):
            if key not in here:
                self._bucket.delete(key)
                self._sent.pop(key, None)
