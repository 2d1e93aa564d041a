"""Where a command puts a space that it writes."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.errors import InputError
from hcpr_tune.files import write_whole


def new_space(given: str | None, name: str, option: str) -> Path:
    """The path that was given, or NAME in search_spaces/ where there is one. Raises `InputError` for what cannot be a new space file."""
    spaces = Path("search_spaces")
    out = Path(given) if given else (spaces / name if spaces.is_dir() else Path(name))
    if out.exists():
        raise InputError(f"{option} {out} exists; choose another file, or delete it")
    if out.suffix != ".toml":
        raise InputError(f"{option} {out} must end in .toml, so that --space takes it; choose another file")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{option} {out}: there is no folder {out.absolute().parent}; make it, or choose another file")
    return out


def write_space(out: Path, text: str, option: str) -> None:
    """Write it whole. Raises `InputError` where that cannot be."""
    try:
        write_whole(out, text)
    except OSError as error:
        raise InputError(f"{option} {out} cannot be written: {error}; choose another file") from None
