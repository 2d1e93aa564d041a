"""Uploads the result files of a study to its bucket while it runs; record and checkpoints are uploaded elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.history import Event, History

EVERY_SECONDS = 20.0
OWN_WAYS = ("record/", "inbox/", "checkpoints/", "holder.json", "job.json", "study.toml")
"""Keys that are not uploaded here."""


class BucketSync:
    """A listener with a thread, so that the search does not wait for uploads of tables and curves."""

    def __init__(self, root: Path, bucket: Bucket, leading: Callable[[], None], every: float = EVERY_SECONDS) -> None:
        """`leading` raises `StorageError` if another process has taken over the study, which stops the sync."""
        self._root, self._bucket, self._leading = root, bucket, leading
        self._sent: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(every,), daemon=True)
        self._thread.start()

    def on_event(self, event: Event, history: History) -> None:
        """Does nothing: only files are synced."""

    def close(self) -> None:
        """Stop the thread and sync once more. Raises `StorageError`."""
        self._stop.set()
        self._thread.join()
        self.sync()

    def _keep(self, every: float) -> None:
        while not self._stop.wait(every):
            # The last sync reports what is wrong; the record itself is safe.
            try:
                self.sync()
            except StorageError:
                continue

    def sync(self) -> None:
        """Upload changed files, and delete objects of files gone from the trials' folders. Raises `StorageError`."""
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
