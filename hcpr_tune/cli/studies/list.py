"""`hcpr_tune list`: all searches of a storage, from their records."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_storage
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.shell import command, storage_words
from hcpr_tune.common.text import named
from hcpr_tune.views.terminal.console import has_width, make_console

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod

    from hcpr_tune.search.storage.object_store import ObjectStore

AT_ONCE = 8
"""Studies that are read at a time: a bucket makes one wait for each of its objects."""
UNREADABLE = "unreadable"
TITLES = ("study", "trials", "robust accuracy, %", "gain", "age", "state")


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    command = commands.add_parser(
        "list",
        help="all searches of a storage",
        description="List the searches of a storage, newest first: state, best trial, gain.",
    )
    add_storage(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print a line for each study, the one that was last heard of first."""
    from hcpr_tune.search.storage.studies import known

    console, names = make_console(), known(options.storage)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda name: told(options.storage, name), names))
    studies = sorted(
        (study for study in found if study is not None), key=lambda study: (-(study["last_event"] or 0), study["study"])
    )
    if options.json:
        plain = {"storage": options.storage, "studies": studies}
        console.out(json.dumps(plain, indent=2, allow_nan=False), highlight=False)
        return COMPLETED
    if not studies:
        print_line(
            console,
            f"no study lies in {options.storage}; {command('tune', *storage_words(options.storage))} begins one, "
            "--storage DIR|URL looks elsewhere",
        )
        return COMPLETED
    print_table(console, [study for study in studies if study["state"] != UNREADABLE])
    for study in studies:
        if study["state"] == UNREADABLE:
            print_line(console, f"{study['study']} cannot be read: {study['reason']}")
    return COMPLETED


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
    from hcpr_tune.views.status import counts, done, holder_plain, scored, state_of
    from hcpr_tune.views.summary import gain_points

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
        "gain_points": gain_points(history),
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


def print_table(console: Console, studies: Sequence[dict[str, Any]]) -> None:
    """A line for each study. The state comes last: where the terminal is narrow, it is what is cut."""
    rows = [TITLES, *map(row, studies)] if studies else []
    widths = [max(len(line[place]) for line in rows) for place in range(len(TITLES) - 1)] if rows else []
    for number, line in enumerate(rows):
        cells = [
            cell.rjust(width) if title in ("trials", "gain", "age") else cell.ljust(width)
            for title, cell, width in zip(TITLES[:-1], line[:-1], widths, strict=True)
        ]
        print_line(console, "  ".join([*cells, line[-1]]), fitted=True, style="bold" if number == 0 else "")


def row(study: dict[str, Any]) -> tuple[str, ...]:
    """A study's cells, by `TITLES`."""
    from hcpr_tune.views.status import STATES
    from hcpr_tune.views.wording import age

    best, gain, holder = study["best"], study["gain_points"], study["holder"]
    accuracy = "none yet"
    if best is not None:
        low, share, high = (100 * best["robust_accuracy_validation"][name] for name in ("low_95", "share", "high_95"))
        accuracy = f"{share:.1f} ({low:.1f} to {high:.1f})"
    state = STATES.get(study["state"], study["state"])
    # Before both have reached the last rung it is no answer.
    so_far = "" if study.get("gain_is_final", True) else f" at epoch {study['gain_at_epoch']}"
    return (
        study["study"],
        f"{study['trials_done']}/{study['trials']['budget']}",
        accuracy,
        "" if gain is None else f"{gain:+.1f}{so_far}",
        age(study["age_seconds"]),
        f"{state}, led by {holder['host']}" if holder is not None else state,
    )


def print_line(console: Console, words: str, fitted: bool = False, style: str = "") -> None:
    """A line without what would steer a terminal, whole unless it is to be `fitted` into the terminal's width."""
    from rich.text import Text

    from hcpr_tune.views.wording import printable

    fitted = fitted and (console.is_terminal or has_width())
    overflow: OverflowMethod = "ellipsis" if fitted else "ignore"
    console.print(Text(printable(words), style), no_wrap=True, overflow=overflow, crop=fitted)
