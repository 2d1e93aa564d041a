"""Studies by name or path: which there are in a storage, and which one is meant."""

from __future__ import annotations

import re
from pathlib import Path

from hcpr_tune.common import paths
from hcpr_tune.common.buckets.location import Location, is_bucket
from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.common.paths import is_dir, reading, there
from hcpr_tune.common.shell import command, storage_words
from hcpr_tune.errors import InputError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""Valid names of studies."""
MOST_NAMED, MOST_NEAR = 20, 3
"""Most studies listed in a message, and most that are asked for by `did you mean`."""


def is_place(given: str | Path) -> bool:
    """Whether a study is given by its path, a folder or a bucket's URL, and not by its name."""
    return isinstance(given, Path) or "/" in given or given in (".", "..")


def located(given: str | Path, storage: str | Path) -> tuple[str, str]:
    """The storage and the name of a study that is given by its name in `storage`, or by its path.

    What holds a `/` is a path, as are `.`, `..` and any `Path`. Another word is a name; where `storage` has no such
    study, it may also be a folder here.
    """
    text = str(given)
    if is_bucket(text):
        location = Location.parse(text)
        return str(location.parent), location.name
    path = Path(text)
    # A path that ends in `.` or `..` has no name of its own.
    if path.name in ("", "..") or text.rstrip("/").endswith("/."):
        path = path.resolve()
    if is_place(given):
        return str(path.parent), path.name
    if not is_bucket(str(storage)) and not there(Path(storage) / text / "study.toml") and there(path / "study.toml"):
        return ".", text
    return str(storage), text


def known(storage: str | Path) -> list[str]:
    """The names of the studies in a storage."""
    if is_bucket(str(storage)):
        from hcpr_tune.common.buckets.bucket import Bucket

        return sorted({key.split("/")[0] for key in Bucket(str(storage)).keys("") if key.endswith("/study.toml")})
    folder, where = Path(storage), f"--storage {storage}"
    if not is_dir(folder, where):
        if paths.exists(folder, where):
            raise InputError(f"{where} is not a folder; give the folder that contains the studies")
        return []
    with reading(where):
        names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if _begun_or_shut(folder / name)]


def nothing_there(storage: str | Path, address: str, name: str, what: str) -> InputError:
    """The error for a study that does not exist: the nearest names, or those that there are.

    Raises `InputError` if the storage cannot be looked into.
    """
    names = known(storage)
    hint = did_you_mean(name, names, most=MOST_NEAR)
    if hint:
        hint += f" {command('list', *storage_words(storage))} shows all {len(names)}" if len(names) > 1 else ""
    else:
        more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        hint = f"known there: {', '.join(names[:MOST_NAMED]) or 'none'}{more}"
    return InputError(f"{what}: there is no study in {address}; {hint}")


def _begun_or_shut(root: Path) -> bool:
    """Whether there is a study, or an unreadable folder that may be one: listing it is better than hiding it."""
    try:
        return (root / "study.toml").exists()
    except OSError:
        return NAME.fullmatch(root.name) is not None
