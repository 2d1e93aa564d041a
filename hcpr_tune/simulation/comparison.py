"""Comparison of variants over several repeats: cost and score of each, with intervals, and the Pareto-optimal ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import Curves
from hcpr_tune.simulation.outcome import Outcome, RungOutcome, played
from hcpr_tune.simulation.suggesting import repeated
from hcpr_tune.simulation.variants import Variant

SAME_COST = 0.01
"""Costs whose relative difference is at most this count as equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats with its 95 % interval (Student's t); for one repeat, the interval is just the value."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        mean = fmean(values)
        if len(values) < 2:
            return cls(mean, mean, mean)
        from scipy.special import stdtrit

        half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half)

    def to_plain(self) -> dict[str, float]:
        return {"mean": self.mean, "low_95": self.low, "high_95": self.high}


FIGURES: dict[str, Callable[[Outcome], float]] = {
    "wall_clock_seconds": lambda one: one.wall_clock,
    "worker_seconds": lambda one: one.worker_seconds,
    "use": lambda one: one.use,
    "driver_use": lambda one: one.driver_use,
    "trials": lambda one: one.trials,
    "epochs": lambda one: one.epochs,
    "jobs": lambda one: one.jobs,
    "deaths": lambda one: one.deaths,
    "lost_seconds": lambda one: one.lost_seconds,
    "checkpoint_bytes_written": lambda one: one.bytes_written,
    "checkpoint_bytes_kept": lambda one: one.bytes_kept,
    "score": lambda one: one.score,
    "best": lambda one: one.best,
    "loss": lambda one: one.loss,
}
"""The figures of a variant, by their names in the JSON."""


@dataclass
class Played:
    """A variant with its outcomes, one per repeat; all variants see the same trials and curves."""

    variant: Variant
    outcomes: list[Outcome] = field(default_factory=list)

    def estimate(self, name: str) -> Estimate:
        return Estimate.of([FIGURES[name](one) for one in self.outcomes])

    def rungs(self) -> list[dict[str, Any]]:
        """Statistics of each rung, over the repeats."""
        return [_rung([one.rungs[index] for one in self.outcomes]) for index in range(len(self.outcomes[0].rungs))]

    def to_plain(self) -> dict[str, Any]:
        return {
            "variant": self.variant.name,
            "workers": self.variant.worker_pool.workers,
            **{name: self.estimate(name).to_plain() for name in FIGURES},
            "rungs": self.rungs(),
            "busy": [[round(time, 3), round(jobs, 3)] for time, jobs in self.outcomes[0].busy],
        }


def _rung(rungs: Sequence[RungOutcome]) -> dict[str, Any]:
    correlations = [rung.correlation for rung in rungs if rung.correlation is not None]
    measured = [rung.measured for rung in rungs if rung.measured is not None]
    return {
        "epoch": rungs[0].epoch,
        "reached": fmean(rung.reached for rung in rungs),
        "stopped": fmean(rung.stopped for rung in rungs),
        "correlation_with_truth": Estimate.of(correlations).to_plain() if correlations else None,
        "correlation_measured": Estimate.of(measured).to_plain() if measured else None,
        "stops": fmean(rung.stops for rung in rungs),
        "saved_worker_seconds": fmean(rung.saved_seconds for rung in rungs),
        "lost_the_best": fmean(rung.lost_best for rung in rungs),
    }


def compare(
    variants: Sequence[Variant],
    curves: Curves,
    costs: Costs,
    seed: int,
    repeats: int,
    seconds: float = math.inf,
    on_repeat: Callable[[int], object] = lambda repeat: None,
) -> list[Played]:
    """Simulate every variant `repeats` times, or as often as fits into `seconds`, but at least once.

    Raises `InputError` if the curves have no score at a rung.
    """
    epochs = sorted({rung for variant in variants for rung in variant.study.rungs})
    trials = max(variant.study.settings.budget.trials for variant in variants)
    results = [Played(variant) for variant in variants]
    began = time.monotonic()
    for repeat in range(repeats):
        took = (time.monotonic() - began) / repeat if repeat else 0.0
        if repeat and time.monotonic() - began + took > seconds:
            break
        one = derive_seed(seed, "repeat of a plan", repeat)
        play = curves.play(epochs, trials, one)
        for result in results:
            variant = result.variant
            result.outcomes.append(
                played(repeated(variant.study, repeat), curves, play, costs, variant.worker_pool, one)
            )
        on_repeat(repeat + 1)
    return results


def gain(one: Played, other: Played) -> Estimate:
    """Difference in score of the first over the second, paired: repeat by repeat, on the same trials."""
    return Estimate.of([a.score - b.score for a, b in zip(one.outcomes, other.outcomes, strict=True)])


def beats(one: Played, other: Played) -> bool:
    """Whether `one` dominates `other`: `other` costs more (in wall-clock time or worker-hours, and less in neither) and
    does not score significantly higher; or it costs the same and scores significantly lower.
    """
    if len(one.outcomes) < 2:
        shown_better, shown_worse = gain(other, one).mean > 0, gain(one, other).mean > 0
    else:
        shown_better, shown_worse = gain(other, one).low > 0, gain(one, other).low > 0
    more = [_more(one, other, name) for name in ("wall_clock_seconds", "worker_seconds")]
    if min(more) < 0:
        return False
    return not shown_better if max(more) > 0 else shown_worse


def _more(one: Played, other: Played, name: str) -> int:
    """1 if the second one costs more, -1 if it costs less, 0 if they cost about the same."""
    mine, theirs = one.estimate(name).mean, other.estimate(name).mean
    if abs(theirs - mine) <= SAME_COST * max(mine, theirs):
        return 0
    return 1 if theirs > mine else -1


def unbeaten(results: Sequence[Played]) -> list[Played]:
    """The variants that no other beats. All variants, if they beat each other in a cycle: `beats` is not transitive."""
    left = [one for one in results if not any(beats(other, one) for other in results if other is not one)]
    return left or [*results]


def choice(results: Sequence[Played]) -> Played:
    """The unbeaten variant with the highest score; among those not significantly worse, the one with the fewest
    worker-hours."""
    left = unbeaten(results)
    best = max(left, key=lambda one: one.estimate("score").mean)
    as_good = [one for one in left if one is best or (len(one.outcomes) > 1 and gain(best, one).low <= 0)]
    return min(as_good, key=lambda one: one.estimate("worker_seconds").mean)


def comparison_plain(results: Sequence[Played]) -> dict[str, Any]:
    """The comparison for JSON; the first variant is the one that the others are compared with."""
    base, left, chosen = results[0], unbeaten(results), choice(results)
    return {
        "repeats": len(base.outcomes),
        "chosen": chosen.variant.name,
        "unbeaten": [one.variant.name for one in left],
        "variants": [one.to_plain() | {"gain_over_base": gain(one, base).to_plain()} for one in results],
    }
