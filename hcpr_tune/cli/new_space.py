"""Where a command puts a space that it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hcpr_tune.common.files import write_whole
from hcpr_tune.common.paths import check_new_file, is_dir, there
from hcpr_tune.common.text import ascii_of
from hcpr_tune.errors import InputError

SCHEMA = "space.schema.json"
"""Named in the first line of each space, for editors."""
LONGEST_NAME = 60


def space_name(folder: Path) -> str:
    """A name for the space of a folder of images, that `--space` takes without quotes: letters, digits, - and _.

    It is none of the shipped spaces'.
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_of(folder.resolve().name)).strip("-")[:LONGEST_NAME] or "images"
    package = Path(__file__).parents[1]
    shipped = [root / "search_spaces" / f"{name}.toml" for root in (package.parent, package)]
    return f"{name}-images" if any(map(there, shipped)) else name


def new_space(given: str | None, name: str, option: str) -> Path:
    """The path that was given, or NAME in search_spaces/ where there is one.

    Raises `InputError` for what cannot be a new space file.
    """
    spaces = Path("search_spaces")
    out = Path(given) if given else (spaces / name if is_dir(spaces, option) else Path(name))
    if out.suffix != ".toml":
        raise InputError(f"{option} {out} must end in .toml, so that --space takes it; choose another file")
    check_new_file(out, f"{option} {out}")
    return out


def write_space(out: Path, text: str, option: str) -> None:
    """Write it whole. Raises `InputError` where that cannot be."""
    try:
        write_whole(out, text)
    except OSError as error:
        raise InputError(f"{option} {out} cannot be written: {error}; choose another file") from None


def make_folder(folder: Path, option: str) -> None:
    """Make the folder of a new space. Raises `InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option}: {folder} cannot be made: {error.strerror or error}; choose another file") from None


def write_schema(folder: Path) -> bool:
    """Write the schema of spaces into a folder, for editors; returns whether there was none. Raises `InputError`."""
    from hcpr_tune.search.spec.json_schema import space_schema

    if there(folder / SCHEMA):
        return False
    write_space(folder / SCHEMA, json.dumps(space_schema(), indent=2) + "\n", "--out")
    return True
