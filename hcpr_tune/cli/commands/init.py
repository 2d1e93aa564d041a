"""`hcpr_tune init`: a look at a folder of class folders, and a starter space for it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.cli.new_space import SCHEMA, make_folder, space_name, write_schema, write_space
from hcpr_tune.common.output import say, stream
from hcpr_tune.common.paths import check_writable, exists, is_dir
from hcpr_tune.common.shell import command, option
from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError
from hcpr_tune.views.terminal.console import make_console

if TYPE_CHECKING:
    from hcpr_tune.api.datasets.look import Look


INDENT = 13
"""Columns before the words of a line."""


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    init = commands.add_parser(
        "init",
        description="Look at a folder of class folders, say what is in it and what its images can show, and write a "
        "search space for it.",
    )
    init.add_argument("folder", metavar="FOLDER", help="one subfolder of images per class")
    init.add_argument("--out", metavar="FILE", help="the space (default: search_spaces/FOLDER.toml)")


def run(options: argparse.Namespace) -> int:
    from hcpr_tune.api.datasets.overview import overview
    from hcpr_tune.views.wording import printable

    given = Path(options.folder)
    if not is_dir(given, f"FOLDER {given}"):
        raise InputError(f"FOLDER {given}: there is no folder {given}; give one with a subfolder of images per class")
    out = _new_file(options.out, given)
    seen, text = _looked_at(given)
    make_folder(out.parent, "--out")
    has_schema = write_schema(out.parent)
    write_space(out, text, "--out")
    for line in overview(seen):
        say(_folded(printable(line)))
    beside = f", and {SCHEMA} beside it, by which editors complete and check it" if has_schema else ""
    say(_folded(printable(f"written      {out}{beside}")))
    space = option("--space", out.stem if options.out is None else out)
    say(f"look at it   {command('tune', space, '--dry-run --probe')}")
    say(f"search       {command('tune', space)}")
    return COMPLETED


def _folded(line: str) -> str:
    """A line folded between words for a terminal, below its own beginning."""
    if not stream().isatty():
        return line
    width, indent = make_console().width, " " * INDENT
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _new_file(given: str | None, folder: Path) -> Path:
    """Where the space goes. Raises `InputError` for what cannot be a new space file."""
    out = Path(given) if given else Path("search_spaces") / f"{space_name(folder)}.toml"
    if out.suffix != ".toml":
        raise InputError(f"--out {out} must end in .toml, so that --space takes it; choose another file")
    if exists(out, f"--out {out}"):
        raise InputError(f"--out {out} exists; choose another file")
    check_writable(out, f"--out {out}", "choose another file")
    return out


def _looked_at(given: Path) -> tuple[Look, str]:
    """What is in the folder, and the space for it. Raises `InputError` that names the folder as it was given."""
    from hcpr_tune.api.datasets.look import look
    from hcpr_tune.api.datasets.starter import starter_space
    from hcpr_tune.training.data.parts import dataset_folder

    try:
        folder = dataset_folder(f"folder:{given}")
        seen = look(folder, lambda words: sys.stderr.write(f"{clean(words)}\n"))
        return seen, starter_space(folder, seen)
    except InputError as error:
        raise InputError(f"FOLDER {given}: {str(error).removeprefix('task.dataset: ')}") from None
