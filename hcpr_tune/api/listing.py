"""All studies of a storage, from their records: state, best trial, gain."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.text import named

if TYPE_CHECKING:
    from hcpr_tune.search.storage.object_store import ObjectStore

AT_ONCE = 8
"""Studies that are read at a time: a bucket makes one wait for each of its objects."""
UNREADABLE = "unreadable"


def listed(storage: str) -> list[dict[str, Any]]:
    """What `hcpr_tune list --json` says of each study, the one that was last heard of first."""
    from hcpr_tune.search.storage.names import known

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda name: told(storage, name), known(storage)))
    return sorted(
        (study for study in found if study is not None), key=lambda study: (-(study["last_event"] or 0), study["study"])
    )


def told(storage: str, name: str) -> dict[str, Any] | None:
    """What the list says of a study; None where there is none, but something else below its name."""
    from hcpr_tune.common.buckets.bucket import Bucket, is_bucket
    from hcpr_tune.common.buckets.location import Location
    from hcpr_tune.search.record.segments import read_segments
    from hcpr_tune.search.storage.object_store import FolderObjectStore

    try:
        if not is_bucket(storage):
            root = Path(storage) / name
            return told_of(storage, name, FolderObjectStore(root), str(root), modified(root))
        place = Bucket(storage).child(name)
        study = place.read("study.toml")
        if study is None:
            return None
        # What is only looked at leaves no copy.
        with tempfile.TemporaryDirectory(prefix="hcpr_tune_list_") as scratch:
            root = Path(scratch) / name
            root.mkdir()
            (root / "study.toml").write_bytes(study)
            (root / "record.jsonl").write_bytes(read_segments(place))
            return told_of(scratch, name, place, place.url, None)
    except Exception as error:  # whatever is wrong with one study, the others are listed
        return unreadable(name, str(Location.parse(storage).child(name)), None, named(error))


def told_of(storage: str, name: str, place: ObjectStore, address: str, when: float | None) -> dict[str, Any]:
    """The same of a study in a folder of this machine, or of its copy; `when` it was last written, where its record
    does not say.
    """
    from hcpr_tune.errors import HcprTuneError
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.views.status import counts, done, gain_plain, holder_plain, scored, state_of

    try:
        _, study, history = reopen(storage, name, "list ")
    except HcprTuneError as error:
        reason = str(error).replace(str(Path(storage) / name), address)
        return unreadable(name, address, when, reason)
    holder, now = living_lease_holder(place), time.time()
    count = counts(study, history, holder is not None)
    last = history.heard or when
    return {
        "study": name,
        "address": address,
        "state": state_of(study, history, holder),
        "holder": holder_plain(holder, now),
        "trials": count,
        "trials_done": done(count),
        "best": scored(history.best_trial),
        **gain_plain(history),
        "last_event": last,
        "age_seconds": None if last is None else max(0.0, now - last),
        "reason": "",
    }


def unreadable(name: str, address: str, when: float | None, reason: str) -> dict[str, Any]:
    """What is said of a study that cannot be read."""
    age = None if when is None else max(0.0, time.time() - when)
    places = {"study": name, "address": address, "state": UNREADABLE, "holder": None}
    nothing = dict.fromkeys(("trials", "trials_done", "best", "gain_points"))
    return places | nothing | {"last_event": when, "age_seconds": age, "reason": " ".join(reason.split())}


def modified(root: Path) -> float | None:
    """When a study in a folder was last written."""
    times = [path.stat().st_mtime for path in (root / "record.jsonl", root / "study.toml") if path.exists()]
    return max(times, default=None)
