"""Images that survive on the models of two recipes, drawn with known truth, to check a verdict's statistics by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ENTRIES = 2_000_000
"""Images of models that are drawn at once, to limit the memory."""
ALWAYS, NEVER, SHAPE, CORRELATION = 0.35, 0.25, (0.6, 0.5), 0.95
"""The shares of images that survive on every model of a recipe and on none, the beta distribution of the others'
probabilities, and the correlation between recipes. With these, half of the images survive, and models differ as in
`DIFFERING`.
"""
DIFFERING = (0.10, 0.14)
"""The shares of images on which two models of one recipe, and of two recipes, differ: a harder task than digits."""


@dataclass(frozen=True)
class TwoRecipes:
    """Two recipes: their seeds, their noise of seeds (standard deviations of the true accuracy), and by how much the
    first is better. Both have the same distribution of images.
    """

    images: int
    seeds: tuple[int, int]
    deviations: tuple[float, float]
    gain: float = 0.0


def image_probabilities(count: int, generator: np.random.Generator) -> np.ndarray:
    """The probabilities with which images survive on a new model of each recipe, (2, 2 * count).

    Each pair of probabilities is there in both orders, so that the recipes are exactly equal.
    """
    from scipy.special import betaincinv, ndtr

    normal = generator.standard_normal((2, count))
    normal[1] = CORRELATION * normal[0] + (1 - CORRELATION**2) ** 0.5 * normal[1]
    between = ((ndtr(normal) - NEVER) / (1 - NEVER - ALWAYS)).clip(0, 1)
    found = betaincinv(*SHAPE, between)
    return np.concatenate([found, found[::-1]], axis=1).astype(np.float32)


def drawn(
    recipes: TwoRecipes, probabilities: np.ndarray, repeats: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of verdicts, each on new images and seeds: (repeats, seeds, images) of 0 and 1 for both recipes.

    A seed moves the images that are neither sure to survive nor sure not to, in proportion to p (1 - p).
    """
    open_images = probabilities * (1 - probabilities)
    open_images /= open_images.mean(axis=1, keepdims=True)
    most = max(1, ENTRIES // (recipes.images * max(recipes.seeds)))
    for begun in range(0, repeats, most):
        count = min(most, repeats - begun)
        chosen = generator.integers(probabilities.shape[1], size=(count, 1, recipes.images))
        both = []
        for index, (seeds, deviation) in enumerate(zip(recipes.seeds, recipes.deviations, strict=True)):
            moved = deviation * generator.standard_normal((count, seeds, 1)) + (recipes.gain if index == 0 else 0.0)
            shares = probabilities[index][chosen] + moved.astype(np.float32) * open_images[index][chosen]
            both.append(generator.random((count, seeds, recipes.images), dtype=np.float32) < shares)
        yield both[0], both[1]
