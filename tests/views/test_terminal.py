"""What is printed: plain lines for programs, one view for people, and an answer that says what it is worth."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from hcpr_tune.search.space import params_of
from hcpr_tune.views.terminal import (
    PlainLines,
    clock,
    counts,
    expected_epochs,
    render,
    result_table,
    seconds_left,
    snapshot,
)
from tests.search.histories import epoch, history_of, job, lost, reached, suggested


def printed(thing, width=200):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(thing)
    return console.file.getvalue()


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


def test_plain_lines_are_greppable(small_study, events):
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    history = history_of(last_epoch=4)
    view = PlainLines(small_study, console)
    for event in events:
        if history.apply(event):
            view.on_event(event, history)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 5
    assert re.match(
        r"trial=0 epoch=4 status=reached robust_accuracy_validation=0\.5000 clean_accuracy_validation=1\.0000 best=0\.5000@trial0 ",
        lines[2],
    )
    assert "best=0.6000@trial1" in lines[3]
    assert 'trial=2 epoch=0 status=diverged reason="the loss is not finite"' in lines[4]
    assert "trials=3/4" in lines[4]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_view_shows_the_leaders_within_the_width(small_study, events, width):
    history = history_of(*events, suggested(3), job(3, 0, 1), last_epoch=4)
    text = printed(render(snapshot(small_study, history), since=1.0), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "4 of 4 trials: 1 running, 1 stopped early, 1 completed, 1 diverged" in text
    assert "60.0 % (56.9 to 63.0)" in text
    assert "published recipe" in text
    assert "trial 3 at epoch 0 of 1" in text
    assert text.index("60.0 %") < text.index("50.0 %")


def test_the_view_exists_before_anything_has_happened(small_study):
    text = printed(render(snapshot(small_study, history_of(last_epoch=4)), since=0.0))
    assert "0 of 4 trials: 0 running" in text
    assert "about ? left" in text


def test_the_answer_names_the_gain_and_that_it_is_optimistic(small_study, events):
    text = printed(result_table(small_study, history_of(*events, last_epoch=4)))
    assert re.search(r"best +1 +1 +60\.0 % \(56\.9 to 63\.0\)", text)
    assert re.search(r"published +0 +4 +50\.0 % \(46\.9 to 53\.1\)", text)
    assert "Gain over the published recipe: +10.0 points" in text
    assert "chosen from 2 trials by these very images" in text
    assert "optimistic" in text


def test_the_answer_is_plain_where_nothing_beat_the_published_recipe(small_study, events):
    text = printed(result_table(small_study, history_of(*events[:13], last_epoch=4)))
    assert "No trial beat the published recipe, which is trial 0 of the 1 that the best was chosen from" in text


def test_the_answer_warns_of_masked_gradients(small_study):
    events = [suggested(0), *reached(0, 0, 3, 500), *reached(0, 3, 9, 600), *reached(0, 9, 27, 700)]
    events[-2] = {**events[-2], "masking_validation": {"alarms": ["50 steps break 9.0 points more than 10 (above 3)"]}}
    assert "ALARM: the best model may mask its gradients: 50 steps break 9.0 points" in printed(
        result_table(small_study, history_of(*events))
    )


def test_the_answer_says_when_the_published_recipe_diverged(small_study):
    text = printed(
        result_table(small_study, history_of(suggested(0), *lost(0, 0, 3), suggested(1), *reached(1, 0, 3, 600)))
    )
    assert re.search(r"published +0 +- +diverged: the loss is not finite", text)
    assert "Gain" not in text


def test_counts_add_up(small_study, events):
    count = counts(small_study, history_of(*events, last_epoch=4))
    assert (
        sum(count[name] for name in ("running", "stopped", "interrupted", "completed", "diverged", "failed", "killed"))
        == 3
    )


def test_time_left_is_unknown_at_first_and_nothing_at_the_end(small_study, events):
    assert seconds_left(small_study, history_of(suggested(0), last_epoch=4)) is None
    params = params_of(small_study.recipe, small_study.space)
    done = history_of(*events, suggested(3, params), *reached(3, 0, 1, 1), last_epoch=4)
    assert seconds_left(small_study, done) == 0
    halfway = history_of(suggested(0), job(0, 0, 1, time=0.0), epoch(0, 1, 1, time=10.0), last_epoch=4)
    assert seconds_left(small_study, halfway) == pytest.approx(1.0 * (expected_epochs(small_study) - 1) / 2)


def test_clock():
    assert [clock(0), clock(61.9), clock(3601)] == ["0:00", "1:01", "1:00:01"]
