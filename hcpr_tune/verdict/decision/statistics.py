"""Statistics for comparing recipes, with the variation between seeds and the sampling of images.

Throughout, `survive` is (seeds, images) of 0 and 1: whether an image survives the attack on a seed's model. Both
recipes of a comparison have the same images in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 4_000
CELLS = 4_000_000
"""Resampled images that are drawn at once, to limit the memory."""
SURE = 0.05


@dataclass(frozen=True)
class Mean:
    """The mean over seeds and their standard deviation (None for one seed), as shares."""

    mean: float
    deviation: float | None
    per_seed: tuple[float, ...]

    def to_plain(self) -> dict[str, Any]:
        return {"mean": self.mean, "standard_deviation": self.deviation, "per_seed": list(self.per_seed)}


def mean_over_seeds(survive: np.ndarray) -> Mean:
    """Mean and sample standard deviation over seeds of the share that survives, (seeds, images) -> `Mean`."""
    shares = survive.mean(axis=1)
    deviation = float(shares.std(ddof=1)) if len(shares) > 1 else None
    return Mean(float(shares.mean()), deviation, tuple(map(float, shares)))


@dataclass(frozen=True)
class Difference:
    """A recipe's share minus another's, its 95 % interval and two-sided p by the bootstrap; `adjusted` is p after Holm.

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


def bootstrap_differences(one: np.ndarray, other: np.ndarray, seed: int = 0) -> np.ndarray:
    """The difference of means, resampled `RESAMPLES` times over each recipe's seeds and the images of both jointly.

    Resampling n seeds underestimates the variance between new seeds by a factor (n - 1) / n, a third too little for
    three seeds; to correct for it, each resampled mean is moved away from the mean by the square root of the inverse
    (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8). With one seed the interval does not cover the variation
    between seeds.
    """
    generator = np.random.default_rng(seed)
    images = one.shape[1]
    drawn = []
    for size in _parts(RESAMPLES, max(1, CELLS // images)):
        by_image = _resampled_seeds(one, size, generator) - _resampled_seeds(other, size, generator)
        weights = generator.multinomial(images, np.full(images, 1 / images), size=size)
        drawn.append(np.einsum("ri,ri->r", by_image, weights) / images)
    return np.concatenate(drawn)


def _parts(total: int, most: int) -> list[int]:
    return [min(most, total - begun) for begun in range(0, total, most)]


def _resampled_seeds(survive: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Means over resampled seeds, (seeds, images) -> (size, images)."""
    seeds = len(survive)
    mean = survive.mean(axis=0)
    if seeds == 1:
        return np.broadcast_to(mean, (size, len(mean)))
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
    moved: np.ndarray = mean + math.sqrt(seeds / (seeds - 1)) * (counts @ survive - mean)
    return moved


def differences(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> dict[str, Difference]:
    """The first of each pair minus the second, with Holm's adjustment over all pairs.

    Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    found = {}
    for name, (one, other) in pairs.items():
        drawn = bootstrap_differences(one.astype(float), other.astype(float), seed)
        low, high = np.quantile(drawn, [0.025, 0.975])
        # One more on each side, since no finite number of draws justifies p = 0.
        below, above = (int((drawn <= 0).sum()) + 1, int((drawn >= 0).sum()) + 1)
        p = min(1.0, 2 * min(below, above) / (RESAMPLES + 1))
        found[name] = float(one.mean() - other.mean()), float(low), float(high), p
    adjusted = holm([p for *_, p in found.values()])
    seeds = {name: min(len(one), len(other)) for name, (one, other) in pairs.items()}
    return {
        name: Difference(*values, adjusted=p, seeds=seeds[name])
        for (name, values), p in zip(found.items(), adjusted, strict=True)
    }


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
