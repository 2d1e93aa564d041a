"""What the commands share: exit codes and the console."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO, cast

from hcpr_tune.common.output import Current, stream

if TYPE_CHECKING:
    from rich.console import Console

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED, NOT_READ = 0, 1, 2, 130, 141
"""`NOT_READ` is what a shell reports of a program that SIGPIPE ended: `hcpr_tune list | head -1`."""


NARROWEST, USUAL_WIDTH = 20, 80
"""Columns."""


def tell_notes(notes: Iterable[str]) -> None:
    """What a user should know of the data: a line each, on stderr, since stdout belongs to the answer."""
    from hcpr_tune.views.wording import printable

    for note in notes:
        print(f"hcpr_tune: note: {printable(note)}", file=sys.stderr)


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
