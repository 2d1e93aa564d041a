"""What the commands share: exit codes and the console."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from hcpr_tune.output import Current, stream

if TYPE_CHECKING:
    from rich.console import Console

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def typed(program: str) -> str:
    """How a program that was installed with this one is called here: by its name, or by its path where it is not on PATH."""
    if shutil.which(program):
        return program
    path = Path(sys.executable).with_name(program)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def make_console() -> Console:
    """Where the commands print. Once nobody reads that any more, `| head` for instance, it is as if they had been interrupted."""
    from rich.console import Console

    class Printing(Console):
        def on_broken_pipe(self) -> None:
            try:
                super().on_broken_pipe()
            except SystemExit:
                raise KeyboardInterrupt from None

    return Printing(file=cast(TextIO, Current()), highlight=False, soft_wrap=not stream().isatty())
