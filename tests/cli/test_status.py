"""How one study stands, on a terminal of any width and for programs."""

from __future__ import annotations

import json
import re
import sys

import pytest

from hcpr_tune.cli import main as cli
from tests.screen import Terminal
from tests.views.kinds import KINDS, kind
from tests.written import written


def on_terminal(folder, columns, *arguments):
    """The lines of a command that has run on a terminal, and the same on one where nothing can be folded."""
    terminal = Terminal([sys.executable, "-m", "hcpr_tune", *arguments], folder, columns, 60)
    try:
        assert terminal.end(50) == 0, terminal.lines()
        return terminal.view(), terminal.view(wide=True)
    finally:
        terminal.close()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_study_is_shown_and_is_json(name, tmp_path, capsys):
    study, events = kind(name)
    written(tmp_path, "one", study, events)
    assert cli.main(["status", "one", "--storage", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"study        {tmp_path}/one"
    assert re.fullmatch(r"state        not running \([a-z ]+\)", lines[1])
    assert re.match(rf"go on        \S*hcpr_tune tune --resume one --storage {re.escape(str(tmp_path))}( |$)", lines[2])
    assert any(line.startswith(("gain         ", "gain so far  ")) for line in lines)
    assert cli.main(["status", "one", "--storage", str(tmp_path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["study"] == f"{tmp_path}/one"
    assert plain["state"] in ("not begun", "died", "unfinished", "finished")
    assert plain["holder"] is None
    assert plain["running"] == []
    assert plain["ledger"]["total"].keys() >= {"attack", "update", "evaluation", "idle"}
    assert plain["paths"]["record"] == f"{tmp_path}/one/record.jsonl"


@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_folded_or_broken_by_the_terminal(columns, tmp_path):
    study, events = kind("64 running")
    written(tmp_path / "results", "one", study, events)
    lines, as_wide = on_terminal(tmp_path, columns, "status", "one")
    assert lines == as_wide
    assert lines[1] == "400 of 500 trials: 0 running, 18 completed, 282 stopped, 64 interrupted, 17" + (
        " diverged, 19 failed" if columns == 200 else ""
    )
    leaders = [found for line in lines if (found := re.match(r" +(\d+)([ *]) [a-z]+ +\d+ (\d\d\.\d) % \(", line))]
    assert len(leaders) == 11
    assert [float(one[3]) for one in leaders] == sorted((float(one[3]) for one in leaders), reverse=True)
    assert [(one[1], one[2]) for one in leaders][-1] == ("0", "*")
    assert ("constant" in "\n".join(one.string for one in leaders)) == (columns == 200)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_list_fits_its_terminal(columns, tmp_path):
    for name in ("no trial", "one trial"):
        study, events = kind(name)
        written(tmp_path / "results", f"{name.replace(' ', '-')}-20261124-001851", study, events)
    terminal = Terminal([sys.executable, "-m", "hcpr_tune", "list"], tmp_path, columns, 24)
    try:
        assert terminal.end(50) == 0
        assert terminal.lines() == terminal.lines(wide=True)
        assert len(terminal.lines()) == 3
    finally:
        terminal.close()


def test_a_study_that_is_not_there_is_bad_input(tmp_path, capsys):
    assert cli.main(["status", "none", "--storage", str(tmp_path), "--json"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
