"""A terminal of any size for a command, and its contents: its own screen, and one so wide that nothing is folded."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

WIDE = 500


def own_terminal() -> None:
    """In the child: its standard input is the terminal that it is in the foreground of."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """Runs `command` on a pseudo-terminal. `read` takes what it has printed meanwhile."""

    def __init__(self, command: list[str], folder: Path, columns: int, rows: int) -> None:
        self.columns = columns
        self._screens = {width: pyte.Screen(width, rows) for width in (columns, WIDE)}
        self._streams = [pyte.ByteStream(screen) for screen in self._screens.values()]
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, (rows, columns))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # The programs beside Python are called by their names.
            env=environment | {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(slave)

    def type(self, keys: str) -> None:
        """What a person types."""
        os.write(self._master, keys.encode())

    @property
    def is_as_usual(self) -> bool:
        """Whether the terminal echoes what is typed and hands it over line by line, and its cursor is seen."""
        modes = termios.tcgetattr(self._master)[3]
        hidden = self._screens[self.columns].cursor.hidden
        return bool(modes & termios.ECHO) and bool(modes & termios.ICANON) and not hidden

    def read(self, seconds: float = 0.2) -> bool:
        """What comes within so many seconds; False at its end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # what Linux says where the other side is closed
            data = b""
        for stream in self._streams:
            stream.feed(data)
        return bool(data)

    def until(self, wanted: Callable[[list[str]], bool], seconds: float) -> bool:
        """Read until the screen is as wanted; False where the command ends before that."""
        deadline = time.monotonic() + seconds
        while not wanted(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            if not self.read():
                return wanted(self.lines())
        return True

    def end(self, seconds: float) -> int:
        """Read to the end; the exit code."""
        self.until(lambda lines: False, seconds)
        return self.process.wait(seconds)

    def lines(self, wide: bool = False) -> list[str]:
        """What stands on the screen, without what is blank at the end of a line and below."""
        return (
            "\n".join(line.rstrip() for line in self._screens[WIDE if wide else self.columns].display)
            .rstrip()
            .split("\n")
        )

    def view(self, wide: bool = False) -> list[str]:
        """The live view and what is below it."""
        lines = self.lines(wide)
        begins = next((place for place, line in enumerate(lines) if "elapsed " in line), len(lines))
        return lines[begins:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
