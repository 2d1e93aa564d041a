"""What stopping at rungs is worth, in simulated searches whose rungs predict the end as well as is wished.

    python benchmarks/search.py rungs-simulated [--budgets 80,233,1000,5000] [--world digits] [--out FILE]

The decisions are the project's own (`hcpr_tune.simulation`: the driver, the rungs, the record); only the trainings are
made up. Recipes are drawn at random, so that nothing but the rungs differs between the arms, and every arm sees the
same recipes with the same scores. A world says how much recipes differ, how noisy a score is, and how well the score
at a rung, as it is seen, is rank-correlated with the true score at the end. The figure is the true score of the recipe
that the search chose, less that of a search without early stopping that trained as many epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import machine

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.simulation.comparison import Played, compare, gain
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import DrawnPlay
from hcpr_tune.simulation.variants import Variant
from hcpr_tune.simulation.worker_pool import WorkerPool

Plain = dict[str, Any]
Stopping = Mapping[str, Any]
DEFAULT_SPACE = Path(__file__).resolve().parent.parent / "search_spaces" / "default.toml"
RUNGS = (3, 9, 27)
MEANS = {3: 0.45, 9: 0.62, 27: 0.80}
"""Accuracy of a recipe of median quality at each rung."""
RUNG_SPREAD = 0.06
"""Standard deviation between the scores of recipes at a rung below the last, noise included."""


@dataclass(frozen=True)
class World:
    """Learning curves of which all but the rank correlations is fixed; the source of curves of a simulated search."""

    correlations: tuple[float, float]
    """Rank correlation of the scores at epochs 3 and 9, noise included, with the true score at epoch 27."""
    images: int = 359
    spread: float = 0.02
    """Standard deviation of the true final scores of recipes."""
    seed_deviation: float = 0.01
    """Standard deviation of a recipe's score between training seeds, beside the binomial noise of the images."""

    guess = True
    knows_params = False

    @property
    def words(self) -> str:
        return f"made up: rank correlations with the end {self.correlations}"

    @property
    def noise(self) -> float:
        """Standard deviation of a final score around the recipe's own."""
        return math.sqrt(MEANS[27] * (1 - MEANS[27]) / self.images + self.seed_deviation**2)

    def play(self, epochs: Sequence[int], trials: int, seed: int) -> DrawnPlay:
        draws = np.random.default_rng(derive_seed(seed, "made-up rungs"))
        quality = draws.standard_normal(trials)
        true = np.clip(MEANS[27] + self.spread * quality, 0.0, 1.0)
        trained = np.clip(true + self.seed_deviation * draws.standard_normal(trials), 0.0, 1.0)
        at = {27: draws.binomial(self.images, trained) / self.images}
        for rung, rank_correlation in zip(RUNGS, self.correlations, strict=False):
            rho = 2 * math.sin(math.pi * rank_correlation / 6)  # of normal values with this rank correlation
            seen = rho * quality + math.sqrt(1 - rho**2) * draws.standard_normal(trials)
            at[rung] = np.clip(MEANS[rung] + RUNG_SPREAD * seen, 0.0, 1.0)
        seen = np.stack([at[epoch] for epoch in epochs], axis=1)
        ends = np.stack([true if epoch == 27 else at[epoch] for epoch in epochs], axis=1)
        return DrawnPlay(tuple(epochs), self.images, seen.tolist(), ends.tolist(), [1.0] * trials)


WORLDS = {
    "digits": World((0.0, 0.0)),
    "second": World((0.4, 0.55), images=1280),
}
"""`digits`: noise of 2.3 points (359 images, one seed). `second`: noise of 1.5 points, correlations 0.4 and 0.55."""
NO_STOPPING: Stopping = {"method": "none"}
ARMS: dict[str, Stopping] = {"plain ASHA": {"min_rank_correlation": -1.0, "calibration": 1}, "default": {}}
"""The settings of early stopping of each arm, over the default space."""
ONE_SECOND = Costs(
    attack_step=0.0,
    update=1.0,
    evaluation=0.0,
    last_evaluation=0.0,
    checkpoint=0.0,
    start=0.0,
    job=0.0,
    report=0.0,
    checkpoint_bytes=0,
    words="one second an epoch",
    driver_report=0.0,
    driver_job=0.0,
    driver_worker=0.0,
)


