"""What is waited for before a search begins: a line in place on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from hcpr_tune.views.search_progress import CHECKING, STARTING_RAY, STARTING_TRIALS, Phase
from hcpr_tune.views.terminal import phases
from hcpr_tune.views.terminal.phases import Phases, phase_words


class Said(io.StringIO):
    """What is printed; `again` waits for more."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Event()

    def flush(self) -> None:
        self._more.set()

    def again(self) -> str:
        assert self._more.wait(60)
        self._more.clear()
        return self.getvalue()


@pytest.fixture
def said():
    return Said()


def on_lines(said):
    return Phases(Console(file=said, width=80, soft_wrap=True))


def test_a_phase_is_told_at_once_with_how_long_it_usually_takes(said):
    told = on_lines(said)
    told.begin(STARTING_RAY)
    assert said.getvalue() == "starting Ray on this machine ... (usually 5 to 20 s)\n"
    told.begin(STARTING_TRIALS)
    told.end()
    assert said.getvalue().splitlines()[1:] == [
        "starting the first trials: workers import torch and read the data ... (usually 10 to 30 s)"
    ]


def test_where_nothing_is_redrawn_a_long_phase_is_told_again(said, monkeypatch):
    monkeypatch.setattr(phases, "AGAIN_SECONDS", 0.05)
    told = on_lines(said)
    told.begin(STARTING_RAY)
    while said.again().count("\n") < 3:
        pass
    told.end()
    assert set(said.getvalue().splitlines()) == {"starting Ray on this machine ... (usually 5 to 20 s)"}


def test_a_brief_phase_is_worth_a_line_only_if_it_lasts(said, monkeypatch):
    told = on_lines(said)
    told.begin(CHECKING)
    told.end()
    assert said.getvalue() == ""
    monkeypatch.setattr(phases, "BRIEF_SECONDS", 0.01)
    told.begin(CHECKING)
    assert said.again().startswith("checking the data and the model ...")
    told.end()


def test_steps_of_one_kind_are_not_a_line_each(said):
    told = on_lines(said)
    for number in range(5):
        told.begin(Phase(f"verdict: {number} models trained", repeated=True))
    told.end()
    assert said.getvalue() == "verdict: 0 models trained ...\n"


def test_on_a_terminal_it_is_one_line_in_place_that_goes_away(said):
    console = Console(file=said, width=60, height=24, force_terminal=True, legacy_windows=False)
    told = Phases(console, now=iter(range(1000)).__next__)
    told.begin(STARTING_RAY)
    told.begin(STARTING_TRIALS)
    console.print("a note")
    told.end()
    told.end()
    import pyte

    screen = pyte.Screen(60, 24)
    pyte.Stream(screen).feed(said.getvalue().replace("\n", "\r\n"))
    assert [line.rstrip() for line in screen.display if line.strip()] == ["a note"]
    assert not screen.cursor.hidden
    assert "starting the first trials" in said.getvalue()


def test_what_lasts_is_told_with_its_time():
    assert phase_words(Phase("waiting"), 0.0) == "waiting ..."
    assert phase_words(Phase("waiting", "5 s"), 61.0) == "waiting ... 1:01 (usually 5 s)"
    assert phase_words(Phase("a\x1b[2Jb"), 0.0) == "a?[2Jb ..."
