"""Standard output, kept for what this program says.

A user's model may print, so may Ray's threads and any library, from Python or from C. While a command runs, all of that goes to
standard error: whoever reads the output reads JSON or TOML of ours and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_own: TextIO | None = None


def stream() -> TextIO:
    """Where this program prints its results."""
    return sys.stdout if _own is None else _own


class Current:
    """`stream` as it is at the moment of each call, for what holds on to a file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(stream(), name)


@contextmanager
def spoken_through(outlet: TextIO) -> Iterator[None]:
    """Print through `outlet`, which wraps `stream`, for as long as the block lasts."""
    global _own
    if _own is None:
        before, sys.stdout = sys.stdout, outlet
        try:
            yield
        finally:
            sys.stdout = before
        return
    kept, _own = _own, outlet
    try:
        yield
    finally:
        _own = kept


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
    """
    global _own
    if _own is not None or sys.stdout is None or sys.stderr is None:
        yield  # within another block, or somebody closed one of the two
        return
    before, duplicate = sys.stdout, _duplicate()
    if duplicate is None:
        _own = before  # a notebook's, or a test's: no file of the system stands behind it
    else:
        _own = io.TextIOWrapper(
            # Text that the terminal's encoding has no letters for is escaped: nothing is lost for a file's name.
            io.BufferedWriter(io.FileIO(duplicate, "w")),
            encoding=before.encoding,
            errors="backslashreplace",
            line_buffering=os.isatty(duplicate),
        )
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
    except BrokenPipeError:
        pass  # nobody reads any more
    except OSError as error:
        with suppress(OSError):
            sys.stderr.write(f"hcpr_tune: the output could not be written: {error.strerror or error}\n")
    with suppress(OSError):
        own.close()
