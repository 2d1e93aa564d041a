"""What the commands share: exit codes, the console, and what becomes of stdout and stderr once nobody takes what is written there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from hcpr_tune.errors import HcprTuneError

if TYPE_CHECKING:
    from rich.console import Console

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED, NOT_READ = 0, 1, 2, 130, 141
"""`NOT_READ` is what a shell reports of a program that SIGPIPE ended: `hcpr_tune list | head -1`."""


class Unheard(HcprTuneError):
    """What a command says cannot be written. `closed`: its reader went away, which is no error."""

    def __init__(self, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        super().__init__(f"stdout cannot be written: {reason}; make space there, or write elsewhere")
        self.closed, self.reason = isinstance(cause, BrokenPipeError), reason


class Outlet:
    """stdout or stderr. What it cannot take raises `Unheard`, or is dropped where it is `forgiving`: what was asked for matters more than its telling.

    An `OSError` of it would look like one of the disk that results are written to.
    """

    def __init__(self, stream: TextIO, forgiving: bool) -> None:
        self.stream, self._forgiving = stream, forgiving
        self.trouble: Unheard | None = None

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        first, self.trouble = self.trouble is None, self.trouble or Unheard(error)
        if self.trouble.closed or not self._forgiving:
            self.drop()
        if not self._forgiving:
            raise self.trouble from None
        if first and not self.trouble.closed and self.stream is not unwrapped(sys.stderr):
            print(
                f"hcpr_tune: what is printed is lost: stdout cannot be written ({self.trouble.reason}); the work goes on",
                file=sys.stderr,
            )

    def drop(self) -> None:
        """From here on, what is written goes nowhere: what waits in the stream's buffer would be an error at the interpreter's end, too."""
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a device
            os.dup2(nowhere.fileno(), self.stream.fileno())
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unwrapped(stream: Any) -> Any:
    """The stream itself."""
    return stream.stream if isinstance(stream, Outlet) else stream


@contextmanager
def outlets(forgiving: bool) -> Iterator[None]:
    """stdout as an `Outlet` for the length of the block; stderr is always a forgiving one, since nobody could be told.

    As a decorator, `forgiving`, it is for work that takes longer than its telling: a reader that goes away, or a log on a full disk, does not end it.
    """
    before = sys.stdout, sys.stderr
    there = [unwrapped(stream) for stream in before]
    out, err = Outlet(there[0], forgiving), Outlet(there[1], forgiving=True)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        try:
            yield
        except SystemExit:  # argparse has printed its help
            out.flush()
            raise
        out.flush()
    finally:
        for outlet in (out, err):
            with suppress(Unheard):
                outlet.flush()
            if outlet.trouble is not None:
                outlet.drop()
        sys.stdout, sys.stderr = before


def open_streams() -> None:
    """Make sure of stdin, stdout and stderr: where one was closed (`>&-`), a file of ours would get its number, and be written into by others."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  # as Python makes them
        stream = getattr(sys, name)
        if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            # A locale without a character, or a name that is no text, is no reason to say nothing.
            stream.reconfigure(errors="backslashreplace")


def make_console() -> Console:
    """Where the commands print."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())
