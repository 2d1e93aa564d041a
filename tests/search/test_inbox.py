"""Requests to a running search: taken once, in order, and set aside where they make no sense."""

from __future__ import annotations

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.storage.inbox import Inbox, checked, clear_stops, post
from hcpr_tune.search.storage.object_store import FolderObjectStore
from tests.search.histories import history_of, lost, published, suggested


@pytest.fixture
def place(tmp_path):
    return FolderObjectStore(tmp_path)


@pytest.fixture
def history():
    return history_of(published(), suggested(1), *lost(1, 0, 3))


def test_requests_are_taken_once_and_in_order(small_study, history, place):
    post(place, {"kind": "enqueue", "params": {"hcpr.scale": 5}})
    post(place, {"kind": "kill", "trial": 0})
    published_values = params_of(small_study.recipe, small_study.space)
    taken = list(Inbox(place).take(small_study, history))
    assert len({name for _, name in taken}) == 2
    assert [request for request, _ in taken] == [
        {"kind": "enqueue", "params": published_values | {"hcpr.scale": 5.0}},
        {"kind": "kill", "trial": 0},
    ]
    assert list(Inbox(place).take(small_study, history)) == []


def test_a_request_stays_until_its_event_is_recorded_and_is_not_taken_twice(small_study, history, place):
    post(place, {"kind": "enqueue", "params": {}})
    next(Inbox(place).take(small_study, history))  # the driver dies before it is recorded
    request, name = next(Inbox(place).take(small_study, history))
    # It dies again, before the file is gone.
    history.apply({"event": "enqueue", "time": 0.0, "params": request["params"], "request": name})
    assert list(Inbox(place).take(small_study, history)) == []
    assert len(history.queue) == 1
    assert list((place.root / "inbox").iterdir()) == []


@pytest.mark.parametrize(
    "request_",
    [{"kind": "kill", "trial": 9}, {"kind": "enqueue", "params": {"hcpr.scale": 99.0}}, {"kind": "dance"}, {}, 3],
)
def test_nonsense_is_set_aside_and_does_not_stop_the_search(small_study, history, place, request_):
    post(place, request_)
    assert list(Inbox(place).take(small_study, history)) == []
    assert sorted(path.suffix for path in (place.root / "inbox").iterdir()) == [".reason", ".refused"]


def test_an_ended_trial_cannot_be_killed(small_study, history):
    with pytest.raises(InputError, match="trial 1 has ended already"):
        checked({"kind": "kill", "trial": 1}, small_study, history)


def test_a_stop_is_for_the_session_that_it_was_asked_of(small_study, history, place):
    post(place, {"kind": "stop"})
    ((request, _),) = Inbox(place).take(small_study, history)
    assert request["kind"] == "stop"
    post(place, {"kind": "stop"})
    post(place, {"kind": "kill", "trial": 0})
    clear_stops(place)
    assert [request["kind"] for request, _ in Inbox(place).take(small_study, history)] == ["kill"]
