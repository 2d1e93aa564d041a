"""The console that the commands print on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO, cast

from hcpr_tune.common.output import Current, stream

if TYPE_CHECKING:
    from rich.console import Console

COPIED = ("tensorboard ", "report ", "verdict   ", "written ", "token ")
"""Prefixes of lines with a command or a path to copy."""

NARROWEST, USUAL_WIDTH = 20, 80
"""Columns."""


def print_notes(notes: Iterable[str]) -> None:
    """What a user should know of the data: a line each, on stderr, since stdout belongs to the answer."""
    from hcpr_tune.views.wording import printable

    for note in notes:
        sys.stderr.write(f"hcpr_tune: note: {printable(note)}\n")


def make_console() -> Console:
    """Where the commands print."""
    from rich.console import Console

    console = Console(file=cast(TextIO, Current()), highlight=False, soft_wrap=not stream().isatty())
    if console.width < NARROWEST:  # COLUMNS=0 says nothing of a terminal
        console.width = USUAL_WIDTH
    return console


def has_width() -> bool:
    """Whether somebody says how wide the output is to be, though it is no terminal."""
    given = os.environ.get("COLUMNS", "")
    return given.isdecimal() and len(given) < 6 and int(given) >= NARROWEST


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print the lines folded between words; a line with a command is left to the terminal, so that it can be copied."""
    from rich.text import Text

    from hcpr_tune.common.shell import typed
    from hcpr_tune.views.wording import printable

    ours = f"{typed()} "
    for line in lines:
        if line.startswith(COPIED) or ours in line:
            console.out(printable(line), highlight=False)
        else:
            console.print(Text(printable(line)))
