"""The list of a storage's studies for the live page: a study is read again only when it has changed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hcpr_tune.api.listing import listed, told
from hcpr_tune.common.buckets.location import is_bucket
from hcpr_tune.errors import HcprTuneError
from hcpr_tune.search.storage.lease import read_lease_holder
from hcpr_tune.search.storage.names import known
from hcpr_tune.search.storage.notes import KEY as NOTES
from hcpr_tune.search.storage.notes import read_notes
from hcpr_tune.search.storage.object_store import FolderObjectStore
from hcpr_tune.web.watched import Studies, modified

AGE_SECONDS = 30.0
"""How old a shown age may be."""
BUCKET_SECONDS = 30.0
"""How long the list of a bucket is kept."""


class Listing:
    """What `hcpr_tune list` says, kept as long as the files are the same."""

    def __init__(self, studies: Studies) -> None:
        self._storage = studies.storage
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[object, dict[str, Any]]] = {}
        self._bucket: tuple[float, list[dict[str, Any]]] = (-BUCKET_SECONDS, [])

    @property
    def version(self) -> str:
        """Changes when the list has changed."""
        if is_bucket(self._storage):
            return f"{int(time.monotonic() / BUCKET_SECONDS)}"
        # The age of the last event is shown too.
        now = int(time.time() / AGE_SECONDS)
        return str(hash((now, *((name, self._state(name)) for name in known(self._storage)))))

    def _state(self, name: str) -> tuple[float, ...]:
        root = Path(self._storage) / name
        files = ("study.toml", "record.jsonl", NOTES)
        holder = None
        with suppress(HcprTuneError):
            holder = read_lease_holder(FolderObjectStore(root))
        return (*(modified(root / file) for file in files), float(holder is not None and holder.lives(time.time())))

    def now(self) -> list[dict[str, Any]]:
        """The studies as they are now, the one that was last heard of first."""
        with self._lock:
            if is_bucket(self._storage):
                when, found = self._bucket
                if time.monotonic() - when >= BUCKET_SECONDS:
                    found = listed(self._storage)
                    self._bucket = time.monotonic(), found
                return found
            found, kept = [], dict[str, tuple[object, dict[str, Any]]]()
            for name in known(self._storage):
                state, old = self._state(name), self._kept.get(name)
                one = old[1] if old is not None and old[0] == state else self._told(name)
                if one is not None:
                    kept[name] = state, one
                    found.append(one)
            self._kept = kept
            return sorted(found, key=lambda study: (-(study["last_event"] or 0), study["study"]))

    def _told(self, name: str) -> dict[str, Any] | None:
        one = told(self._storage, name)
        if one is not None:
            with suppress(HcprTuneError):
                one["tags"] = list(read_notes(FolderObjectStore(Path(self._storage) / name)).study.tags)
        return one
