"""Statistics for comparing recipes, with seeds and images as crossed random effects.

Throughout, `survive` is (seeds, images) of 0 and 1: whether an image survives the attack on a seed's model. Both
recipes of a comparison have the same images in the same order, and seeds of their own.

The model: survive[s, i] = mean + seed[s] + image[i] + residual[s, i], for each recipe. The difference of two means then
varies by three parts: the seeds of both, the images (by what the recipes' image effects differ, as the images are the
same), and the residual, which is a new draw for each seed and image. The variance of a recipe's accuracies over its
seeds contains its residual, and so does the variance of the difference over the images; adding both would count it
twice. So it is subtracted once (Searle, Casella and McCulloch, Variance Components, 1992, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcpr_tune.common.noise import SEED_DEVIATION

SURE = 0.05
POWER = 0.8
QUANTILES = 60
"""Of each recipe's noise of seeds, over which the power is averaged."""
EXPONENT = 1.5
"""How the share of a part in the variance lowers the degrees of freedom towards those of that part.

Chosen by simulation, so that equal recipes are told apart in nearly 5 % of cases for 2 to 5 seeds. With Satterthwaite's
2, two seeds whose accuracies happen to be close make a small variance and many degrees of freedom at once, and 7 % are
told apart; with 1 it is 3 to 4 %. See `benchmarks/verdict.py statistics`.
"""
DIFFERING = (0.05, 0.07)
"""The shares of images on which two models of one recipe, and of two recipes, differ under attack. On digits at epsilon
0.15 two seeds differ on 3.6 to 5.8 %, two recipes on 4 to 7 % (docs/benchmarks.md); where fewer images survive it is
more.
"""


@dataclass(frozen=True)
class Variance:
    """The variance of a mean, or of a difference of means: seeds (with the residual) and images, and its degrees of
    freedom. With one seed the seeds' part is unknown and left out. Arrays: of as many comparisons.
    """

    seeds: np.ndarray
    images: np.ndarray
    degrees: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        deviation: np.ndarray = np.sqrt(self.seeds + self.images)
        return deviation

    def half(self) -> np.ndarray:
        """Half the width of the 95 % interval."""
        from scipy.special import stdtrit

        width: np.ndarray = stdtrit(self.degrees, 1 - SURE / 2) * self.deviation
        return width

    def p(self, value: np.ndarray | float) -> np.ndarray:
        """Two-sided, for a true value of 0."""
        from scipy.special import stdtr

        p: np.ndarray = np.minimum(1.0, 2 * stdtr(self.degrees, -np.abs(value) / self.deviation))
        return p


