"""The lines of a search that nobody watches: `key=value` for grep, JSON for programs."""

from __future__ import annotations

import io
import json
import re
import threading

import pytest
from rich.console import Console

from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.views.terminal.event_log import (
    EPOCH_SECONDS,
    SILENT_SECONDS,
    JsonLines,
    PlainLines,
    result_news,
    start_news,
    waiting_line,
)
from tests.search.histories import epoch, history_of, job, lost, reached, suggested
from tests.views.kinds import KINDS, kind
from tests.written import folded, written


@pytest.fixture
def events(small_study):
    params = params_of(small_study.recipe, small_study.space)
    first = [suggested(0, params, "published"), *reached(0, 0, 1, 300), *reached(0, 1, 2, 400), *reached(0, 2, 4, 500)]
    return [
        *first,
        suggested(1, {**params, "hcpr.scale": 5.0}),
        *reached(1, 0, 1, 600),
        suggested(2, params),
        *lost(2, 0, 1),
    ]


def told(kind_of_lines, study, events, *, before=()):
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    history = history_of(*before, last_epoch=4)
    view = kind_of_lines(study, console, history)
    for event in events:
        if history.apply(event):
            view.on_event(event, history)
    view.close()
    return console.file.getvalue().splitlines()


def test_plain_lines_are_greppable(small_study, events):
    lines = told(PlainLines, small_study, events)
    assert len(lines) == 6
    assert re.match(
        r"trial=0 epoch=4 status=reached robust_accuracy_validation=0\.5000 clean_accuracy_validation=1\.0000 "
        r"best=0\.5000@trial0 ",
        lines[2],
    )
    assert "best=0.6000@trial1 gain=+10.0@epoch1 trials=2/4" in lines[3]
    assert 'trial=2 epoch=0 status=diverged reason="the loss is not finite"' in lines[4]
    assert "trials=3/4" in lines[4]
    assert lines[5] == 'alarm="trial 2 diverged: the loss is not finite"'


def test_epochs_are_told_before_the_first_rung_and_after_a_silence(small_study):
    seconds, console = [0.0], Console(file=io.StringIO(), width=80, soft_wrap=True)
    history = history_of(suggested(0), job(0, 0, 4), suggested(1), job(1, 0, 4), last_epoch=4)
    lines = PlainLines(small_study, console, history, now=lambda: seconds[0])

    def said(event, later=0.0):
        seconds[0] += later
        before = len(console.file.getvalue())
        history.apply(event)
        lines.on_event(event, history)
        return console.file.getvalue()[before:].splitlines()

    try:
        assert said(epoch(0, 1))[0].startswith(
            "trial=0 epoch=1/4 status=running trials=2/4 running=2 elapsed=0:00 left="
        )
        assert said(epoch(0, 2, 300)) == []
        assert said(epoch(1, 1)) == []
        assert len(said(epoch(1, 2), later=EPOCH_SECONDS)) == 1
        assert said(epoch(1, 3), later=EPOCH_SECONDS / 2) == []
    finally:
        lines.close()


def test_what_goes_on_is_told_where_nothing_is_reported(small_study):
    """Before the first epoch what is waited for, later what runs."""
    assert waiting_line(history_of(suggested(0), job(0, 0, 4))) == (
        'running=1 waiting="starting the first trials: workers import torch and read the data (usually 10 to 30 s)"'
    )
    history = history_of(suggested(0), job(0, 0, 4), epoch(0, 1), suggested(1), job(1, 0, 4))
    assert waiting_line(history) == "running=2 trial=1 epoch=0/4"
    seconds, said, heard = [0.0], io.StringIO(), threading.Event()

    def now():
        seconds[0] += SILENT_SECONDS  # each look at the clock is after a long silence
        return seconds[0]

    said.flush = heard.set
    lines = PlainLines(small_study, Console(file=said, width=80, soft_wrap=True), history, now)
    assert heard.wait(60)
    lines.close()
    assert re.match(r"running=2 trial=1 epoch=0/4 elapsed=\d+:\d\d\n", said.getvalue())


