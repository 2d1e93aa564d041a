"""Searches on recorded trainings: `python benchmarks/surfaces.py proposals --surface FILE [--out FILE]`.

Simulated with the project's own decisions (`hcpr_tune.simulation`). A point that a sampler suggests gets the training
of the nearest recorded recipe that this search has not used yet, on one of its two seeds, which is the same in all
arms. The first replicate gets the end of the other seed; further ones are made up around the mean of both, since there
is no third.

All arms spend the same epochs. `random, to the end` trains every recipe to the end; `asha` stops at rungs, and both
take the highest score at the last epoch, as most tools do. `posterior` takes the recipe that the posterior expects to
be the best; `replicates` is the default, which keeps a quarter of the epochs back to train the best again on fresh
seeds.

The figure: the truth of the recipe that the search chooses, the mean over both seeds on images that chose nothing,
less that of `random, to the end` with the same study seed.

`neighbours`: the rank correlation of a recipe's truth with that of the nearest other one. Where it is near 0 the
recorded recipes are too few, or their differences too uneven, for any sampler to learn here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from answer_simulated import Second, estimate
from figures import machine
from surface_scores import spearman, true_share
from surface_table import Surface, Training, read_surface

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.points import coordinates
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.curves import Curve, other_seed
from hcpr_tune.simulation.search import Trainings, search_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool

Plain = dict[str, Any]


HIGHEST: list[tuple[str, Any]] = [("replication.replicates", 0)]
WHOLE: list[tuple[str, Any]] = [*HIGHEST, ("early_stopping.method", "none")]


@dataclass(frozen=True)
class Arm:
    """What a search sets. `highest`: it takes the highest score, not what the search answers."""

    values: list[tuple[str, Any]]
    highest: bool = False
    graded: bool = False
    """Whether survivors at several radii say which recipe is best, not those at epsilon alone."""


ARMS = {
    "random, to the end": Arm([("sampler.name", "random"), *WHOLE], highest=True),
    "tpe, to the end": Arm([("sampler.name", "tpe"), *WHOLE], highest=True),
    "random, asha": Arm([("sampler.name", "random"), *HIGHEST], highest=True),
    "tpe, asha": Arm([("sampler.name", "tpe"), *HIGHEST], highest=True),
    "random, asha, posterior": Arm([("sampler.name", "random"), *HIGHEST]),
    "tpe, asha, posterior": Arm([("sampler.name", "tpe"), *HIGHEST]),
    "tpe, asha, posterior, graded": Arm([("sampler.name", "tpe"), *HIGHEST], graded=True),
    "random, asha, replicates": Arm([("sampler.name", "random")]),
    "qmc, asha, replicates": Arm([("sampler.name", "qmc")]),
    "tpe, asha, replicates": Arm([("sampler.name", "tpe")]),
    "random, asha, replicates, graded": Arm([("sampler.name", "random")], graded=True),
    "tpe, asha, replicates, graded": Arm([("sampler.name", "tpe")], graded=True),
    "tpe from the start, asha, replicates": Arm([("sampler.name", "tpe"), ("sampler.startup_trials", 3)]),
    "gp, asha, replicates": Arm([("sampler.name", "gp")]),
}
"""The first one is what the others are compared with."""


@dataclass(frozen=True)
class Recorded:
    """The recipes of a surface that have two seeds."""

    surface: Surface
    mode: str

    @cached_property
    def pairs(self) -> list[list[Training]]:
        return list(self.surface.pairs(self.mode).values())

    @cached_property
    def points(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        space = self.surface.study().space
        return np.array([coordinates(pair[0].params, space) for pair in self.pairs])

    def true(self, place: int) -> float:
        """Share of the other images that survive, the mean over seeds; one that diverged keeps none."""
        return mean(true_share(one, "last") if one.truth else 0.0 for one in self.pairs[place])

    def neighbours(self) -> float:
        """Rank correlation of the truth with that of the nearest other recipe."""
        squares = ((self.points[:, None] - self.points[None]) ** 2).sum(axis=2)
        np.fill_diagonal(squares, np.inf)
        truths = np.array([self.true(place) for place in range(len(self.pairs))])
        return float(spearman(truths[None, :], truths[squares.argmin(axis=1)][None, :])[0])


@dataclass
class Replay:
    """A `Play` of recorded trainings."""

    recorded: Recorded
    study: StudySpec
    seed: int
    graded: bool = False
    places: dict[int, int] = field(default_factory=dict)
    """Which recorded recipe each trial got."""
    again: dict[int, list[int]] = field(default_factory=dict)
    """Replicates by the trial that they repeat."""

    @property
    def epochs(self) -> Sequence[int]:
        return self.study.rungs

    @property
    def images(self) -> int:
        return self.recorded.surface.validation_images

    def curve(self, trial: int, params: Params) -> Curve:
        if trial not in self.places:
            point = np.array(coordinates(params, self.study.space))
            squares = ((self.recorded.points - point) ** 2).sum(axis=1)
            squares[list(self.places.values())] = np.inf
            self.places[trial] = int(squares.argmin())
        place = self.places[trial]
        return self._of(self.recorded.pairs[place][self._drawn(place)])

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        place = self.places[of]
        same = self.again.setdefault(of, [])
        if trial not in same:
            same.append(trial)
        pair = self.recorded.pairs[place]
        if trial == same[0]:
            return self._of(pair[1 - self._drawn(place)])
        whole = [self._of(one) for one in pair if not one.diverged]
        if not whole:
            return self._of(pair[0])
        robust, clean = (
            np.mean([getattr(one, kind) for one in whole], axis=0).tolist() for kind in ("robust", "clean")
        )
        middle = Curve(robust, clean, robust, clean, survivors=mean_survivors(whole))
        return other_seed(middle, self.images, derive_seed(self.seed, "replicate", trial))

    def _survivors(self, training: Training) -> tuple[tuple[float, float], ...]:
        surface = self.recorded.surface
        if not self.graded or surface.epochs not in training.scores:
            return ()
        counts = training.scores[surface.epochs]["last"][1:]
        return tuple((radius, count / self.images) for radius, count in zip(surface.radii, counts, strict=True))

    def _drawn(self, place: int) -> int:
        """Which of its seeds a recipe is tried with: the same in all searches with this seed."""
        return derive_seed(self.seed, "which seed", self.recorded.pairs[place][0].recipe) % 2

    def _of(self, training: Training) -> Curve:
        reached = [epoch for epoch in self.epochs if epoch in training.scores]
        at = self.recorded.surface.radii.index(1.0)
        counts = [training.scores[epoch]["last"] for epoch in reached]
        # Where it diverged nothing is read beyond.
        missing = [0.0] * (len(self.epochs) - len(reached))
        clean = [one[0] / self.images for one in counts] + missing
        robust = [one[1 + at] / self.images for one in counts] + missing
        lost_at = (reached[-1] if reached else 0) + 1 if training.diverged else 0
        reason = ("diverged", training.diverged or "it diverges")
        return Curve(robust, clean, robust, clean, lost_at, reason, survivors=self._survivors(training))


def mean_survivors(curves: Sequence[Curve]) -> tuple[tuple[float, float], ...]:
    """At each radius, the mean share of survivors."""
    at_radii = zip(*(curve.survivors for curve in curves), strict=True)
    return tuple((pairs[0][0], mean(share for _, share in pairs)) for pairs in at_radii)


@dataclass(frozen=True)
class Searched:
    """What came of a search: the truth of its choice, in points, the epochs it trained and the recipes it tried."""

    truth: float
    epochs: int
    recipes: int


def searched(recorded: Recorded, arm: Arm, budget: int, seed: int, workers: int) -> Searched:
    """One search of so many epochs."""
    values = [*arm.values, ("budget.trials", len(recorded.pairs)), ("budget.worker_hours", budget / 3600)]
    study = recorded.surface.study(*values)
    study = replace(study, settings=replace(study.settings, seed=seed))
    play = Replay(recorded, study, seed, arm.graded)
    simulation = search_simulation(Trainings(study, play, Second()), WorkerPool(workers), Suggester(study))
    history: History = simulation.run()
    chosen = highest(history) if arm.highest else answer(history)
    epochs = sum(trial.last_epoch for trial in history.trials.values())
    return Searched(100 * recorded.true(play.places[chosen]), epochs, len(play.places))


def highest(history: History) -> int:
    """The trial with the highest score at the last epoch."""
    ended = [trial for trial in history.ranked() if history.last_epoch in trial.rungs]
    return max(ended, key=lambda trial: trial.rungs[history.last_epoch]).number


def answer(history: History) -> int:
    assert history.choice is not None
    number: int = history.choice["trial"]
    return number


def row_of(recorded: Recorded, name: str, budget: int, base: Sequence[Searched], options: argparse.Namespace) -> Plain:
    """A row of the table, and what it was made of. `base`: of the first arm, empty for that one itself."""
    began = time.perf_counter()
    found = [searched(recorded, ARMS[name], budget, seed, options.workers) for seed in range(options.repeats)]
    pairs = list(zip(found, base or found, strict=True))
    row: Plain = {"budget": budget, "arm": name, "repeats": options.repeats, "truth": mean(one.truth for one in found)}
    row["gain"] = estimate([one.truth - other.truth for one, other in pairs])
    row["at_least_as_good"] = sum(one.truth >= other.truth for one, other in pairs)
    row |= {"epochs": mean(one.epochs for one in found), "recipes": mean(one.recipes for one in found)}
    row["seconds"] = (time.perf_counter() - began) / options.repeats
    return row | {"found": found}


def shown(row: Plain) -> str:
    """A row of a table in Markdown."""
    gain, first = row["gain"], row["arm"] == next(iter(ARMS))
    difference = "" if first else f"{gain['mean']:+.2f} ± {gain['half_95']:.2f}"
    cells = [row["budget"], row["arm"], f"{row['recipes']:.0f}", f"{row['epochs']:.0f}", f"{row['truth']:.2f}"]
    return f"| {' | '.join([*map(str, cells), difference])} |"


def proposals(options: argparse.Namespace) -> None:
    """The command `proposals`."""
    recorded = Recorded(read_surface(options.surface), options.mode)
    count = len(recorded.pairs)
    truths = [100 * recorded.true(place) for place in range(count)]
    surface = {"recipes": count, "lowest": min(truths), "mean": mean(truths), "highest": max(truths)}
    surface["neighbours"] = recorded.neighbours()
    print(json.dumps(surface) + "\n")
    print("| budget | arm | recipes | epochs | true score, % | less the first |\n" + "| --- " * 6 + "|", flush=True)
    rows: list[Plain] = []
    for budget in options.budgets:
        base: list[Searched] = []
        for name in options.arms:
            row = row_of(recorded, name, budget, base, options)
            base = base or row["found"]
            row["truths"] = [round(one.truth, 3) for one in row.pop("found")]
            rows.append(row)
            print(shown(row), flush=True)
    if options.out:
        found = {"machine": machine(), **surface, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def add_proposals(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--surface", type=Path, required=True, help="of `train`, or a table")
    parser.add_argument("--mode", default="annealed")
    budgets = {"type": lambda text: [int(one) for one in text.split(",")], "default": [150, 300, 450]}
    parser.add_argument("--budgets", **budgets, help="epochs")
    parser.add_argument("--arms", type=lambda text: text.split(";"), default=list(ARMS), help="; in between")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file")
