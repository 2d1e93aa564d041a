"""What the commands share: exit codes and the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())
