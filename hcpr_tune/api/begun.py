"""Where this user has begun studies and trainings that name code of his own: kept outside them, where nobody else can
write.

A study that comes from elsewhere can say anything of itself. What it cannot do is write a file into this user's own
folder, here.
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
    """This user has begun what lies at `place`, and it names these; whether that could be kept."""
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
    """Whether this user has begun one of the places, or what holds it, with all these names."""
    wanted = set(references)
    return any(wanted <= _named_at(str(one)) for place in places for one in _with_parents(place))


def address_of(path: Path) -> str:
    """The one name of a folder, whatever way led there."""
    return os.path.realpath(path)


def _with_parents(place: str) -> Iterable[str | Path]:
    """A folder and all that it lies in; a bucket's URL stands alone."""
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
