"""What choosing by the posterior, and training the best again on fresh seeds, is worth: simulated searches.

    python benchmarks/search.py answer-simulated [--budgets 320,640] [--repeats 60] [--out FILE]

The decisions are the project's own (`hcpr_tune.simulation`); only the trainings are made up: a smooth part of the
recipe's values, a part of each recipe alone, a seed's luck, and images that are counted. All arms spend the same
epochs. `highest` searches with all of them and takes the highest score at the last epoch, as most tools do;
`posterior` takes the recipe that the posterior expects to be best; `replicates` keeps a quarter back to train the best
again. The figures: the true score of the choice, less that of `highest` in the same world, and the optimism of what
each arm says of its choice.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from figures import machine

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.answer import mean_score
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.points import coordinates
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.curves import Curve, other_seed
from hcpr_tune.simulation.search import Trainings, search_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool

Plain = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]
MEANS = (0.45, 0.55, 0.62)
"""Accuracy of a typical recipe at the rungs 3, 9 and 27."""
WORLDS = {"strong rungs": (0.7, 0.9), "weak rungs": (0.3, 0.5)}
"""Correlation of the true scores at epochs 3 and 9 with those at 27."""


@dataclass(frozen=True)
class World:
    """One response surface. `smooth`, `own`, `luck`: standard deviations of the parts of a score; `images` counted."""

    study: StudySpec
    correlations: tuple[float, float]
    seed: int
    smooth: float = 0.015
    own: float = 0.015
    luck: float = 0.01
    images: int = 359

    @property
    def epochs(self) -> Sequence[int]:
        return self.study.rungs

    def true(self, params: Params) -> float:
        """A recipe's true score at the end: a random quadratic, and noise that depends on the recipe alone."""
        centre, weights, mean, spread = self._quadratic
        curve = (_bowl(np.array(coordinates(params, self.study.space)), centre, weights) - mean) / spread
        own = np.random.default_rng(derive_seed(self.seed, "own", *sorted(map(str, params.items()))) & (2**63 - 1))
        return float(MEANS[-1] + self.smooth * curve + self.own * own.standard_normal())

    @cached_property
    def _quadratic(self) -> tuple[Array, Array, float, float]:
        """Centre and weights of a bowl, and its mean and standard deviation over the cube."""
        draws = np.random.default_rng(derive_seed(self.seed, "surface") & (2**63 - 1))
        columns = len(coordinates({}, self.study.space))
        centre, weights = draws.random(columns), draws.exponential(size=columns)
        heights = _bowl(draws.random((1000, columns)), centre, weights)
        return centre, weights, float(heights.mean()), float(heights.std())

    def curve(self, trial: int, params: Params) -> Curve:
        draws = np.random.default_rng(derive_seed(self.seed, "trial", trial) & (2**63 - 1))
        end, spread = self.true(params), math.hypot(self.smooth, self.own)
        at = [
            mean + rho * (end - MEANS[-1]) + math.sqrt(1 - rho**2) * spread * draws.standard_normal()
            for mean, rho in zip(MEANS, (*self.correlations, 1.0), strict=True)
        ]
        trained = np.clip(np.array(at) + self.luck * draws.standard_normal(), 0.0, 1.0)
        seen = (draws.binomial(self.images, trained) / self.images).tolist()
        return Curve(seen, seen, at, at)

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        return other_seed(self.curve(of, params), self.images, derive_seed(self.seed, "replicate", trial))


def _bowl(points: Array, centre: Array, weights: Array) -> Array:
    heights: Array = -(weights * (points - centre) ** 2).sum(axis=-1)
    return heights


class Second:
    """Every epoch takes a second, and nothing else takes any time."""

    def asking(self) -> float:
        return 0.0

    handing_out = answering = asking

    def epoch(self, *_: Any) -> tuple[float, float]:
        return 1.0, 1.0

    def death(self, _: Any) -> float:
        return math.inf


def study_with(budget: int, replicates: int, sampler: str) -> StudySpec:
    settings = [("budget.trials", budget), ("budget.worker_hours", budget / 3600), ("sampler.name", sampler)]
    return read_study(find_space("default"), [*settings, ("replication.replicates", replicates), ("epochs", 27)])


def searched(study: StudySpec, world: World, workers: int) -> History:
    trainings = Trainings(study, world, Second())
    return search_simulation(trainings, WorkerPool(workers), Suggester(study)).run()


def choices(history: History, world: World) -> dict[str, tuple[float, float]]:
    """Of each rule: the true score of its choice, and what it says of it."""
    params = {number: trial.params for number, trial in history.trials.items()}
    scored = [trial for trial in history.trials.values() if 27 in trial.rungs and trial.replicate_of is None]
    highest = max(scored, key=lambda trial: trial.rungs[27])
    assert history.choice is not None
    chosen = history.choice["trial"]
    said = next(one["mean"] for one in history.choice["estimates"] if one["trial"] == chosen)
    found = {
        "highest": (world.true(params[highest.number]), highest.rungs[27]),
        "posterior": (world.true(params[chosen]), said),
    }
    again = history.replicates_of(chosen)
    if again:
        found["fresh seeds"] = (world.true(params[chosen]), mean_score(tuple(again)))
    return found


def compared(options: argparse.Namespace, budget: int, correlations: tuple[float, float]) -> Plain:
    gains: dict[str, list[float]] = {}
    optimism: dict[str, list[float]] = {}
    for repeat in range(options.repeats):
        without, with_them = (study_with(budget, replicates, options.sampler) for replicates in (0, 2))
        seeded = [replace(one, settings=replace(one.settings, seed=repeat)) for one in (without, with_them)]
        world = World(seeded[0], correlations, repeat)
        alone = choices(searched(seeded[0], world, options.workers), world)
        again = choices(searched(seeded[1], world, options.workers), world)
        base = alone["highest"][0]
        for name, (true, said) in {**alone, "replicates": again["posterior"]}.items():
            gains.setdefault(name, []).append(100 * (true - base))
            optimism.setdefault(name, []).append(100 * (said - true))
        optimism.setdefault("fresh seeds", []).append(100 * (again["fresh seeds"][1] - again["fresh seeds"][0]))
    return {
        "budget": budget,
        "correlations": list(correlations),
        "repeats": options.repeats,
        "gain_over_highest": {name: estimate(values) for name, values in gains.items()},
        "median_optimism": {name: median(values) for name, values in optimism.items()},
    }


def estimate(values: Sequence[float]) -> Plain:
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_95": half}


def answer_simulated(options: argparse.Namespace) -> None:
    """The command `answer-simulated`."""
    rows = []
    for words, correlations in WORLDS.items():
        for budget in options.budgets:
            rows.append({"world": words, **compared(options, budget, correlations)})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def add_answer_simulated(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--budgets", type=lambda text: [int(one) for one in text.split(",")], default=[320, 640])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sampler", default="random", help="tpe takes several times as long")
    parser.add_argument("--out", type=Path, help="a JSON file")


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_answer_simulated(given)
    answer_simulated(given.parse_args())