def variance_of(recipes: Sequence[np.ndarray], of_image: np.ndarray) -> Variance:
    """The variance of the mean of `of_image`, which is a mean or a difference of means over the seeds of `recipes`.

    recipes: (..., seeds, images) each; of_image: (..., images). The images' part is at least what one image would make
    of it, as images that are all alike do not show that all others are.
    """
    images = of_image.shape[-1]
    free, least = max(1, images - 1), 1 / images**2
    spread = ((of_image - of_image.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1) / free / images
    if min(survive.shape[-2] for survive in recipes) < 2:
        return Variance(np.zeros_like(spread), np.maximum(spread, least), np.full_like(spread, free))
    parts = [
        (survive.mean(axis=-1).var(axis=-1, ddof=1) / survive.shape[-2], survive.shape[-2] - 1) for survive in recipes
    ]
    seeds = np.sum([part for part, _ in parts], axis=0)
    residual = np.sum([_residual(survive) / (survive.shape[-2] * images) for survive in recipes], axis=0)
    from_images = np.maximum(spread - residual, least)
    # Welch's degrees of freedom of the seeds, whose noise may differ between the recipes.
    of_seeds = seeds**2 / np.maximum(np.sum([part**2 / count for part, count in parts], axis=0), 1e-300)
    return Variance(seeds, from_images, degrees_of_freedom([(seeds, of_seeds), (from_images, free)]))


def _residual(survive: np.ndarray) -> np.ndarray:
    """The mean square of what neither seed nor image explains: (..., seeds, images) -> (...)."""
    seeds, images = survive.shape[-2:]
    of_seed, of_image = survive.mean(axis=-1), survive.mean(axis=-2)
    mean = of_seed.mean(axis=-1)
    # An entry of 0 or 1 is its own square.
    squares = seeds * images * (mean + mean**2) - images * (of_seed**2).sum(axis=-1) - seeds * (of_image**2).sum(-1)
    variance: np.ndarray = np.maximum(0.0, squares) / ((seeds - 1) * max(1, images - 1))
    return variance


def degrees_of_freedom(parts: Sequence[tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
    """Of a sum of variances, from each with its own degrees of freedom."""
    total = np.sum([part for part, _ in parts], axis=0)
    inverse = [(part / total) ** EXPONENT / np.maximum(1.0, free) for part, free in parts]
    degrees: np.ndarray = 1 / np.sum(inverse, axis=0)
    return degrees


@dataclass(frozen=True)
class Mean:
    """The mean over seeds, their standard deviation (None for one seed), and the mean's 95 % interval, as shares."""

    mean: float
    deviation: float | None
    per_seed: tuple[float, ...]
    low: float
    high: float

    def to_plain(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "per_seed": list(self.per_seed),
            "low_95": self.low,
            "high_95": self.high,
        }


def mean_over_seeds(survive: np.ndarray) -> Mean:
    """Mean and sample standard deviation over seeds of the share that survives, (seeds, images) -> `Mean`."""
    shares = survive.mean(axis=1)
    deviation = float(shares.std(ddof=1)) if len(shares) > 1 else None
    mean = float(shares.mean())
    half = float(variance_of([survive], survive.mean(axis=0)).half())
    return Mean(mean, deviation, tuple(map(float, shares)), max(0.0, mean - half), min(1.0, mean + half))


@dataclass(frozen=True)
class Difference:
    """A recipe's share minus another's, its 95 % interval and two-sided p; `adjusted` is p after Holm.

    `seeds`: the smaller number of seeds of the two. With one seed, interval and p compare two models over images only,
    so that nothing can be found about the recipes.
    """

    value: float
    low: float
    high: float
    p: float
    adjusted: float
    seeds: int = 2

    @property
    def found(self) -> bool:
        return self.seeds > 1 and self.adjusted < SURE

    def to_plain(self) -> dict[str, Any]:
        return {
            "difference": self.value,
            "low_95": self.low,
            "high_95": self.high,
            "p": self.p,
            "p_holm": self.adjusted,
            "found": self.found,
            "seeds": self.seeds,
        }


def differences(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Difference]:
    """The first of each pair minus the second, with Holm's adjustment over all pairs.

    Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    found = {}
    for name, (one, other) in pairs.items():
        of_image = one.mean(axis=0) - other.mean(axis=0)
        value, variance = float(of_image.mean()), variance_of([one, other], of_image)
        half = float(variance.half())
        found[name] = value, max(-1.0, value - half), min(1.0, value + half), float(variance.p(value))
    adjusted = holm([p for *_, p in found.values()])
    seeds = {name: min(len(one), len(other)) for name, (one, other) in pairs.items()}
    return {
        name: Difference(*values, adjusted=p, seeds=seeds[name])
        for (name, values), p in zip(found.items(), adjusted, strict=True)
    }


def smallest_difference(images: int, seeds: int, differing: tuple[float, float] = DIFFERING) -> float:
    """The difference of two recipes, as a share, that images and seeds of each show with a probability of 80 %.

    With one seed: of two models, over images alone. For a single comparison; Holm's adjustment makes it larger.
    """
    from scipy.special import ndtr, stdtrit

    variance, deviation = _expected_variances(images, seeds, differing)
    least = stdtrit(variance.degrees, 1 - SURE / 2) * variance.deviation
    low, high = 0.0, 1.0
    for _ in range(30):  # halvings: to a billionth
        middle = (low + high) / 2
        enough = ndtr((middle - least) / deviation).mean() >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def _expected_variances(images: int, seeds: int, differing: tuple[float, float]) -> tuple[Variance, float]:
    """The variances that verdicts would find, at quantiles of the seeds' own noise, and the true standard deviation."""
    from scipy.special import gammaincinv

    of_one_recipe, of_two = differing
    free, from_images = max(1, images - 1), of_two / images
    if seeds < 2:
        one = np.array([from_images])
        return Variance(0 * one, one, np.full(1, free)), math.sqrt(from_images)
    # A model's residual makes half of the images on which two models of one recipe differ.
    of_seeds = (SEED_DEVIATION**2 + of_one_recipe / 2 / images) / seeds
    from_images -= of_one_recipe / images
    share = (np.arange(QUANTILES) + 0.5) / QUANTILES
    factors = 2 * gammaincinv((seeds - 1) / 2, share) / (seeds - 1)  # chi-square quantiles over degrees of freedom
    first, second = of_seeds * factors[:, None], of_seeds * factors[None, :]
    found = first + second
    own = (seeds - 1) * found**2 / (first**2 + second**2)
    degrees = degrees_of_freedom([(found, own), (np.full_like(found, from_images), free)])
    return Variance(found, np.full_like(found, from_images), degrees), math.sqrt(2 * of_seeds + from_images)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class McNemar:
    """Two models on the same images: images only the first survives, only the second, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float

    def to_plain(self) -> dict[str, Any]:
        return {"only_first": self.only_first, "only_second": self.only_second, "p": self.p}


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947) on which images survive on each of two models, (images,) each."""
    from scipy.stats import binomtest

    one, other = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return McNemar(one, other, p)
