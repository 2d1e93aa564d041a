"""The times of a plan, computed from costs."""

from __future__ import annotations

import math

from hcpr_tune.search.record.history import Job
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import Curve


class PlannedTiming:
    """Every epoch takes the time in `costs`, times the trial's factor, divided by the worker's speed."""

    def __init__(self, costs: Costs, study: StudySpec, workers: int) -> None:
        self.costs, self._study, self._workers = costs, study, workers
        self._epochs: dict[int, list[float]] = {}

    def epochs(self, end: int) -> list[float]:
        """Seconds of each epoch of a job that ends at `end`, from epoch 1 on."""
        if end not in self._epochs:
            self._epochs[end] = self.costs.epochs_of(self._study, end)
        return self._epochs[end]

    def asking(self) -> float:
        return 0.0

    def handing_out(self) -> float:
        return self.costs.driver_job + self._workers * self.costs.driver_worker

    def answering(self) -> float:
        return self.costs.driver_report + self._workers * self.costs.driver_worker

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        trained = self.epochs(work.end)[epoch - 1] * curve.relative_seconds / speed
        if begins:
            return trained + (self.costs.start if fresh else self.costs.job) / speed, trained
        return trained + self.costs.report, trained

    def death(self, work: Job) -> float:
        return math.inf
