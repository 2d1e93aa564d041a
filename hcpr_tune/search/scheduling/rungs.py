"""Which trials each rung promotes, updated incrementally in O(log n) per trial.

This is only a cache, derived from the history alone. It relies on three invariants of the record: trials are numbered
in the order in which they were suggested, a lost trial stays lost, and scores at a rung do not change (if one does,
`History` drops its indexes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heappushpop

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.config import AshaConfig, always_promoted, bracket_of

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


def _negated(key: Key) -> Key:
    return -key[0], -key[1], -key[2]


class RungSystem:
    """The rungs of all brackets with the trials of a history, under one configuration."""

    def __init__(self, history: History, asha_config: AshaConfig) -> None:
        self.asha_config = asha_config
        self.rungs = {
            (rung, bracket): _rung(history, asha_config, rung)
            for rung in asha_config.rungs[:-1]
            for bracket in range(asha_config.brackets)
        }
        self._brackets: dict[int, int] = {}
        self._waits_at: dict[int, Rung] = {}
        self._broken_off: set[int] = set()
        self._oldest_broken_off: list[int] = []
        self._seen = len(history.changed)
        for trial in history.trials.values():
            self._place(trial, history)

    def catch_up(self, history: History) -> None:
        """Update the trials that changed since the last call."""
        for number in dict.fromkeys(history.changed[self._seen :]):
            self._place(history.trials[number], history)
        self._seen = len(history.changed)

    def bracket(self, trial: Trial) -> int:
        """`bracket_of`, cached per trial."""
        if self.asha_config.brackets == 1:
            return 0
        if (bracket := self._brackets.get(trial.number)) is None:
            bracket = self._brackets[trial.number] = bracket_of(trial, self.asha_config)
        return bracket

    def broken_off(self) -> int | None:
        """The oldest trial whose job had started, or was about to, when the search was interrupted."""
        while self._oldest_broken_off and self._oldest_broken_off[0] not in self._broken_off:
            heappop(self._oldest_broken_off)
        return self._oldest_broken_off[0] if self._oldest_broken_off else None

    def _place(self, trial: Trial, history: History) -> None:
        number, bracket = trial.number, self.bracket(trial)
        for rung in trial.rungs:
            rung_places = self.rungs.get((rung, bracket))
            if rung_places is not None and number not in rung_places.recorded:
                rung_places.record(trial)
        if trial.lost and trial.target not in trial.rungs and (trial.target, bracket) in self.rungs:
            self.rungs[trial.target, bracket].lose(number)
        if (left := self._waits_at.pop(number, None)) is not None:
            left.waiting.discard(number)
        self._broken_off.discard(number)
        if trial.status != "waiting":
            return
        if not trial.target or trial.target > trial.last_rung:
            self._broken_off.add(number)
            heappush(self._oldest_broken_off, number)
        elif (stands := self.rungs.get((trial.last_rung, bracket))) is not None:
            stands.wait(trial, always_promoted(trial, history))
            self._waits_at[number] = stands


def _rung(history: History, asha_config: AshaConfig, rung: int) -> Rung:
    goal = history.goal
    if asha_config.method == "random":
        return Rung(
            asha_config.reduction_factor,
            lambda trial: (derive_seed(asha_config.seed, "promotion", rung, trial.number), 0, trial.number),
        )
    if len(goal.objectives) > 1:
        return Fronts(asha_config.reduction_factor, lambda trials: goal.order(trials, rung))
    return Rung(asha_config.reduction_factor, lambda trial: (*goal.place(trial.scores[rung]), trial.number))


@dataclass
class _Latest:
    """An index of a history: its rung system under the configuration asked for last."""

    rung_system: RungSystem | None = None


def rung_system_of(history: History, asha_config: AshaConfig) -> RungSystem:
    """The history's rung system, up to date; rebuilt if the configuration changed."""
    latest = history.index(_Latest)
    rung_system = latest.rung_system
    if rung_system is None or (rung_system.asha_config is not asha_config and rung_system.asha_config != asha_config):
        rung_system = latest.rung_system = RungSystem(history, asha_config)
    else:
        rung_system.catch_up(history)
    return rung_system
