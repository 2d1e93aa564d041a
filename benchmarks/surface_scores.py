"""Which score ranks recipes best: `python benchmarks/surfaces.py scores --surface FILE [--out FILE]`.

A score of one seed is compared with the truth of the other seed of the same recipe, on images that chose nothing, so
that they share no luck; both ways round, averaged. The scores differ in the weights that are attacked, the epochs and
the radii; `as is` attacks the last weights at epsilon after the last epoch. All need the same training, and as many
attacks on the validation images as the table says. Spearman's rank correlation over the recipes that did not collapse,
and over the better half of them by truth; a paired bootstrap over recipes gives the difference to `as is`.

`kept`: truth of the weights that the score would keep, the averaged ones where it attacks them; else of the last ones.
`picked`: that truth of the recipe with the highest score of 16 that are drawn at random, collapsed ones among them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import machine
from surface_table import WEIGHTS, Surface, Training, read_surface

from hcpr_tune.common.collapse import has_collapsed

Plain = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.integer[Any]]]
"""Of recipes, in rows of which each gives a figure."""
LATE = 3
"""The last epochs, all of which are scored."""
EARLY = (3, 9)
RADII = {"epsilon": (1.0,), "0.75 to 1.25": (0.75, 1.0, 1.25), "0.5 to 1.5": (0.5, 0.75, 1.0, 1.25, 1.5)}
DRAWN = 16
"""Recipes of which the highest score is picked."""
GROUPS = 200
"""Draws of so many recipes, for each resample of the bootstrap."""
CLASSES = 10
LEAST = 8
"""Recipes, below which nothing can be said."""


@dataclass(frozen=True)
class Candidate:
    """A score: the mean share of survivors over weights, epochs and radii."""

    weights: tuple[str, ...]
    epochs: tuple[int, ...]
    radii: tuple[float, ...]
    name: str

    @property
    def kept(self) -> str:
        """The weights that a search that scores so would keep."""
        return self.weights[-1]

    @property
    def attacks(self) -> int:
        return len(self.weights) * len(self.epochs) * len(self.radii)

    def of(self, training: Training, surface: Surface) -> float:
        counts = [
            training.scores[epoch][name][1 + surface.radii.index(radius)]
            for epoch in self.epochs
            for name in self.weights
            for radius in self.radii
        ]
        return float(np.mean(counts)) / surface.validation_images


def candidates(last_epoch: int) -> list[Candidate]:
    """`as is` first. All of them are scored at the last epochs, then each rung before them."""
    late = tuple(range(last_epoch - LATE + 1, last_epoch + 1))
    places = {f"epoch {last_epoch}": (last_epoch,), f"last {LATE} epochs": late}
    places |= {f"epoch {epoch}": (epoch,) for epoch in EARLY}
    return [
        Candidate(weights, epochs, radii, f"{' + '.join(weights)}, {when}, {words}")
        for when, epochs in places.items()
        for weights in ((WEIGHTS[0],), (WEIGHTS[1],), WEIGHTS)
        for words, radii in RADII.items()
    ]


def true_share(training: Training, weights: str) -> float:
    return training.truth[weights][1] / training.true_images


def collapsed(training: Training, surface: Surface) -> bool:
    clean = training.scores[surface.epochs]["last"][0]
    return has_collapsed(clean, surface.validation_images, surface.validation_images / CLASSES)


@dataclass(frozen=True)
class Pairs:
    """Score of one seed and truth of the other, over recipes; the same shape (2 directions, recipes)."""

    scores: Array
    last: Array
    """Truth of the last weights."""
    kept: Array
    """Truth of the weights that the score would keep."""

    @classmethod
    def of(cls, candidate: Candidate, recipes: Sequence[Sequence[Training]], surface: Surface) -> Pairs:
        scores = np.array([[candidate.of(pair[seed], surface) for pair in recipes] for seed in (0, 1)])
        last, kept = (
            np.array([[true_share(pair[1 - seed], weights) for pair in recipes] for seed in (0, 1)])
            for weights in ("last", candidate.kept)
        )
        return cls(scores, last, kept)

    def correlation(self, resamples: Places, truth: str, better_half: bool) -> Array:
        """Spearman's rank correlation in each row of places, the mean of both directions.

        `better_half`: of the recipes in each row, by the truth that is to be predicted.
        """
        ways = []
        for way in (0, 1):
            true, at = getattr(self, truth)[way], resamples
            if better_half:
                best = np.argsort(-true[at], axis=1, kind="stable")[:, : at.shape[1] // 2]
                at = np.take_along_axis(at, best, axis=1)
            ways.append(spearman(self.scores[way][at], true[at]))
        mean: Array = np.mean(ways, axis=0)
        return mean

    def picked(self, resamples: Places, groups: Places) -> Array:
        """Truth of the highest score, in points: the mean over groups of places in a resample and over directions."""
        ways = []
        for way in (0, 1):
            drawn = resamples[:, groups]
            best = self.scores[way][drawn].argmax(axis=2)
            ways.append(np.take_along_axis(self.kept[way][drawn], best[:, :, None], axis=2)[:, :, 0].mean(axis=1))
        mean: Array = 100 * np.mean(ways, axis=0)
        return mean


def spearman(one: Array, other: Array) -> Array:
    """Row by row; not a number where a row is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(values, axis=1) for values in (one, other))
    first, second = first - first.mean(axis=1, keepdims=True), second - second.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: Array = (first * second).sum(axis=1) / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return found


