"""Which trial is the best: decided here, and nowhere else. Which of its rungs counts is decided by `Goal.best_rung`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from hcpr_tune.search.record.trial import Trial
from hcpr_tune.search.spec.objectives import Goal, fronts


class Ranking:
    """The trials with a score, each at its best rung, in the order of a study's goal."""

    def __init__(self, goal: Goal, trials: Iterable[Trial]) -> None:
        scored = [trial for trial in trials if trial.rungs]
        self.goal = goal
        self.order = goal.order(scored, {trial.number: trial.best_rung for trial in scored})
        """Best first (see `Goal.order`)."""

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto front of the trials that reach every floor, best first objective first; one for one objective."""
        reaching = [trial for trial in self.order if not self.goal.shortfall(trial.scores[trial.best_rung])]
        if len(self.goal.objectives) == 1:
            return reaching[:1]
        values = [self.goal.values(trial.scores[trial.best_rung]) for trial in reaching]
        ranks = fronts([(value[0], value[1]) for value in values])
        members = [(value, trial) for value, trial, rank in zip(values, reaching, ranks, strict=True) if rank == 0]
        return [trial for _, trial in sorted(members, key=lambda one: (-one[0][0], one[1].number))]

    @property
    def best(self) -> Trial | None:
        """The trial on the front that is best in the first objective; without a front, the one that misses least."""
        return next(iter(self.front or self.order), None)
