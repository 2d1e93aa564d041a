"""The account of the time adds up."""

from __future__ import annotations

import pytest

from hcpr_tune.search.halving import Rules
from hcpr_tune.search.ledger import audit, ledger
from hcpr_tune.search.studies import audit_event
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, published, reached, suggested

RULES = Rules((3, 9, 27), 9)


def test_each_second_of_the_workers_has_its_place():
    events = [suggested(0), job(0, 0, 3, time=10.0)]
    events += [epoch(0, 1, time=15.0), epoch(0, 2, time=16.5), epoch(0, 3, 500, time=18.0), job_end(0, 0, 3, time=18.0)]
    account = ledger(history_of(*events), RULES)
    # An epoch is 0.5 s attack, 0.25 s update and 0.25 s evaluation; the first one was heard of after 5 s.
    assert account["trials"]["0"] == {
        "attack": 1.5,
        "update": 0.75,
        "evaluation": 0.75,
        "checkpoint": 0.0,
        "startup": 4.0,
        "other": 1.0,
        "held": 8.0,
    }
    assert account["wall_clock"] == 18.0
    assert account["total"]["idle"] == 2 * 18 - 8
    assert account["saved_by_halving"] == 24 * 1.0


def test_the_time_of_several_sessions_is_added_and_the_pause_between_is_not():
    history = history_of(
        suggested(0), job(0, 0, 3, time=5.0), epoch(0, 1, time=9.0), begin(time=100.0), job(0, 0, 3, time=101.0)
    )
    history.apply(epoch(0, 2, time=104.0))
    assert history.seconds == 9 + 4
    assert history.worker_seconds == 4 + 3


def test_an_audit_says_what_stopping_lost(small_study):
    events = [published(), *reached(0, 0, 3, 500), *reached(0, 3, 9, 500), *reached(0, 9, 27, 500)]
    for number, score in ((1, 400), (2, 300), (3, 200)):
        events += [suggested(number), *reached(number, 0, 3, score)]
    events += [suggested(4), *lost(4, 0, 3)]
    history = history_of(*events)
    event = audit_event(small_study, history, 2)
    assert event == audit_event(small_study, history, 2) | {"time": event["time"]}
    assert len(event["trials"]) == 2
    assert set(event["trials"]) <= {1, 2, 3}
    history.apply({"event": "audit", "time": 0.0, "trials": [1, 3]})
    for event in [*reached(1, 3, 9, 450), *reached(1, 9, 27, 520), *reached(3, 3, 9, 300), *reached(3, 9, 27, 400)]:
        history.apply(event)
    assert audit(history) == {
        "audited": [1, 3],
        "completed": 2,
        "better_than_the_best": 1,
        "most_points_lost": pytest.approx(2.0),
    }


def test_no_more_can_be_audited_than_were_stopped(small_study):
    from hcpr_tune.errors import InputError

    with pytest.raises(InputError, match="--audit must be at most the 0 trials that were stopped early, got 3"):
        audit_event(small_study, history_of(published(), *reached(0, 0, 3, 500)), 3)