def test_nothing_in_a_line_steers_a_terminal_or_becomes_a_picture(small_study):
    end = lost(0, 0, 1)[1] | {"reason": "\x1b[2J:key: [red]no[/red]\nnext"}
    lines = told(PlainLines, small_study, [suggested(0), lost(0, 0, 1)[0], end])
    assert 'reason="?[2J:key: [red]no[/red]?next" best=none gain=none' in lines[0]
    assert lines[1].startswith('alarm="trial 0 diverged: ?[2J:key:')


def test_an_alarm_is_told_once_and_not_again_for_the_next_trial(small_study, events):
    more = [
        event | {"reason": f"the loss is not finite in epoch {number}"} if event["event"] == "job_end" else event
        for number in (3, 4, 5)
        for event in (suggested(number), *lost(number, 0, 1))
    ]
    alarms = [line for line in told(PlainLines, small_study, [*events, *more]) if line.startswith("alarm")]
    assert alarms == [
        'alarm="trial 2 diverged: the loss is not finite"',
        'alarm="trial 3 diverged: the loss is not finite in epoch 3"',
    ]
    assert not any(
        line.startswith("alarm") for line in told(PlainLines, small_study, more[3:], before=[*events, *more[:3]])
    )


def test_json_lines_say_the_same(small_study, events):
    news = [json.loads(line) for line in told(JsonLines, small_study, events)]
    assert [one["news"] for one in news] == ["rung", "rung", "rung", "rung", "trial", "alarm"]
    rung = news[3]
    assert (rung["trial"], rung["epoch"], rung["status"]) == (1, 1, "reached")
    assert rung["robust_accuracy_validation"]["share"] == 0.6
    assert rung["robust_accuracy_validation"]["low_95"] < 0.6 < rung["robust_accuracy_validation"]["high_95"]
    assert rung["best"]["trial"] == 1
    assert rung["gain_points"] == pytest.approx(10.0)
    assert (news[4]["status"], news[4]["reason"]) == ("diverged", "the loss is not finite")
    assert news[5]["trials"] == [2]


def test_losses_and_workers_are_news(small_study):
    events = [{"event": "loss", "time": 1.0, "what": "a\nb"}, {"event": "workers", "time": 2.0, "workers": 5}]
    assert told(PlainLines, small_study, events) == ['loss="a?b"', "workers=5"]
    assert [json.loads(line) for line in told(JsonLines, small_study, events)] == [
        {"news": "loss", "time": 1.0, "what": "a\nb"},
        {"news": "workers", "time": 2.0, "workers": 5},
    ]


@pytest.mark.parametrize("name", KINDS)
def test_the_first_and_the_last_object_exist_for_every_kind_of_study(name, tmp_path):
    study, events = kind(name)
    history, folder = folded(study, events), StudyFolder(tmp_path / "one")
    start = json.loads(json.dumps(start_news(StoredStudy(folder, study, history), 2, 0, ""), allow_nan=False))
    assert (start["news"], start["dashboard"], start["checkpoint_bytes"]) == ("start", None, None)
    assert (start["resumed_with"] is None) == (not history.trials)
    result = json.loads(
        json.dumps(result_news(StoredStudy(folder, study, history), 1, interrupted=True), allow_nan=False)
    )
    assert (result["news"], result["exit_code"], result["exit_reason"]) == ("result", 1, "interrupted")
    assert result["ledger"]["total"]["attack"] >= 0


def test_the_result_names_the_files_that_are_there(tmp_path):
    study, events = kind("one trial")
    one = written(tmp_path, "one", study, events)
    (one.folder.best).mkdir()
    (one.folder.best / "recipe.toml").write_text("")
    result = result_news(StoredStudy(one.folder, study, folded(study, events)), 0)
    assert result["exit_reason"] == "unfinished"
    assert result["paths"]["best_recipe"] == str(tmp_path / "one" / "best" / "recipe.toml")
    assert result["paths"]["best_weights"] is None
    assert result["best"]["trial"] == result["published"]["trial"] == 0
