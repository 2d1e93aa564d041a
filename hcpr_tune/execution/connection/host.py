"""The process that calls us is left as it was: its environment variables, log levels, signal handlers and stderr."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from hcpr_tune.common.keyboard import give_back

LOGGERS = ("ray", "ray.tune", "ray.data", "ray.rllib", "ray.serve", "ray.train")
"""The loggers whose level Ray or we change."""


def restore(name: str, before: str | None) -> None:
    """Put an environment variable back as it was."""
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


@contextmanager
def borrowed(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs; afterwards they and the log levels are as before."""
    before = {name: os.environ.get(name) for name in environment}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            restore(name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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
        give_back()  # now: a second signal would leave no time for it
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


@contextmanager
def without_c_output() -> Iterator[None]:
    """Drop what compiled code writes to stderr while the block runs; Python's `sys.stderr` still goes where it went.

    Ray's client prints from C++ whatever level is asked for, until it is connected.
    """
    try:
        ours = sys.stderr.fileno() == 2
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # there is none, or it is closed
        yield
        return
    before = sys.stderr
    own = os.fdopen(kept, "w", 1, before.encoding or "utf-8", "backslashreplace")
    try:
        before.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        if ours:
            sys.stderr = own
        yield
    finally:
        if sys.stderr is own:
            sys.stderr = before
        os.dup2(kept, 2)
        with suppress(OSError):
            own.close()
