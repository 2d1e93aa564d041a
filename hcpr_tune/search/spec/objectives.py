"""What a study maximises: one accuracy, one with a floor under the other, or the Pareto front of both."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

OBJECTIVES = ("robust_accuracy", "clean_accuracy")


class Scored(Protocol):
    """Something with validation accuracies at some rungs: rung epoch -> objective -> share."""

    @property
    def number(self) -> int: ...

    @property
    def scores(self) -> Mapping[int, Mapping[str, float]]: ...


T = TypeVar("T", bound=Scored)


@dataclass(frozen=True)
class Goal:
    """What trials are compared by. A trial that misses one of the `floors` ranks behind all that do not."""

    objectives: tuple[str, ...] = ("robust_accuracy",)
    floors: Mapping[str, float] = field(default_factory=dict)

    def values(self, scores: Mapping[str, float]) -> tuple[float, ...]:
        """The objectives at one rung."""
        return tuple(scores[name] for name in self.objectives)

    def shortfall(self, scores: Mapping[str, float]) -> float:
        """Sum of the amounts by which floors are missed; 0 if all are reached."""
        return sum(max(0.0, floor - scores[name]) for name, floor in self.floors.items()) if self.floors else 0.0

    def best_rung(self, scores: Mapping[int, Mapping[str, float]]) -> int:
        """The epoch of a trial's best rung: least shortfall, then first objective, then the later rung. 0 for none."""
        return max(
            scores, key=lambda rung: (-self.shortfall(scores[rung]), scores[rung][self.objectives[0]], rung), default=0
        )

    def place(self, scores: Mapping[str, float]) -> tuple[float, float]:
        """The ascending sort key by the first objective: the shortfall, then minus the value."""
        return self.shortfall(scores), -scores[self.objectives[0]]

    def order(self, trials: Iterable[T], rung: Mapping[int, int] | int) -> list[T]:
        """Best first, by their scores at one rung, or at a rung per trial number.

        Trials that miss a floor come last, the smallest shortfall first. One objective orders by its value; several by
        non-dominated front, and within a front by crowding distance (NSGA-II; Deb et al., 2002). Ties go to the later
        rung, then to the older trial.
        """
        listed = list(trials)
        at = [rung if isinstance(rung, int) else rung[trial.number] for trial in listed]
        scores = [trial.scores[epoch] for trial, epoch in zip(listed, at, strict=True)]
        values = [self.values(one) for one in scores]
        places = [(-value[0],) for value in values] if len(self.objectives) == 1 else _places_by_front(values)
        keys = [
            (self.shortfall(one), *place, -epoch, trial.number)
            for one, place, epoch, trial in zip(scores, places, at, listed, strict=True)
        ]
        return [listed[index] for index in sorted(range(len(listed)), key=keys.__getitem__)]


def _places_by_front(values: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """(front, counted from 0, and minus the crowding distance) of each pair of values."""
    front_of = fronts([(value[0], value[1]) for value in values])
    members: dict[int, list[int]] = {}
    for index, front in enumerate(front_of):
        members.setdefault(front, []).append(index)
    crowding = [0.0] * len(values)
    for together in members.values():
        for objective in zip(*values, strict=True):
            along = sorted(together, key=objective.__getitem__)
            span = objective[along[-1]] - objective[along[0]]
            crowding[along[0]] = crowding[along[-1]] = math.inf
            for before, index, after in zip(along, along[1:], along[2:], strict=False):
                crowding[index] += (objective[after] - objective[before]) / span if span else 0.0
    return [(front, -room) for front, room in zip(front_of, crowding, strict=True)]


def fronts(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """The non-dominated rank of each pair, from 0, both values maximised.

    O(N log N): one sweep over falling first values.
    A pair joins the first front whose latest member does not dominate it: in this order, the first front whose highest
    second value is lower than its own (equal pairs share a front).
    """
    ranks = [0] * len(pairs)
    highest: list[float] = []  # minus the highest second value of each front, rising from front to front
    last: dict[tuple[float, float], int] = {}
    for index in sorted(range(len(pairs)), key=lambda index: (-pairs[index][0], -pairs[index][1])):
        pair = pairs[index]
        if pair in last:
            ranks[index] = last[pair]
            continue
        rank = bisect_right(highest, -pair[1])
        if rank == len(highest):
            highest.append(-pair[1])
        else:
            highest[rank] = -pair[1]
        ranks[index] = last[pair] = rank
    return ranks
