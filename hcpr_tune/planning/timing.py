"""The times of a plan, from what the work costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hcpr_tune.planning.costs import Costs
from hcpr_tune.planning.curves import Curve
from hcpr_tune.search.history import Job
from hcpr_tune.search.study import Study


@dataclass(frozen=True)
class PlannedTiming:
    """Every epoch takes what `costs` say, times the trial's own factor, over the worker's speed."""

    costs: Costs
    epochs: tuple[float, ...]
    workers: int

    @classmethod
    def of(cls, costs: Costs, study: Study, workers: int) -> PlannedTiming:
        return cls(costs, tuple(costs.epochs_of(study)), workers)

    def asking(self) -> float:
        return 0.0

    def handing_out(self) -> float:
        return self.costs.driver_job + self.workers * self.costs.driver_worker

    def answering(self) -> float:
        return self.costs.driver_report + self.workers * self.costs.driver_worker

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        trained = self.epochs[epoch - 1] * curve.relative_seconds / speed
        if begins:
            return trained + (self.costs.start if fresh else self.costs.job) / speed, trained
        return trained + self.costs.report, trained

    def death(self, work: Job) -> float:
        return math.inf
