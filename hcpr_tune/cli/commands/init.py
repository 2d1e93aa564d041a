"""`hcpr_tune init`: a starter space for a folder of class folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_writable, exists, is_dir
from hcpr_tune.common.shell import command, option
from hcpr_tune.errors import InputError


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    init = commands.add_parser(
        "init",
        description="Look at a folder of class folders and write a search space for it.",
    )
    init.add_argument("folder", metavar="FOLDER", help="one subfolder of images per class")
    init.add_argument("--out", metavar="FILE", help="the space (default: search_spaces/FOLDER.toml)")


def run(options: argparse.Namespace) -> int:
    from hcpr_tune.api.datasets.starter import look, starter_space
    from hcpr_tune.common.files import write_whole
    from hcpr_tune.training.data.parts import dataset_folder
    from hcpr_tune.views.wording import printable

    given = Path(options.folder)
    if not is_dir(given, f"FOLDER {given}"):
        raise InputError(f"FOLDER {given}: there is no folder {given}; give one with a subfolder of images per class")
    folder = dataset_folder(f"folder:{given}")
    out = Path(options.out or Path("search_spaces") / f"{folder.resolve().name}.toml")
    if out.suffix != ".toml":
        raise InputError(f"--out {out} must end in .toml, so that --space takes it; choose another file")
    if exists(out, f"--out {out}"):
        raise InputError(f"--out {out} exists; choose another file")
    check_writable(out, f"--out {out}", "choose another file")
    seen = look(folder)
    text = starter_space(folder, seen)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror or error}; choose another file") from None
    for note in seen.notes:
        say(printable(f"note: {note}"))
    say(printable(f"wrote {out}; look at it, then: {command('tune', option('--space', out))}"))
    return COMPLETED
