"""Which studies and trainings this user started here that name code to import, in a folder that only he can write.

The list is kept outside the studies: a study from someone else can claim anything, but cannot write into this folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path


def remember(place: str, references: Iterable[str]) -> bool:
    """Record that this user started the study at `place`, which names these; returns whether it could be written."""
    folder = _folder()
    if folder is None:
        return False
    known = sorted({*_named_at(place), *references})
    path = folder / _name(place)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps({"place": place, "references": known}))
        draft.replace(path)
    except OSError:
        return False
    return True


def begun_here(places: Iterable[str], references: Iterable[str]) -> bool:
    """Whether this user started one of the places, or a folder around it, with all these names."""
    wanted = set(references)
    return any(wanted <= _named_at(str(one)) for place in places for one in _with_parents(place))


def address_of(path: Path) -> str:
    """The real path of a folder, with links resolved."""
    return os.path.realpath(path)


def _with_parents(place: str) -> Iterable[str | Path]:
    """A folder and its parents; a bucket's URL alone."""
    return [place] if "://" in place else [Path(place), *Path(place).parents]


def _named_at(place: str) -> set[str]:
    """What is known of a place; nothing where the file is not this user's own, or can be written by others."""
    folder = _folder()
    if folder is None:
        return set()
    path = folder / _name(place)
    try:
        if not all(_is_own(one) for one in (folder, path)):
            return set()
        kept = json.loads(path.read_text(encoding="utf-8"))
        return set(map(str, kept["references"])) if kept["place"] == place else set()
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _is_own(path: Path) -> bool:
    found = path.lstat()
    return found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode) and not found.st_mode & 0o022


def _name(place: str) -> str:
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:32] + ".json"


def _folder() -> Path | None:
    """In the user's state; None where there is no such place."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home
        return None
    return base / "hcpr_tune" / "begun"
