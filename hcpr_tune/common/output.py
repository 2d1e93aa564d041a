"""Keeps standard output for this program's own output, and handles an output that can no longer be written.

A user's model, Ray's threads and any library may print, from Python or from C. While a command runs, all of that goes
to standard error, so that standard output has nothing but our JSON or TOML.
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
    """The output of a command cannot be written. `closed`: its reader has closed the pipe, which is not an error."""

    def __init__(self, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        super().__init__(f"stdout cannot be written: {reason}; make space there, or write elsewhere")
        self.closed, self.reason = isinstance(cause, BrokenPipeError), reason


class Outlet:
    """stdout or stderr. A failed write raises `Unheard`, or is ignored if `forgiving`, when the work matters more.

    A plain `OSError` would look like one from writing the results.
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
                f"hcpr_tune: output is lost: stdout cannot be written ({self.trouble.reason}); the work continues",
                file=sys.stderr,
            )

    def drop(self) -> None:
        """Discard all output from now on, and what is buffered, which would raise when the interpreter exits."""
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a device
            os.dup2(nowhere.fileno(), self.stream.fileno())
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unwrapped(stream: Any) -> Any:
    """The stream behind an `Outlet`."""
    return stream.stream if isinstance(stream, Outlet) else stream


@contextmanager
def outlets(forgiving: bool) -> Iterator[None]:
    """Make stdout and `stream` an `Outlet` for the block; stderr is always forgiving, as there is no other output.

    As a decorator with `forgiving`, it is for long work that a closed pipe or a log on a full disk must not end.
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
    """Open stdin, stdout and stderr if closed (`>&-`): another file would get their number, and be printed to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        there = getattr(sys, name)
        if getattr(there, "errors", "") == "strict" and hasattr(there, "reconfigure"):
            # Escape what the locale cannot encode instead of failing.
            there.reconfigure(errors="backslashreplace")


def stream() -> TextIO:
    """Where this program prints its results."""
    return sys.stdout if _own is None else _own


class Current:
    """A proxy of the current `stream`, for code that keeps a reference to a file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(stream(), name)


def is_kept() -> bool:
    """Whether standard output is kept for a running command."""
    return _own is not None


def say(text: object = "") -> None:
    """Print a line to `stream`, at once: its reader may be a program that waits for it."""
    print(text, file=stream(), flush=True)


@contextmanager
def kept_for_us(to_the_end: bool = False) -> Iterator[None]:
    """For the block, `stream` is the real standard output, and what others print there goes to standard error.

    `to_the_end`: standard output stays redirected after the block, for threads and models that print while the process
    exits. Raises `Unheard` if the rest of the output cannot be written.
    """
    global _own
    if _own is not None or sys.stdout is None or sys.stderr is None:
        yield  # nested, or one of the two is closed
        return
    before, duplicate = sys.stdout, _duplicate()
    if duplicate is None:
        _own = before  # in a notebook or a test, which have no file descriptor
    else:
        own = io.TextIOWrapper(
            # Escape what the terminal cannot encode, such as odd file names.
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
    """A duplicate of descriptor 1, which is then redirected to standard error; None if stdout is not descriptor 1."""
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
