"""Keys are read from a real terminal, and it is given back as it was, however the process ends."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from hcpr_tune.common.keyboard import DOWN, ENTER, SPACE, UP, keys_of
from tests.screen import Terminal

SAY = """
import os, signal, subprocess, sys, time
from hcpr_tune.common.keyboard import Keyboard, is_foreground, keys_can_be_read

def say(text):
    os.write(1, (text + chr(10)).encode())  # at once, whatever other threads print
"""
PROGRAM = """
from hcpr_tune.execution.connection.host import interruptible

assert keys_can_be_read()
try:
    with interruptible():
        keyboard = Keyboard(lambda key: say("key " + key))
        say(chr(27) + "[?25lready")
        {body}
        keyboard.close()
        say(chr(27) + "[?25h")
finally:
    say("cleaning up")
    {cleanup}
"""
SECONDS = 30
"""Against hangs."""


def test_what_is_read_becomes_keys():
    assert list(keys_of(b"qS \r\x1b[A\x1b[B\x1bOBjk\x1b[C\x00\xff")) == [
        *("q", "S", SPACE, ENTER, UP, DOWN, DOWN, DOWN, UP),
        "\ufffd",
    ]
    assert list(keys_of(b"\x1b")) == []


@pytest.fixture
def started(tmp_path):
    """Starts a program on a terminal of its own and waits until it has said something."""
    terminals = []

    def start(program, says="ready"):
        terminals.append(Terminal([sys.executable, "-c", SAY + program], tmp_path, 80, 24))
        assert terminals[-1].until(lambda lines: says in lines, SECONDS), terminals[-1].lines()
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_given_back_before_a_slow_end(started, number):
    """A second Ctrl-C would end the process at once: by then all is as it was."""
    terminal = started(PROGRAM.format(body="time.sleep(60)", cleanup="time.sleep(60)"))
    assert not terminal.is_as_usual
    terminal.type("x")
    assert terminal.until(lambda lines: "key x" in lines, SECONDS)
    assert "x" not in terminal.lines()
    os.kill(terminal.process.pid, number)
    assert terminal.until(lambda lines: "cleaning up" in lines, SECONDS)
    assert terminal.is_as_usual
    os.kill(terminal.process.pid, number)
    assert terminal.end(SECONDS) == -number
    assert terminal.is_as_usual


@pytest.mark.parametrize("body", ["raise SystemExit(3)", "1 / 0", "pass"])
def test_the_terminal_is_given_back_after_an_error(started, body):
    terminal = started(PROGRAM.format(body=body, cleanup="pass"))
    terminal.end(SECONDS)
    assert terminal.is_as_usual


INSIDE = """
while not is_foreground(0):
    time.sleep(0.01)
Keyboard(lambda key: say("key " + key))
say("ready")
time.sleep(60)
"""
SHELL = """
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {inside!r}], process_group=0)
os.tcsetpgrp(0, child.pid)
os.waitpid(child.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
say("stopped " + sys.stdin.readline().strip())
os.tcsetpgrp(0, child.pid)
child.send_signal(signal.SIGCONT)
child.wait()
"""


def test_ctrl_z_gives_the_terminal_back_and_the_foreground_takes_it_again(started):
    """As a shell sees it, which reads a line in between."""
    terminal = started(SHELL.format(inside=SAY + INSIDE))
    assert terminal.until(lambda lines: not terminal.is_as_usual, SECONDS)
    terminal.type("\x1a")
    assert terminal.until(lambda lines: terminal.is_as_usual, SECONDS)
    terminal.type("line\n")
    assert terminal.until(lambda lines: "stopped line" in lines and not terminal.is_as_usual, SECONDS)
    terminal.type("y")
    assert terminal.until(lambda lines: "key y" in lines, SECONDS)
    terminal.type("\x03")
    terminal.end(SECONDS)
    assert terminal.is_as_usual


BACKGROUND = """
assert not keys_can_be_read()
keyboard = Keyboard(lambda key: say("stolen " + key))
say("in the background")
time.sleep(1.0)
keyboard.close()
"""
FOREGROUND = """
child = subprocess.Popen([sys.executable, "-c", {inside!r}], process_group=0)
line = sys.stdin.readline()
say("line " + line.strip() + ", code " + str(child.wait()))
"""


def test_in_the_background_nothing_is_read_or_changed(started):
    """Nor is a process stopped that is in another group than the terminal's."""
    terminal = started(FOREGROUND.format(inside=SAY + BACKGROUND), "in the background")
    assert terminal.is_as_usual
    terminal.type("hello\n")
    assert terminal.until(lambda lines: "line hello, code 0" in lines, SECONDS)
    assert not any("stolen" in line for line in terminal.lines())
