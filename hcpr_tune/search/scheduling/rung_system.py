"""The rungs of a search with their trials, updated by the trials that changed since the last decision.

This is only a cache, derived from the history alone. It relies on three invariants of the record: trials are numbered
in the order in which they were suggested, a lost trial stays lost, and scores at a rung do not change (if one does,
`History` drops its indexes).
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.config import AshaConfig, always_promoted, bracket_of
from hcpr_tune.search.scheduling.rungs import Rung
from hcpr_tune.search.scheduling.stoppers import stopper_spec


class RungSystem:
    """The rungs of all brackets with the trials of a history, under one configuration."""

    def __init__(self, history: History, asha_config: AshaConfig) -> None:
        self.asha_config = asha_config
        make = stopper_spec(asha_config.method).rung
        self.rungs = {
            (rung, bracket): make(history, asha_config, rung)
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
        # Trainings under a single schedule have no rungs to be compared at.
        for rung in () if trial.single_schedule else trial.rungs:
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
        elif trial.replicate_of is None and (stands := self.rungs.get((trial.last_rung, bracket))) is not None:
            stands.wait(trial, always_promoted(trial, history))
            self._waits_at[number] = stands


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
