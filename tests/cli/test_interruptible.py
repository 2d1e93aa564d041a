"""What ends a search from outside: a signal of the system, a closed terminal, Ctrl-C."""

from __future__ import annotations

import os
import signal

import pytest

from hcpr_tune.execution.connection.host import interruptible

NAMES = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """As they were, after each test; before it as in a terminal, whatever the tests were started by (nohup ignores
    SIGHUP).
    """
    before = {name: signal.getsignal(name) for name in NAMES}
    for name in NAMES:
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_ends_the_block_as_ctrl_c_does(name):
    before = signal.getsignal(name)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), name)
        signal.pause()
    assert signal.getsignal(name) == before


def test_a_closed_terminal_says_so_twice_and_the_search_still_ends_in_order():
    written = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            written.append("everything")
    assert written


def test_nohup_is_obeyed():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
