"""Curves and costs that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hcpr_tune.search.record.history import History, Job
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import Curve
from hcpr_tune.simulation.search import PlannedTiming, Trainings, search_simulation
from hcpr_tune.simulation.simulation import Simulation
from hcpr_tune.simulation.suggesting import Blind
from hcpr_tune.simulation.worker_pool import WorkerPool

SECOND = Costs(
    attack_step=0.0,
    update=1.0,
    evaluation=0.0,
    last_evaluation=0.0,
    checkpoint=0.0,
    start=10.0,
    job=0.5,
    report=0.0,
    checkpoint_bytes=1000,
    words="made up",
    driver_report=0.0,
    driver_job=0.0,
    driver_worker=0.0,
)
"""An epoch takes a second, a new process ten, a job on one that is there half a second; the driver takes no time."""


@dataclass(frozen=True)
class Falling:
    """Each trial is worse than the one before it, at every epoch."""

    epochs: Sequence[int]
    images: int = 1000
    lost: int = -1
    """This trial diverges in its second epoch."""

    def curve(self, trial: int, params: Params) -> Curve:
        scores = [0.9 / (1 + trial)] * len(self.epochs)
        return Curve(scores, scores, scores, scores, lost_at=2 if trial == self.lost else 0)


ONE = WorkerPool(1)


def simulation(
    study: StudySpec, costs: Costs = SECOND, worker_pool: WorkerPool = ONE, lost: int = -1, **more: Any
) -> Simulation[Job, History]:
    """A search of falling trials."""
    more.setdefault("suggester", Blind(study))
    timing = PlannedTiming(costs, study, worker_pool.workers)
    return search_simulation(Trainings(study, Falling(study.rungs, lost=lost), timing), worker_pool, **more)


def with_budget(study: StudySpec, **budget: float) -> StudySpec:
    settings = replace(study.settings, budget=replace(study.settings.budget, **budget))
    return replace(study, settings=settings)
