"""What is waited for before there is anything to show: one line in place on a terminal, elsewhere lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from hcpr_tune.common.output import Unheard
from hcpr_tune.views.search_progress import Phase
from hcpr_tune.views.wording import clock as clock_words
from hcpr_tune.views.wording import printable

BRIEF_SECONDS = 0.5
"""A brief phase is told of once it has lasted so long."""
AGAIN_SECONDS = 15.0
"""Where lines are printed, another one says that a phase still lasts."""


def is_live(console: Console) -> bool:
    """Whether the console is a terminal on which lines can be redrawn in place."""
    return console.is_terminal and not console.is_dumb_terminal


def live(console: Console, render: Callable[[], RenderableType]) -> Live:
    """Lines that are redrawn in place twice a second, and disappear in the end; what else is printed goes above."""
    return Live(
        console=console,
        refresh_per_second=2,
        transient=True,
        get_renderable=render,
        redirect_stdout=False,
        redirect_stderr=sys.stderr.isatty(),  # a file keeps what is written to it
    )


def phase_words(phase: Phase, seconds: float) -> str:
    """A phase that has lasted so long."""
    usual = f" (usually {phase.usual})" if phase.usual else ""
    lasted = f" {clock_words(seconds)}" if seconds >= 1 else ""
    return printable(f"{phase.what} ...{lasted}{usual}")


class Phases:
    """Tells on a console what is waited for."""

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console, self._now = console, now
        self._phase: Phase | None = None
        self._since = 0.0
        self._live: Live | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, phase: Phase) -> None:
        """The phase that lasts from now on, instead of the one before."""
        before, self._phase = self._phase, phase
        if before is not None and before.repeated and phase.repeated:
            return  # its line is redrawn, or the next one that is due says it
        self._since = self._now()
        if is_live(self._console):
            if self._live is None:
                self._live = live(self._console, self._render)
                self._live.start()
            self._live.refresh()
            return
        self._end_lines()
        if not phase.brief:
            self._print(phase)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._lines, args=(self._over,), name="phases", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Nothing is waited for."""
        self._phase = None
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._end_lines()

    def _end_lines(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _lines(self, over: threading.Event) -> None:
        phase = self._phase
        with suppress(Unheard):  # the command's own thread finds out too
            if phase is not None and phase.brief and not over.wait(BRIEF_SECONDS):
                self._print(phase)
            while not over.wait(AGAIN_SECONDS):
                if (phase := self._phase) is not None:
                    self._print(phase, self._now() - self._since)

    def _print(self, phase: Phase, seconds: float = 0.0) -> None:
        self._console.out(phase_words(phase, seconds), highlight=False)

    def _render(self) -> RenderableType:
        phase = self._phase
        words = "" if phase is None else phase_words(phase, self._now() - self._since)
        return Text(words, "dim", no_wrap=True, overflow="ellipsis")
