"""Single keys from the terminal, read by a thread; the terminal's settings are given back however the process ends.

Keys are read only where standard input is a terminal and this process is in its foreground: a process in the background
that reads from its terminal, or changes its settings, is stopped by the system.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

LOOK_EVERY = 0.25
"""Seconds between two looks whether the process is in the foreground."""
UP, DOWN, ENTER, SPACE = "up", "down", "enter", "space"
ESCAPED = {b"\x1b[A": UP, b"\x1b[B": DOWN, b"\x1bOA": UP, b"\x1bOB": DOWN}
PLAIN = {"\r": ENTER, "\n": ENTER, " ": SPACE, "k": UP, "j": DOWN}
SHOW_CURSOR = b"\x1b[?25h"

_open: list[Keyboard] = []


def keys_of(data: bytes) -> Iterator[str]:
    """The keys in what was read: letters, and `UP`, `DOWN`, `ENTER`, `SPACE`. Other sequences are left out."""
    place = 0
    while place < len(data):
        if data[place] == 0x1B:
            sequence = data[place : place + 3]
            if sequence in ESCAPED:
                yield ESCAPED[sequence]
            place += max(1, len(sequence))
            continue
        letter = data[place : place + 1].decode("ascii", "replace")
        if letter in PLAIN or letter.isprintable():
            yield PLAIN.get(letter, letter)
        place += 1


def is_foreground(terminal: int) -> bool:
    """Whether this process is in the foreground of its controlling terminal, which is `terminal`."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False


def keys_can_be_read() -> bool:
    """Whether standard input is a terminal with this process in its foreground."""
    try:
        return sys.stdin.isatty() and is_foreground(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return False


def give_back() -> None:
    """Give back the terminal's settings now, for good: the process is about to end, perhaps at once."""
    for keyboard in list(_open):
        keyboard.end()
        with suppress(OSError):
            os.write(keyboard.terminal, SHOW_CURSOR)


atexit.register(give_back)


class Keyboard:
    """Calls `pressed` with each key, on a thread of its own, until `close`."""

    def __init__(self, pressed: Callable[[str], None], terminal: int | None = None) -> None:
        """`terminal`: its file descriptor (default: standard input)."""
        self.terminal = sys.stdin.fileno() if terminal is None else terminal
        self._pressed = pressed
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._before: list[Any] | None = None
        """The terminal's settings while ours are in place."""
        self._ended = self._suspended = False
        self._handler: Any = None
        self._wake_end, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        _open.append(self)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            self._handler = signal.signal(signal.SIGTSTP, self._suspend)
        self._take()
        self._thread.start()

    def end(self) -> None:
        """Read no more keys, and give back the terminal's settings."""
        self._ended = True
        self._give_back()

    def close(self) -> None:
        """The same, and wait for the thread."""
        self.end()
        if self not in _open:
            return
        _open.remove(self)
        if self._handler is not None:
            signal.signal(signal.SIGTSTP, self._handler)
        os.write(self._wake, b".")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        os.close(self._wake)
        os.close(self._wake_end)

    def _take(self) -> None:
        """Single keys, without echo; Ctrl-C and Ctrl-Z stay what they are."""
        with self._lock, stopped_by_nothing(), suppress(termios.error, OSError):
            if self._ended or self._suspended or self._before is not None or not is_foreground(self.terminal):
                return
            self._before = before = termios.tcgetattr(self.terminal)
            tty.setcbreak(self.terminal, termios.TCSANOW)
            if self._ended or self._suspended:  # a signal came in between
                self._before = None
                termios.tcsetattr(self.terminal, termios.TCSANOW, before)

    def _give_back(self) -> None:
        with self._lock, stopped_by_nothing(), suppress(termios.error, OSError):
            before, self._before = self._before, None
            if before is not None:
                termios.tcsetattr(self.terminal, termios.TCSANOW, before)

    def _suspend(self, number: int, frame: Any) -> None:
        """Ctrl-Z: the shell gets its terminal as it was; the thread takes it again in the foreground."""
        self._suspended = True
        self._give_back()
        with suppress(OSError):
            os.write(self.terminal, SHOW_CURSOR)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._suspended = False

    def _read(self) -> None:
        with stopped_by_nothing():
            while not self._ended:
                self._take()
                if not is_foreground(self.terminal):
                    select.select([self._wake_end], [], [], LOOK_EVERY)
                    continue
                ready, _, _ = select.select([self.terminal, self._wake_end], [], [], LOOK_EVERY)
                if self.terminal not in ready or self._ended:
                    continue
                try:
                    data = os.read(self.terminal, 64)
                except OSError:  # it has just gone to the background, or the terminal is gone
                    data = b""
                if not data:
                    select.select([self._wake_end], [], [], LOOK_EVERY)
                for key in keys_of(data):
                    if not self._ended:
                        self._pressed(key)


@contextmanager
def stopped_by_nothing() -> Iterator[None]:
    """For this thread, the system's stop signals for processes in the background are blocked: calls fail instead."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN, signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
