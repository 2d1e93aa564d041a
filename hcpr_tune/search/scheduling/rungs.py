"""Who may go on from each rung, kept up to date trial by trial: what `halving` would find by going through all trials, in O(log n) a trial.

It is worked out from the history alone and only saves time: one that is built anew gives the same answers. It relies on three laws of
the record: trials are numbered in the order in which they were suggested, a trial that was lost stays lost, and a rung's scores stay
what they were first (where they do not, `History` drops what was kept).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush, heappushpop

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.config import AshaConfig, always_promoted, bracket_of

Key = tuple[float, float, int]
"""What trials of a rung are ordered by, the least first; the trial's number is its last part, so that no two are equal."""


class Rung:
    """The trials of one bracket at one rung: who was recorded, who waits there, and whom the rung promotes.

    The rung promotes the top 1 / reduction_factor of the recorded ones. A trial that was lost on its way to the rung counts as the
    worst of them. This number only grows, and so two heaps find the last one inside it: the worst of those inside, the best of those
    outside.
    """

    def __init__(self, reduction_factor: float, key: Callable[[Trial], Key]) -> None:
        self.recorded: set[int] = set()
        self.waiting: set[int] = set()
        self._lost: set[int] = set()
        self._reduction_factor, self._key = reduction_factor, key
        self._inside: list[Key] = []
        """Negated, so that the worst comes first."""
        self._outside: list[Key] = []
        # Those that wait, and some that have gone: who left `waiting` is dropped when it comes to the front.
        self._scored: list[Key] = []
        self._always: list[int] = []

    @property
    def places(self) -> int:
        """How many the rung promotes. What it comes to exactly must not fall below by rounding."""
        return math.floor((len(self.recorded) + len(self._lost)) / self._reduction_factor + 1e-9)

    def record(self, trial: Trial) -> None:
        """Its score is known. O(log n)."""
        self.recorded.add(trial.number)
        key = self._key(trial)
        if self._inside and key < _negated(self._inside[0]):
            key = _negated(heappushpop(self._inside, _negated(key)))
        heappush(self._outside, key)
        self._fill()

    def lose(self, number: int) -> None:
        """It was lost on its way here. O(log n)."""
        self._lost.add(number)
        self._fill()

    def _fill(self) -> None:
        while self._outside and len(self._inside) < self.places:
            heappush(self._inside, _negated(heappop(self._outside)))

    def wait(self, trial: Trial, always: bool) -> None:
        """It stands here; `always`: it is promoted whatever its scores. O(log n)."""
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
        """Whether its own score promotes a recorded trial: it is no worse than the last one inside."""
        return bool(self._inside) and self._key(trial) <= _negated(self._inside[0])


class Fronts(Rung):
    """A rung's trials where two objectives order them: by fronts, and within a front by the room that a trial has for itself.

    One more trial can change the place of every other, so that this cannot be kept up in O(log n): the trials are sorted anew, in
    O(n log n), when somebody asks and one was recorded since the last time.
    """

    def __init__(self, reduction_factor: float, order: Callable[[list[Trial]], list[Trial]]) -> None:
        super().__init__(reduction_factor, lambda trial: (self._place[trial.number], 0, trial.number))
        self._order = order
        self._trials: list[Trial] = []
        self._place: dict[int, int] = {}
        """Of the trials as they were last sorted."""

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
        # In order, they are a heap.
        self._scored = [self._key(trial) for trial in ordered if trial.number in self.waiting]


def _negated(key: Key) -> Key:
    return -key[0], -key[1], -key[2]


class RungSystem:
    """Where all trials of a history stand under one set of rules."""

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
        for trial in history.trials.values():
            self._place(trial, history)
        history.touched.clear()

    def catch_up(self, history: History) -> None:
        """Look at the trials that events have touched since the last time."""
        for number in history.touched:
            self._place(history.trials[number], history)
        history.touched.clear()

    def bracket(self, trial: Trial) -> int:
        """`bracket_of`, drawn once a trial."""
        if self.asha_config.brackets == 1:
            return 0
        if (bracket := self._brackets.get(trial.number)) is None:
            bracket = self._brackets[trial.number] = bracket_of(trial, self.asha_config)
        return bracket

    def broken_off(self) -> int | None:
        """The oldest trial whose job was handed out, or about to be, when the search was interrupted."""
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


def rung_system_of(history: History, asha_config: AshaConfig) -> RungSystem:
    """The history's ladder, up to date. Built anew where the rules are others than the last time."""
    rung_system: RungSystem | None = history.lasting.get("ladder")
    if rung_system is None or (rung_system.asha_config is not asha_config and rung_system.asha_config != asha_config):
        rung_system = history.lasting["ladder"] = RungSystem(history, asha_config)
    elif history.touched:
        rung_system.catch_up(history)
    return rung_system
