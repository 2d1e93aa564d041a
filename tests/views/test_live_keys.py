"""The live view of a search on a real terminal, without the search: its keys, and what Ctrl-C leaves behind."""

from __future__ import annotations

import sys

import pytest

from hcpr_tune.search.spec.study_file import find_space, read_study
from tests.screen import Terminal
from tests.views.recorded import recorded
from tests.written import written

PROGRAM = """
import sys, time
from hcpr_tune.execution.connection.host import interruptible
from hcpr_tune.search.storage.studies import reopen
from hcpr_tune.views.terminal.console import make_console
from hcpr_tune.views.terminal.live_view import LiveView

_, spec, history = reopen(".", "one")
try:
    with interruptible():
        view = LiveView(spec, make_console(), history)
        try:
            time.sleep(300)
        finally:
            view.close()
except KeyboardInterrupt:
    sys.exit("interrupted")
"""
SECONDS = 60
"""Against hangs."""


@pytest.fixture
def terminal(tmp_path):
    """Of 80 columns and 24 lines, with a search of the default space half-way."""
    study = read_study(find_space("default"))
    written(tmp_path, "one", study, recorded(study, 12, running=2))
    seen = Terminal([sys.executable, "-c", PROGRAM], tmp_path, 80, 24)
    yield seen
    seen.close()


def shows(*words):
    return lambda lines: all(any(word in line for line in lines) for word in words)


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_the_search_is_stopped_and_the_terminal_is_as_before(terminal, key):
    assert terminal.until(shows("q stop", "* published recipe", "2 running"), SECONDS)
    assert not terminal.is_as_usual
    terminal.type("s")
    assert terminal.until(shows("s sort: newest"), SECONDS)
    terminal.type("d\x1b[B ")
    assert terminal.until(shows("> [x] hcpr.kl_weight"), SECONDS)
    terminal.type("\r")
    assert terminal.until(shows("kl_weight", "d dimensions: 3 of 9"), SECONDS)
    assert terminal.lines() == terminal.lines(wide=True)
    terminal.type(key)
    assert terminal.end(SECONDS) == 1
    assert terminal.lines() == ["interrupted"]
    assert terminal.is_as_usual
