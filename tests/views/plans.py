"""Plans that were really played, on guessed curves and costs made by hand."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.simulation.comparison import Played, choice, compare, gain, unbeaten
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import GuessedCurves
from hcpr_tune.simulation.variants import variants_of, varied
from hcpr_tune.simulation.worker_pool import WorkerPool
from hcpr_tune.views.report.plan_page import PlanShown

COSTS = Costs(
    attack_step=4.0,
    update=8.0,
    evaluation=30.0,
    last_evaluation=60.0,
    checkpoint=0.5,
    start=25.0,
    job=2.0,
    report=0.1,
    checkpoint_bytes=45_000_000,
    words="made by hand",
)
CURVES = GuessedCurves(classes=10, last_epoch=27, images=360, probed_epoch=1.0, probed_accuracy=0.18)


def results_of(vary: tuple[str, ...] = (), *given: tuple[str, Any], workers: int = 4, repeats: int = 3) -> list[Played]:
    """The variants of the default space, with what is `given` in all of them."""
    variants = variants_of(
        varied(vary), lambda more: read_study(find_space("default"), [*given, *more]), WorkerPool(workers)
    )
    return compare(variants, CURVES, COSTS, seed=0, repeats=repeats)


def plain_of(results: list[Played]) -> list[dict[str, Any]]:
    return [
        one.to_plain() | {"busy": one.outcomes[0].busy, "gain_over_base": gain(one, results[0]).to_plain()}
        for one in results
    ]


def plan_of(results: list[Played], **more: Any) -> PlanShown:
    plan = PlanShown(
        title="default",
        curves=CURVES.words,
        guess=True,
        costs=asdict(COSTS),
        warnings=(),
        results=plain_of(results),
        unbeaten=frozenset(one.variant.name for one in unbeaten(results)),
        chosen=choice(results).variant.name,
        objective="robust_accuracy",
        command="hcpr_tune plan --space default --vary early_stopping.first_rung=3,9",
        repeats=len(results[0].outcomes),
    )
    return replace(plan, **more)
