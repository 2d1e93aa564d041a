"""Samplers on recorded trainings: `python benchmarks/surfaces.py proposals --surface FILE [--out FILE]`.

Searches are simulated with the project's own decisions (`hcpr_tune.simulation`), with rungs and promotions as by
default. A point that a sampler suggests gets the training of the nearest recorded recipe that this search has not used
yet, on one of its two seeds, which is the same for all samplers. The first replicate gets the end of the other seed;
further ones are made up around the mean of both, since there is no third.

The figure: the truth of the recipe that the search chooses, the mean over both seeds on images that chose nothing,
less that of `random` with the same study seed. All arms try the same number of recipes; the epochs that they train are
shown.

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
from hcpr_tune.search.suggestion.registry import SamplerSpec
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.curves import Curve, other_seed
from hcpr_tune.simulation.search import Trainings, search_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool

Plain = dict[str, Any]


def without_liar(study: StudySpec, seed: int) -> Any:
    """TPE as it is, except that it does not take running trials for bad ones."""
    import optuna

    startup = study.settings.sampler.startup_trials
    return optuna.samplers.TPESampler(n_startup_trials=startup, multivariate=True, group=True, seed=seed)


WITHOUT_LIAR = SamplerSpec(without_liar, understands_rungs=True)
ARMS: dict[str, list[tuple[str, Any]]] = {
    "random": [("sampler.name", "random")],
    "qmc": [("sampler.name", "qmc")],
    "tpe": [("sampler.name", "tpe")],
    "tpe, startup 10": [("sampler.name", "tpe"), ("sampler.startup_trials", 10)],
    "tpe, no liar": [("sampler.name", "surface_proposals:WITHOUT_LIAR")],
    "gp": [("sampler.name", "gp")],
}
"""`random` first: the others are compared with it."""
USUAL = [name for name in ARMS if name != "tpe, no liar"]
"""With two workers most trials wait at a rung and few run, so that the liar changes next to no suggestion."""


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
        middle = Curve(robust, clean, robust, clean)
        return other_seed(middle, self.images, derive_seed(self.seed, "replicate", trial))

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
        return Curve(robust, clean, robust, clean, lost_at, ("diverged", training.diverged or "it diverges"))


def searched(recorded: Recorded, values: list[tuple[str, Any]], seed: int, workers: int) -> tuple[float, int]:
    """One search: the truth of its choice, in points, and the epochs that it trained."""
    study = recorded.surface.study(*values)
    study = replace(study, settings=replace(study.settings, seed=seed))
    play = Replay(recorded, study, seed)
    simulation = search_simulation(Trainings(study, play, Second()), WorkerPool(workers), Suggester(study))
    history: History = simulation.run()
    assert history.choice is not None
    epochs = sum(trial.last_epoch for trial in history.trials.values())
    return 100 * recorded.true(play.places[history.choice["trial"]]), epochs


def proposals_of(recorded: Recorded, trials: int, replicates: int, options: argparse.Namespace) -> list[Plain]:
    """A row for each arm."""
    rows: list[Plain] = []
    base: list[float] = []
    for name in options.arms:
        values = [*ARMS[name], ("budget.trials", trials), ("replication.replicates", replicates)]
        began = time.perf_counter()
        found = [searched(recorded, values, seed, options.workers) for seed in range(options.repeats)]
        truths = [one[0] for one in found]
        base = base or truths
        rows.append(
            {
                "arm": name,
                "trials": trials,
                "replicates": replicates,
                "repeats": options.repeats,
                "truth": mean(truths),
                "gain_over_random": estimate([one - other for one, other in zip(truths, base, strict=True)]),
                "epochs": mean(one[1] for one in found),
                "seconds": (time.perf_counter() - began) / options.repeats,
            }
        )
        print(shown(rows[-1]), flush=True)
    return rows


def shown(row: Plain) -> str:
    """A row of a table in Markdown."""
    gain = row["gain_over_random"]
    difference = "" if row["arm"] == "random" else f"{gain['mean']:+.2f} ± {gain['half_95']:.2f}"
    cells = [row["trials"], row["replicates"], row["arm"], f"{row['truth']:.2f}", difference, f"{row['epochs']:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def proposals(options: argparse.Namespace) -> None:
    """The command `proposals`."""
    recorded = Recorded(read_surface(options.surface), options.mode)
    count = len(recorded.pairs)
    truths = [100 * recorded.true(place) for place in range(count)]
    surface = {"recipes": count, "lowest": min(truths), "mean": mean(truths), "highest": max(truths)}
    surface["neighbours"] = recorded.neighbours()
    print(json.dumps(surface) + "\n")
    print("| trials | replicates | sampler | true score, % | less random | epochs |\n" + "| --- " * 6 + "|", flush=True)
    rows: list[Plain] = []
    for trials in options.budgets:
        if 2 * trials > count:
            print(f"{trials} trials need {2 * trials} recorded recipes, left out", flush=True)
            continue
        for replicates in options.replicates:
            rows += proposals_of(recorded, trials, replicates, options)
    if options.out:
        found = {"machine": machine(), **surface, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def add_proposals(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--surface", type=Path, required=True, help="of `train`, or a table")
    parser.add_argument("--mode", default="annealed")
    parser.add_argument("--budgets", type=lambda text: [int(one) for one in text.split(",")], default=[16, 32])
    parser.add_argument("--replicates", type=lambda text: [int(one) for one in text.split(",")], default=[0, 2])
    parser.add_argument("--arms", type=lambda text: text.split(";"), default=USUAL, help="; in between")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file")
