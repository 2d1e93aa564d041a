"""Which trials a rung promotes, updated incrementally in O(log n) per trial.

An order of two objectives, and a rule that a user wrote, take all trials of the rung into account: O(n log n) for each
new score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from heapq import heappop, heappush, heappushpop

from hcpr_tune.search.record.history import Trial

Key = tuple[float, float, int]
"""Ascending sort key of the trials of a rung; ends with the trial's number, so that no two are equal."""


class Rung:
    """The trials of one bracket at one rung: which have a score, which wait there, and which the rung promotes.

    The rung promotes the top 1 / reduction_factor of the recorded trials. A trial that was lost on its way to the rung
    counts as the worst. The quota only grows, so two heaps maintain it: one with the worst trial inside on top, one
    with the best outside.
    """

    def __init__(self, reduction_factor: float, key: Callable[[Trial], Key]) -> None:
        self.recorded: set[int] = set()
        self.waiting: set[int] = set()
        self._lost: set[int] = set()
        self._reduction_factor, self._key = reduction_factor, key
        self._inside: list[Key] = []
        """Negated, so that the worst comes first."""
        self._outside: list[Key] = []
        # Waiting trials, and some that no longer wait: these are dropped when they reach the front.
        self._scored: list[Key] = []
        self._always: list[int] = []

    @property
    def places(self) -> int:
        """Number of trials the rung promotes. The slack keeps rounding errors from losing one."""
        return math.floor((len(self.recorded) + len(self._lost)) / self._reduction_factor + 1e-9)

    def record(self, trial: Trial) -> None:
        """Add a trial's score. O(log n)."""
        self.recorded.add(trial.number)
        key = self._key(trial)
        if self._inside and key < _negated(self._inside[0]):
            key = _negated(heappushpop(self._inside, _negated(key)))
        heappush(self._outside, key)
        self._fill()

    def lose(self, number: int) -> None:
        """Count a trial that was lost on its way here. O(log n)."""
        self._lost.add(number)
        self._fill()

    def _fill(self) -> None:
        while self._outside and len(self._inside) < self.places:
            heappush(self._inside, _negated(heappop(self._outside)))

    def wait(self, trial: Trial, always: bool) -> None:
        """Add a waiting trial; `always`: it is promoted whatever its scores. O(log n)."""
        self.waiting.add(trial.number)
        if always:
            heappush(self._always, trial.number)
        else:
            heappush(self._scored, self._key(trial))

    def first_always(self) -> int | None:
        """The oldest waiting trial that is promoted whatever its scores."""
        while self._always and self._always[0] not in self.waiting:
            heappop(self._always)
        return self._always[0] if self._always else None

    def best_waiting(self) -> int | None:
        """The best of the waiting trials that are promoted by their scores."""
        while self._scored and self._scored[0][2] not in self.waiting:
            heappop(self._scored)
        return self._scored[0][2] if self._scored else None

    def holds(self, trial: Trial) -> bool:
        """Whether a recorded trial's own score promotes it: it is no worse than the worst trial inside the quota."""
        return bool(self._inside) and self._key(trial) <= _negated(self._inside[0])


class Fronts(Rung):
    """A rung's trials ordered by two objectives: by non-dominated front, and within a front by crowding distance.

    One new trial can change the place of every other, so there is no update in O(log n): the trials are sorted, in
    O(n log n), when an answer is needed and a trial was added since the last sort.
    """

    def __init__(self, reduction_factor: float, order: Callable[[list[Trial]], list[Trial]]) -> None:
        super().__init__(reduction_factor, lambda trial: (self._place[trial.number], 0, trial.number))
        self._order = order
        self._trials: list[Trial] = []
        self._place: dict[int, int] = {}
        """Place by trial number, as of the last sort."""

    def record(self, trial: Trial) -> None:
        self.recorded.add(trial.number)
        self._trials.append(trial)

    def lose(self, number: int) -> None:
        self._lost.add(number)

    def wait(self, trial: Trial, always: bool) -> None:
        if always or len(self._place) == len(self._trials):
            super().wait(trial, always)
        else:
            self.waiting.add(trial.number)

    def best_waiting(self) -> int | None:
        self._sort()
        return super().best_waiting()

    def holds(self, trial: Trial) -> bool:
        self._sort()
        return self._place[trial.number] < self.places

    def _sort(self) -> None:
        if len(self._place) == len(self._trials):
            return
        ordered = self._order(sorted(self._trials, key=lambda trial: trial.number))
        self._place = {trial.number: place for place, trial in enumerate(ordered)}
        # A sorted list is a heap.
        self._scored = [self._key(trial) for trial in ordered if trial.number in self.waiting]


class RuledRung(Fronts):
    """A rung whose trials are promoted by a function of all of them; among those, the best goes first."""

    def __init__(
        self, order: Callable[[list[Trial]], list[Trial]], rule: Callable[[list[Trial], int], Collection[int]]
    ) -> None:
        """`rule` gets the recorded trials, best first, and the number of trials lost on the way here.

        It returns the numbers of those that are promoted.
        """
        super().__init__(1.0, order)
        self._rule = rule
        self._promoted: Collection[int] = ()
        self._asked: tuple[int, int] | None = None

    def best_waiting(self) -> int | None:
        """The best of the promoted trials that wait, else the best of all: where the rung stops no one, it goes on."""
        promoted = self._answer()
        if waiting := self.waiting.intersection(promoted):
            return min(waiting, key=self._place.__getitem__)
        return super().best_waiting()

    def holds(self, trial: Trial) -> bool:
        return trial.number in self._answer()

    def _answer(self) -> Collection[int]:
        """What the rule says, asked again only after a new score or a lost trial."""
        self._sort()
        asked = len(self._trials), len(self._lost)
        if asked != self._asked:
            ordered = sorted(self._trials, key=lambda trial: self._place[trial.number])
            self._promoted, self._asked = self._rule(ordered, len(self._lost)), asked
        return self._promoted


def _negated(key: Key) -> Key:
    return -key[0], -key[1], -key[2]
