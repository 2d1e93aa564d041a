"""Space files: found by name or path, without reading them."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.common.paths import is_dir, is_file
from hcpr_tune.errors import InputError

SUFFIX = ".toml"
STUDY = "study.toml"
"""The file of the space in the folder of a study, with every default filled in."""


def known_spaces() -> dict[str, Path]:
    """The files of search_spaces/ by name: those of the current folder, of a checkout, of the installed package."""
    package = Path(__file__).parents[2]
    folders = (Path("search_spaces"), package.parent / "search_spaces", package / "search_spaces")
    known: dict[str, Path] = {}
    for folder in reversed(folders):
        known |= {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    return known


def find_space(given: str, option: str = "--space") -> Path:
    """The file of a space, given by its name in search_spaces/ or by a path: a TOML file, or the folder of a study.

    Raises `InputError`, which names the `option`.
    """
    path = Path(given)
    if is_path(given):
        if is_file(path, f"{option} {given}"):
            return path
        if is_dir(path, f"{option} {given}"):
            path /= STUDY
            if is_file(path, f"{option} {given}"):
                return path
            raise InputError(f"{option} {given} is a folder without a study; give the path of a space's TOML file")
        raise InputError(f"{option} {given}: there is no such file; {_neighbour(path)}")
    known = known_spaces()
    if given in known:
        return known[given]
    if given and is_file(Path(given + SUFFIX), f"{option} {given}"):
        return Path(given + SUFFIX)
    from hcpr_tune.common.settings import show  # here, since what completes a command line waits for this module

    question = did_you_mean(given, known)
    raise InputError(
        f"{option} {show(given)} is unknown; {question + ' ' if question else ''}known: "
        f"{', '.join(sorted(known)) or 'none'}, or give the path of a TOML file"
    )


def is_path(given: str) -> bool:
    """Whether a space, a recipe or a study is given by its path and not by its name."""
    return given.endswith(SUFFIX) or "/" in given


def _neighbour(path: Path) -> str:
    """What to give instead of a file that does not exist: one beside it with nearly its name."""
    try:
        beside = [one.name for one in path.parent.glob(f"*{SUFFIX}")]
    except OSError:
        beside = []
    folder = "" if "/" not in str(path) else f"{path.parent}/"
    return did_you_mean(path.name, beside, folder) or "give the path of a study's TOML file"