def study_with(stopping: Stopping, budget: int) -> StudySpec:
    """The default space with these settings of early stopping, ended by `budget` epochs of one second."""
    settings = {
        "sampler.name": "random",
        "replication.replicates": 0,  # they would cost every arm the same
        "budget.trials": budget // RUNGS[0] + 1,  # more than the epochs allow
        "budget.worker_hours": budget / 3600,
        **{f"early_stopping.{name}": value for name, value in stopping.items()},
    }
    return read_study(DEFAULT_SPACE, list(settings.items()))


def searched(world: World, budget: int, arms: Mapping[str, Stopping], repeats: int, workers: int) -> list[Played]:
    """Each arm's searches, one for each repeat."""
    variants = [Variant(name, study_with(stopping, budget), WorkerPool(workers)) for name, stopping in arms.items()]
    return compare(variants, world, ONE_SECOND, seed=0, repeats=repeats)


def row(world: World, budget: int, base: Played, results: Sequence[Played]) -> Plain:
    """The figures of one world at one budget: accuracies from 0 to 1."""
    return {
        "correlations": list(world.correlations),
        "budget": budget,
        "repeats": len(base.outcomes),
        "no_stopping": base.estimate("score").to_plain(),
        "arms": {
            one.variant.name: {
                "gain": gain(one, base).to_plain(),
                "gain_over_first_arm": gain(one, results[0]).to_plain(),
                "trials": one.estimate("trials").mean,
                "epochs": one.estimate("epochs").mean,
                "stopping_at_the_end": [rung["stops"] for rung in one.rungs()],
            }
            for one in results
        },
    }


def words_of(found: Plain) -> str:
    """A row in points, a line for each arm."""
    lines = [f"{found['budget']} epochs, correlations {found['correlations']}, {found['repeats']} repeats"]
    for name, arm in found["arms"].items():
        stopping = " and ".join(f"{100 * share:.0f} %" for share in arm["stopping_at_the_end"])
        lines.append(
            f"  {name:12} {points(arm['gain'])} over no stopping, {points(arm['gain_over_first_arm'])} over"
            f" {next(iter(found['arms']))}; {arm['trials']:.0f} trials; rungs still stop in {stopping} of searches"
        )
    return "\n".join(lines)


def points(estimate: Plain) -> str:
    """A difference of accuracies in points, with half its 95 % interval."""
    return f"{100 * estimate['mean']:+.2f} ± {50 * (estimate['high_95'] - estimate['low_95']):.2f}"


def worlds_of(options: argparse.Namespace) -> list[World]:
    """The worlds to simulate: `digits` at each of the rank correlations, the second as it is."""
    world = WORLDS[options.world]
    if options.world != "digits":
        return [world]
    return [replace(world, correlations=(rho, rho)) for rho in options.correlations]


def rungs_simulated(options: argparse.Namespace) -> None:
    """The command `rungs-simulated`."""
    arms = ARMS | {f"bound {bound:g}": {"min_rank_correlation": bound} for bound in options.bounds}
    arms |= {f"calibration {number}": {"calibration": number} for number in options.calibrations}
    worlds, rows, began = worlds_of(options), list[Plain](), time.monotonic()
    for budget in options.budgets:
        # Without rungs nothing depends on their correlations: the same searches serve every world.
        (base,) = searched(worlds[0], budget, {"no stopping": NO_STOPPING}, options.repeats, options.workers)
        for world in worlds:
            rows.append(row(world, budget, base, searched(world, budget, arms, options.repeats, options.workers)))
            print(words_of(rows[-1]), flush=True)
    result = {"machine": machine(), "world": options.world, "workers": options.workers, "rows": rows}
    result |= {"noise": worlds[0].noise, "seconds": round(time.monotonic() - began)}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def add_rungs_simulated(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--budgets", type=whole_numbers, default=[80, 233, 1000, 5000], help="epochs, commas between")
    parser.add_argument("--correlations", type=numbers, default=[0.0, 0.3, 0.6, 0.9], help="with commas in between")
    parser.add_argument("--bounds", type=numbers, default=[], help="more arms with these min_rank_correlation")
    parser.add_argument("--calibrations", type=whole_numbers, default=[], help="more arms with so many calibrations")
    parser.add_argument("--world", choices=tuple(WORLDS), default="digits")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file")


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",") if number]


def whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


if __name__ == "__main__":
    alone = argparse.ArgumentParser(description=__doc__)
    add_rungs_simulated(alone)
    rungs_simulated(alone.parse_args())
