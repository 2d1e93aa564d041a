"""Where a command puts a space that it writes."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.common.files import write_whole
from hcpr_tune.common.paths import check_new_file, is_dir
from hcpr_tune.errors import InputError


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
