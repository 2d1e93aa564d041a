"""The account of the time adds up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.search.record.ledger import against_plan, audit, ledger, plan_plain
from hcpr_tune.search.scheduling.asha import AshaConfig
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.spec.settings import Foreseen
from hcpr_tune.search.storage.studies import audit_event
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, published, reached, suggested

RULES = AshaConfig((3, 9, 27), 9)


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


def planned(study, **values):
    return replace(study, settings=replace(study.settings, plan=Foreseen(**values)))


def test_without_a_plan_there_is_nothing_to_compare(small_study):
    assert against_plan(small_study, history_of(published())) == []
    assert plan_plain(small_study, history_of(published())) is None


def test_a_search_is_held_against_its_plan(small_study):
    study = planned(small_study, workers=4, hours=0.5, worker_hours=1.5, use=0.9, epochs=20, score=0.55)
    events = [published(), *reached(0, 0, 3, 500)]
    events = [event | {"time": time} for time, event in enumerate(events)]
    found = {name: (foreseen, actual) for name, foreseen, actual in against_plan(study, history_of(*events))}
    # Five seconds on two workers; one of them trained three epochs of a second each.
    assert found == {
        "workers": (4, 2),
        "wall_clock": (1800, 5),
        "worker_seconds": (5400, 4),
        "use": (0.9, pytest.approx(3 / 10)),
        "epochs": (20, 3),
        "score": (0.55, 0.5),
    }
    assert plan_plain(study, history_of(*events))["wall_clock"] == {"planned": 1800, "actual": 5}


def test_a_search_that_has_not_begun_is_held_against_its_plan_too(small_study):
    found = {name: rest for name, *rest in against_plan(planned(small_study, workers=4, hours=0.5), history_of())}
    assert found["use"] == [0.0, None]
    assert found["score"] == [None, None]
    assert found["workers"] == [4, 2]


def test_the_score_is_that_of_a_trial_that_reaches_the_floor(small_study):
    goal = Goal(floors={"clean_accuracy": 0.7})
    events = [published(), *reached(0, 0, 3, 500, clean=800), suggested(1), *reached(1, 0, 3, 600, clean=650)]
    study = planned(small_study, workers=1)
    scores = {name: actual for name, _, actual in against_plan(study, history_of(*events, goal=goal))}
    assert scores["score"] == 0.5
