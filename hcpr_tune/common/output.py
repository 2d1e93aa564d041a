"""Standard output, kept for what this program says, and what becomes of it once nobody takes what is written there.

A user's model may print, so may Ray's threads and any library, from Python or from C. While a command runs, all of that goes to
standard error: whoever reads the output reads JSON or TOML of ours and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from hcpr_tune.errors import HcprTuneError

_own: TextIO | None = None


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
    """stdout, and what `stream` is, as an `Outlet` for the length of the block; stderr is always a forgiving one, since nobody could be told.

    As a decorator, `forgiving`, it is for work that takes longer than its telling: a reader that goes away, or a log on a full disk, does not end it.
    """
    global _own
    before, own_before = (sys.stdout, sys.stderr), _own
    out, err = Outlet(unwrapped(stream()), forgiving), Outlet(unwrapped(sys.stderr), forgiving=True)
    sys.stderr = cast(TextIO, err)
    if _own is None:
        sys.stdout = cast(TextIO, out)
    else:
        _own, sys.stdout = cast(TextIO, out), sys.stderr
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
        (sys.stdout, sys.stderr), _own = before, own_before


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
        there = getattr(sys, name)
        if getattr(there, "errors", "") == "strict" and hasattr(there, "reconfigure"):
            # A locale without a character, or a name that is no text, is no reason to say nothing.
            there.reconfigure(errors="backslashreplace")


def stream() -> TextIO:
    """Where this program prints its results."""
    return sys.stdout if _own is None else _own


class Current:
    """`stream` as it is at the moment of each call, for what holds on to a file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(stream(), name)


def is_kept() -> bool:
    """Whether a command is running whose output is kept for it."""
    return _own is not None


def say(text: object = "") -> None:
    """Print a line of ours."""
    print(text, file=stream())


@contextmanager
def kept_for_us(to_the_end: bool = False) -> Iterator[None]:
    """For as long as the block lasts `stream` is what standard output was, and all that others print there goes to standard error.

    `to_the_end`: the rest of the process too, which says nothing more: a thread that lives on or a model's last words do not get there either.
    Raises `Unheard` where the last of it cannot be written.
    """
    global _own
    if _own is not None or sys.stdout is None or sys.stderr is None:
        yield  # within another block, or somebody closed one of the two
        return
    before, duplicate = sys.stdout, _duplicate()
    if duplicate is None:
        _own = before  # a notebook's, or a test's: no file of the system stands behind it
    else:
        own = io.TextIOWrapper(
            # Text that the terminal's encoding has no letters for is escaped: nothing is lost for a file's name.
            io.BufferedWriter(io.FileIO(duplicate, "w")),
            encoding=before.encoding,
            errors="backslashreplace",
            line_buffering=os.isatty(duplicate),
        )
        _own = cast(TextIO, Outlet(own, forgiving=False))
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        _give_back(before, duplicate, to_the_end)


def _duplicate() -> int | None:
    """A descriptor of ours for what standard output was, with standard error in its place; None where it is none of the system's."""
    try:
        if sys.stdout.fileno() != 1:
            return None
        sys.stdout.flush()
        duplicate = os.dup(1)
    except (OSError, ValueError, AttributeError):
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(duplicate)
        return None
    return duplicate


def _give_back(before: TextIO, duplicate: int | None, to_the_end: bool) -> None:
    global _own
    own, _own = _own, None
    if duplicate is None or own is None:
        sys.stdout = before
        return
    if not to_the_end:
        sys.stdout = before
        os.dup2(duplicate, 1)
    try:
        own.flush()
    finally:
        with suppress(OSError):
            own.close()
