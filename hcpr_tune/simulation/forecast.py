"""A plan's forecast, as a table in the space that the plan writes."""

from __future__ import annotations

from dataclasses import replace

from hcpr_tune.search.spec.settings import Foreseen
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.comparison import Played


def with_foreseen(study: StudySpec, played: Played) -> StudySpec:
    """The study with the plan's mean figures as its forecast."""

    def mean(name: str) -> float:
        return played.estimate(name).mean

    foreseen = Foreseen(
        workers=played.variant.worker_pool.workers,
        hours=round(mean("wall_clock_seconds") / 3600, 5),
        worker_hours=round(mean("worker_seconds") / 3600, 5),
        use=round(min(1.0, mean("use")), 4),
        epochs=round(mean("epochs")),
        score=round(mean("score"), 4),
    )
    return replace(study, settings=replace(study.settings, plan=foreseen))