def compared(
    of: Callable[[Pairs, Places], Array], candidate: Pairs, as_is: Pairs, whole: Places, drawn: Places
) -> Plain:
    """A figure, and its difference to that of `as is` with the 95 % interval of a paired bootstrap."""
    differences = of(candidate, drawn) - of(as_is, drawn)
    low, high = np.nanquantile(differences, (0.025, 0.975))
    value, base = float(of(candidate, whole)[0]), float(of(as_is, whole)[0])
    return {"value": value, "difference": value - base, "interval": [float(low), float(high)]}


QUESTIONS = {
    "all": partial(Pairs.correlation, truth="last", better_half=False),
    "better half": partial(Pairs.correlation, truth="last", better_half=True),
    "all, kept": partial(Pairs.correlation, truth="kept", better_half=False),
    "better half, kept": partial(Pairs.correlation, truth="kept", better_half=True),
}
"""Of the recipes that did not collapse. kept: the truth of the weights that the score would keep."""


def scores_of(surface: Surface, mode: str, resamples: int, seed: int = 0) -> Plain:
    """All figures. Raises `SystemExit` where there are too few recipes."""
    complete = [pair for pair in surface.pairs(mode).values() if not any(one.diverged for one in pair)]
    good = [pair for pair in complete if not any(collapsed(one, surface) for one in pair)]
    if len(good) < LEAST:
        raise SystemExit(
            f"{LEAST} recipes with two seeds that did not collapse are needed, got {len(good)}; train more"
        )
    draws = np.random.default_rng(seed)
    whole, drawn = np.arange(len(good))[None, :], draws.integers(0, len(good), (resamples, len(good)))
    every, again = np.arange(len(complete))[None, :], draws.integers(0, len(complete), (resamples // 4, len(complete)))
    groups = draws.integers(0, len(complete), (GROUPS, DRAWN))
    tried = candidates(surface.epochs)
    pairs, of_complete = ([Pairs.of(one, recipes, surface) for one in tried] for recipes in (good, complete))
    rows = []
    for place, candidate in enumerate(tried):
        row: Plain = {"score": candidate.name, "attacks": candidate.attacks}
        row |= {name: compared(of, pairs[place], pairs[0], whole, drawn) for name, of in QUESTIONS.items()}
        picked = compared(partial(Pairs.picked, groups=groups), of_complete[place], of_complete[0], every, again)
        rows.append(row | {"picked": picked})
    truths = pairs[0].last
    swapped = Pairs(truths[::-1], truths, truths)
    return {
        "recipes": len(complete),
        "not_collapsed": len(good),
        "spread_of_truth": float(100 * truths.mean(axis=0).std(ddof=1)),
        "truth_of_the_other_seed": {name: float(of(swapped, whole)[0]) for name, of in list(QUESTIONS.items())[:2]},
        "rows": rows,
    }


def shown(found: Plain) -> str:
    """The figures as a table in Markdown."""
    lines = [
        f"{found['recipes']} recipes with two seeds, {found['not_collapsed']} without a collapse, whose truth has a"
        f" standard deviation of {found['spread_of_truth']:.1f} points. Truth of the other seed: "
        + ", ".join(f"{name} {value:.2f}" for name, value in found["truth_of_the_other_seed"].items()),
        "",
        "| score | attacks | all | less as is | better half | less as is | all, kept | less as is |"
        " picked, % | less as is, points |",
        "| --- " * 10 + "|",
    ]
    for row in found["rows"]:
        cells = [row["score"], str(row["attacks"])]
        for name in ("all", "better half", "all, kept"):
            cells += figure(row[name], 2)
        lines.append(f"| {' | '.join(cells + figure(row['picked'], 1))} |")
    return "\n".join(lines)


def figure(of: Plain, digits: int) -> list[str]:
    low, high = of["interval"]
    difference = f"{of['difference']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return [f"{of['value']:.{digits}f}", difference]


def scores(options: argparse.Namespace) -> None:
    """The command `scores`."""
    found = scores_of(read_surface(options.surface), options.mode, options.resamples)
    print(shown(found))
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")


def add_scores(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--surface", type=Path, required=True, help="of `train`, or a table")
    parser.add_argument("--mode", default="annealed")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="a JSON file")
