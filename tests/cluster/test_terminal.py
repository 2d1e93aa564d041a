"""Real searches as they are seen: on terminals of two sizes, and by a program."""

from __future__ import annotations

import json
import re
import sys

import pytest

from hcpr_tune.search.record.record import read_history
from tests.cluster.test_search import in_folder, search
from tests.conftest import ROOT, SLOW_SPACE
from tests.screen import Terminal

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), pytest.param(200, 50, marks=pytest.mark.long)])
def test_a_search_on_a_terminal(columns, rows, tmp_path):
    """It is stopped by a key, and goes on by the command that it then prints."""
    in_folder(tmp_path, SLOW_SPACE)
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--space", "small.toml", "--name", "seen"]
    go_on = stopped_by_a_key([*command, "--trials", "6", "--dashboard-host", "none"], tmp_path, columns, rows)
    terminal = Terminal(["sh", "-c", go_on], tmp_path, columns, rows)
    frames: list[list[str]] = []
    try:
        while terminal.read(1.0):
            # The same bytes on a terminal where nothing can be folded.
            assert terminal.lines() == terminal.lines(wide=True)
            frames.append(terminal.view())
        assert terminal.process.wait(60) == 0, terminal.lines()
        end = terminal.lines()
        assert terminal.is_as_usual
    finally:
        terminal.close()
    text = "\n".join(max(frames, key=len))
    assert re.search(r"elapsed \d:\d\d, about \d:\d\d left", text)
    assert re.search(r"^\d of 6 trials: \d running", text, re.MULTILINE)
    assert re.search(
        r"^ +hcpr\. +pace\.\ntrial  state +epoch robust accuracy +at +clean +scale +shape$", text, re.MULTILINE
    )
    assert re.search(r"^    0\* [a-z]+ ", text, re.MULTILINE)
    assert any(re.search(r"^running +trial \d +epoch \d of \d +[\d.]+:\d+$", line) for one in frames for line in one)
    check_the_answer(end, history_in(tmp_path, "seen"))


def stopped_by_a_key(command, folder, columns, rows):
    """Says at once what it does, and what it waits for; returns the command to go on with after `q`."""
    terminal = Terminal(command, folder, columns, rows)
    try:
        assert terminal.until(lambda lines: any("starting Ray on this machine ..." in line for line in lines), 120)
        assert "budget       6 trials, rungs at epochs 1, 2, 4" in terminal.lines()
        assert terminal.until(lambda lines: any("starting the first trials" in line for line in lines), 120)
        assert terminal.until(lambda lines: any(re.search(r"epoch [1-9] of ", line) for line in lines), 120)
        assert not terminal.is_as_usual
        terminal.type("s")
        assert terminal.until(lambda lines: any("s sort: newest" in line for line in lines), 120)
        terminal.type("q")
        assert terminal.end(120) == 130
        assert terminal.is_as_usual
        (line,) = (line for line in terminal.lines(wide=True) if line.startswith("hcpr_tune: interrupted; "))
        return line.partition("continue with: ")[2]
    finally:
        terminal.close()


def check_the_answer(end, history):
    """The view is gone, and the answer stands there, line by line."""
    assert not any(" left" in line and "elapsed" in line for line in end)
    begins = next(place for place, line in enumerate(end) if "robust accuracy (95 %)" in line)
    best, published = history.ranked()[0], history.trials[0]
    row = r" +{} +{} +{:.1f} % \(\d+\.\d to \d+\.\d\) +\d+\.\d % \(\d+\.\d to \d+\.\d\)"
    for line, name, trial in zip(end[begins + 1 :], ("best", "published"), (best, published), strict=False):
        assert re.fullmatch(name + row.format(trial.number, trial.best_rung, 100 * trial.score), line)
    assert sum(line.startswith("train again  ") for line in end) == 1


def history_in(folder, name):
    return read_history(folder / "results" / name / "record.jsonl", 4)


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_search_for_a_program(tmp_path):
    done = search(in_folder(tmp_path), "--space", "small.toml", "--name", "one", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    news = objects(done.stdout)
    start, result = news[0], news[-1]
    assert [start["news"], result["news"]] == ["start", "result"]
    assert start["study"] == start["tensorboard"] == "results/one"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", start["dashboard"])
    rungs = [one for one in news if one["news"] == "rung"]
    assert {one["trial"] for one in rungs} == {0, 1, 2, 3}
    assert all(re.fullmatch(r"[\d.]+:\d+", one["worker"]) for one in rungs)
    assert (result["exit_code"], result["exit_reason"]) == (0, "finished")
    best = history_in(tmp_path, "one").ranked()[0]
    assert result["best"]["trial"] == rungs[-1]["best"]["trial"] == best.number
    assert result["best"]["robust_accuracy_validation"]["share"] == best.score
    # This search ended without a verdict.
    assert {name for name, path in result["paths"].items() if path is None} == {
        "verdict",
        "verdict_json",
        "verdict_weights",
    }
    assert result["verdict"] is None
    assert all((tmp_path / path).exists() for path in result["paths"].values() if path is not None)
