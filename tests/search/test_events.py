"""Events: each field is written once, with its type and its bounds, and every kind of event can be folded."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Literal, NotRequired, TypedDict, get_args, get_type_hints

import pytest

from hcpr_tune.common.schema import Maybe, Number, Row, Table, Text, Truth, Wrong, table_of
from hcpr_tune.search.record.events.check import search_event, verdict_event
from hcpr_tune.search.record.events.fields import MaybeTrained, Trained
from hcpr_tune.search.record.events.search import SEARCH, Event, Request
from hcpr_tune.search.record.events.verdict import VERDICT, VerdictEvent
from hcpr_tune.search.record.history import History
from hcpr_tune.verdict.state import State
from tests.search.histories import begin, epoch, job_end


class Inner(TypedDict):
    share: Annotated[float, Number(0, 1)]


class Outer(Inner, total=False):
    kind: Literal["a", "b"]
    count: int
    done: bool
    names: list[str]
    by_name: dict[str, float]
    inner: Inner | None


class Last(Outer):
    needed: str
    optional: NotRequired[list[Inner]]


def test_a_schema_is_made_from_a_type():
    inner = Table({"share": Number(0, 1)})
    assert table_of(Last, leave_out=("count",)) == Table(
        {"share": Number(0, 1), "needed": Text()},
        {
            "kind": Text(("a", "b")),
            "done": Truth(),
            "names": Row(Text()),
            "by_name": Table(others=Number()),
            "inner": Maybe(inner),
            "optional": Row(inner),
        },
    )


@pytest.mark.parametrize(("union", "schema", "state"), [(Event, SEARCH, History), (VerdictEvent, VERDICT, State)])
def test_each_kind_of_event_has_a_type_a_schema_and_a_handler(union, schema, state):
    assert isinstance(union, UnionType)
    kinds = {get_args(get_type_hints(one)["event"])[0]: one for one in get_args(union)}
    assert kinds.keys() == schema.keys()
    for kind, one in kinds.items():
        fields = get_type_hints(one).keys() - {"event", "time"}
        assert fields == schema[kind].needed.keys() | schema[kind].known.keys()
        assert get_type_hints(getattr(state, f"_on_{kind}"))["event"] is one


def test_a_search_and_a_verdict_report_the_same_of_a_training():
    assert get_type_hints(Trained) == get_type_hints(MaybeTrained)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (begin() | {"workers": -1}, "workers must be a whole number at least 0 and at most 1000000, got -1"),
        (begin() | {"requests": [{"event": "epoch"}]}, r"requests\[0\].event must be one of loss, extend, .*audit"),
        (epoch(0, 3) | {"lr": "high"}, 'lr must be a finite number, got "high"'),
        (epoch(0, 3) | {"worker": 7}, "worker must be a text, got 7"),
        (job_end(0, 0, 3, "bored"), 'status must be one of reached, broken off, .*, got "bored"'),
        (
            {"event": "test_numbers", "time": 0, "number": 1, "numbers": {"a": 2}},
            "numbers.a must be .*at most 1, got 2",
        ),
        ({"event": "loss", "what": "x"}, "time must be a finite number"),
        ({"event": "dance", "time": 0}, "event must be one of begin, end"),
        (3, "an event must be a table, got 3"),
    ],
)
def test_what_does_not_fit_is_named_with_its_bounds(event, message):
    with pytest.raises(Wrong, match=message):
        search_event(event)


def test_an_event_of_a_search_is_none_of_a_verdict():
    event = epoch(0, 3)
    assert search_event(event) is event
    with pytest.raises(Wrong, match="model is missing"):
        verdict_event(event)


def test_requests_at_the_beginning_are_events_of_the_record():
    assert set(get_args(Request)) <= set(get_args(Event))
