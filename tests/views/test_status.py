"""How a study stands, as plain values: for every kind of study, and as JSON has it."""

from __future__ import annotations

import json

import pytest

from hcpr_tune.search.storage.lease import LeaseHolder
from hcpr_tune.views.status import (
    MOST_LEADERS,
    STATES,
    counts,
    done,
    expected_epochs,
    seconds_left,
    state_of,
    study_status,
)
from hcpr_tune.views.summary import gain_points
from hcpr_tune.views.terminal.layout import time_line
from tests.search.histories import begin, epoch, history_of, job, lost, reached, suggested
from tests.views.kinds import KINDS, kind
from tests.written import folded

HOLDER = LeaseHolder("node-7", 12, "machine", "began", "token", 0.0)


@pytest.fixture
def few():
    return history_of(suggested(0), *reached(0, 0, 3, 500), suggested(1), *reached(1, 0, 3, 600), job(1, 3, 9))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("alive", [True, False])
def test_every_kind_of_study_is_json_and_adds_up(name, alive):
    study, events = kind(name)
    history = folded(study, events)
    plain = json.loads(json.dumps(study_status(study, history, alive), allow_nan=False))
    count = plain["trials"]
    assert sum(count.values()) - count["suggested"] - count["budget"] == count["suggested"] == len(history.trials)
    assert len(plain["running"]) == count["running"] == (len(history.running) if alive else 0)
    assert sum(plain["stopped_at"].values()) == count["stopped"]
    assert plain["gain_points"] == gain_points(history)
    best = history.best_trial
    assert (plain["best"] or {}).get("trial") == (None if best is None else best.number)
    assert [leader["trial"] for leader in plain["leaders"][:MOST_LEADERS]] == [
        trial.number for trial in history.ranked()[:MOST_LEADERS]
    ]
    assert len(plain["leaders"]) <= MOST_LEADERS + 1


def test_the_names_are_those_of_the_metrics():
    study, events = kind("one trial")
    leader = study_status(study, folded(study, events))["leaders"][0]
    assert leader["robust_accuracy_validation"].keys() == {"share", "low_95", "high_95", "count", "total"}
    assert leader["params"].keys() <= study.space.keys()
    assert (leader["rank"], leader["source"], leader["status"]) == (1, "published", "completed")


def test_the_published_recipe_is_among_the_leaders_wherever_it_is():
    study, events = kind("500 trials")
    last = study_status(study, folded(study, events))["leaders"][-1]
    assert last["trial"] == 0
    assert last["rank"] > MOST_LEADERS


def test_what_runs_where_is_known_from_its_first_epoch_on(small_study, few):
    def where():
        return study_status(small_study, few)["running"]

    few.apply(epoch(1, 3, 600, time=1.0) | {"worker": "10.0.0.2:17"})  # of the job before, repeated
    few.apply(job(1, 3, 9, time=1.5))
    assert where() == [{"trial": 1, "epoch": 3, "target": 9, "worker": None}]
    few.apply(epoch(1, 4, time=2.0) | {"worker": "10.0.0.3:18"})
    assert where() == [{"trial": 1, "epoch": 4, "target": 9, "worker": "10.0.0.3:18"}]


def test_of_a_search_that_is_over_nothing_runs(small_study, few):
    assert study_status(small_study, few)["best"]["status"] == "running"
    over = study_status(small_study, few, alive=False)
    assert over["best"]["status"] == over["leaders"][0]["status"] == "interrupted"
    assert (over["trials"]["running"], over["trials"]["interrupted"]) == (0, 1)


def test_what_was_taken_does_not_change_any_more(small_study, few):
    before = study_status(small_study, few)
    kept = json.dumps(before)
    for event in (suggested(2), *reached(2, 0, 3, 700), {"event": "loss", "time": 9.0, "what": "a checkpoint"}):
        few.apply(event)
    assert json.dumps(before) == kept


def ended(*events, reason="finished"):
    return history_of(*events, {"event": "end", "time": 9.0, "reason": reason})


def test_states(small_study):
    study, nothing = small_study, folded(small_study, [])
    assert state_of(study, nothing, None) == "not begun"
    assert state_of(study, nothing, HOLDER) == "running"
    assert state_of(study, history_of(suggested(0)), None) == "died"
    for reason in ("interrupted", "failed", "storage"):
        assert state_of(study, ended(suggested(0), reason=reason), None) == reason
    assert state_of(study, ended(), None) == "unfinished"
    hopeless = [event for number in range(5) for event in (suggested(number), *lost(number, 0, 1))]
    assert state_of(study, ended(*hopeless), None) == "given up"
    done_with = [event for number in range(4) for event in (suggested(number), *reached(number, 0, 4, 500))]
    whole = folded(study, [begin(), *done_with, {"event": "end", "time": 9.0, "reason": "finished"}])
    assert state_of(study, whole, None) == "finished"
    assert {"not begun", "running", "died", "unfinished", "given up", "finished", "interrupted"} <= STATES.keys()


def test_a_search_whose_time_is_up_is_over(space_file):
    from hcpr_tune.search.spec.study_file import read_study

    study = read_study(space_file, [("budget.hours", 0.001)])
    assert state_of(study, ended(suggested(0), *reached(0, 0, 1, 500)), None) == "out of time"


def test_counts_add_up(small_study, few):
    few.apply(suggested(2))
    for event in lost(2, 0, 3):
        few.apply(event)
    count = counts(small_study, few)
    assert (count["running"], count["stopped"], count["diverged"]) == (1, 1, 1)
    assert done(count) == 2


def test_time_left_is_unknown_at_first_and_nothing_at_the_end(small_study):
    assert seconds_left(small_study, history_of(suggested(0), last_epoch=4)) is None
    trials = [event for number in range(4) for event in (suggested(number), *reached(number, 0, 1, 500))]
    assert seconds_left(small_study, history_of(*trials, last_epoch=4)) == 0
    halfway = history_of(suggested(0), job(0, 0, 1, time=0.0), epoch(0, 1, 1, time=10.0), last_epoch=4)
    assert seconds_left(small_study, halfway) == pytest.approx(1.0 * (expected_epochs(small_study) - 1) / 2)


def drawn(study, history, alive=False):
    """What share of the bar is full, and whether it is drawn as finished."""
    bar = time_line(study_status(study, history, alive), 0.0, 100).columns[0]._cells[0]
    return bar.percentage_completed, bar.completed >= bar.total


def test_the_bar_of_a_stopped_search_is_full_only_where_nothing_is_left_to_do(small_study, space_file):
    from hcpr_tune.search.spec.study_file import read_study

    half = [suggested(0), *reached(0, 0, 1, 500), suggested(1), job(1, 0, 1)]
    died = history_of(*half, last_epoch=4)
    stopped = history_of(*half, {"event": "end", "time": 9.0, "reason": "interrupted"}, last_epoch=4)
    for history in (died, stopped):
        share, finished = drawn(small_study, history)
        assert 0 < share < 100
        assert not finished
    study = read_study(space_file, [("budget.trials", 4)])
    all_done = [event for number in range(4) for event in (suggested(number), *reached(number, 0, 4, 500))]
    whole = folded(study, [begin(), *all_done, {"event": "end", "time": 9.0, "reason": "finished"}])
    assert state_of(study, whole, None) == "finished"
    assert drawn(study, whole) == (100.0, True)
    nothing = history_of(last_epoch=4)
    assert drawn(small_study, nothing) == (0.0, False)
