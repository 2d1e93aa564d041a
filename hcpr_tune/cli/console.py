"""What the commands share: exit codes, the console, the live view, signals, the check of a recipe."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from hcpr_tune.common.output import Current, stream

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.training.recipe import Recipe

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED, NOT_READ = 0, 1, 2, 130, 141
"""`NOT_READ` is what a shell reports of a program that SIGPIPE ended: `hcpr_tune list | head -1`."""
COPIED = ("tensorboard ", "train again ", "full verdict ", "report ", "written ")
"""Prefixes of the lines that contain a command."""

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


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print the lines folded between words; a line with a command is left to the terminal, so that it can be copied."""
    from rich.text import Text

    from hcpr_tune.views.wording import printable

    for line in lines:
        if line.startswith(COPIED):
            console.out(printable(line), highlight=False)
        else:
            console.print(Text(printable(line)))


def search_view(study: StudySpec, console: Console, history: History, json: bool) -> Any:
    """The live view on a terminal that can redraw it, plain lines elsewhere, or JSON."""
    from hcpr_tune.views.terminal.event_log import JsonLines, PlainLines
    from hcpr_tune.views.terminal.live_view import LiveView

    if json:
        return JsonLines(study, console, history)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveView(study, console, history) if live else PlainLines(study, console, history)


def check_recipe(recipe: Recipe) -> None:
    """Find out before Ray starts whether the data can be read and the model built; on a cluster both may be elsewhere.

    The embedded digits and the built-in models are known to work, and the import of torch is saved.
    """
    from hcpr_tune.training.recipe import METHODS, MODELS, Task

    usual = Task(split_seed=recipe.task.split_seed, norm=recipe.task.norm, epsilon=recipe.task.epsilon)
    if recipe.task == usual and recipe.model.name in MODELS and recipe.method in METHODS and not recipe.model.mean:
        return
    from hcpr_tune.training.session import DataShelf, check_trainable

    tell_notes(check_trainable(recipe, DataShelf()))


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (a Slurm preemption, `kill`), SIGHUP (the terminal was closed) and Ctrl-C end the block with
    KeyboardInterrupt; a second one ends the process at once.

    A process that ignores SIGHUP, as under `nohup`, continues to ignore it.
    """

    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread handle signals
        return

    def interrupt(number: int, frame: Any) -> None:
        for name in before:
            # A terminal that is closed says so twice, by the shell and by the system: that is no second wish.
            signal.signal(name, signal.SIG_IGN if name == signal.SIGHUP else signal.SIG_DFL)
        raise KeyboardInterrupt

    names = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        names.append(signal.SIGHUP)
    before = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
