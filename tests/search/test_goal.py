"""Orders and fronts, against the plain definition."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import given

from hcpr_tune.search.spec.objectives import Goal, fronts

BOTH = ("robust_accuracy", "clean_accuracy")


@dataclass
class Point:
    number: int
    scores: dict[int, dict[str, float]]


def points(*pairs):
    return [
        Point(n, {3: {"robust_accuracy": robust, "clean_accuracy": clean}}) for n, (robust, clean) in enumerate(pairs)
    ]


def plain_fronts(pairs):
    """Peel off what nothing else dominates, again and again."""
    left, ranks, rank = set(range(len(pairs))), [0] * len(pairs), 0
    while left:
        front = [i for i in left if not any(dominates(pairs[j], pairs[i]) for j in left)]
        for index in front:
            ranks[index] = rank
        left -= set(front)
        rank += 1
    return ranks


def dominates(one, other):
    return one[0] >= other[0] and one[1] >= other[1] and one != other


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_fronts_are_those_of_the_definition(pairs):
    assert fronts(pairs) == plain_fronts(pairs)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_an_order_never_puts_the_dominated_one_first(pairs):
    ordered = [trial.number for trial in Goal(BOTH).order(points(*pairs), 3)]
    assert sorted(ordered) == list(range(len(pairs)))
    places = {number: place for place, number in enumerate(ordered)}
    for one in places:
        for other in places:
            if dominates(pairs[one], pairs[other]):
                assert places[one] < places[other]


def test_within_a_front_the_ends_and_then_the_loneliest_come_first():
    ordered = Goal(BOTH).order(points((0.9, 0.1), (0.8, 0.2), (0.79, 0.21), (0.5, 0.5), (0.1, 0.9)), 3)
    assert [trial.number for trial in ordered] == [0, 4, 3, 2, 1]


def test_a_floor_orders_by_shortfall_and_then_by_value():
    goal = Goal(floors={"clean_accuracy": 0.8})
    ordered = goal.order(points((0.9, 0.1), (0.8, 0.7), (0.3, 0.8), (0.4, 0.9)), 3)
    assert [trial.number for trial in ordered] == [3, 2, 1, 0]


def test_a_trial_is_judged_by_its_best_rung_that_reaches_the_floor():
    scores = {
        3: {"robust_accuracy": 0.3, "clean_accuracy": 0.9},
        9: {"robust_accuracy": 0.5, "clean_accuracy": 0.85},
        27: {"robust_accuracy": 0.6, "clean_accuracy": 0.7},
    }
    assert Goal().best_rung(scores) == 27
    assert Goal(floors={"clean_accuracy": 0.8}).best_rung(scores) == 9
    assert Goal(floors={"clean_accuracy": 0.95}).best_rung(scores) == 3
    assert Goal().best_rung({}) == 0
