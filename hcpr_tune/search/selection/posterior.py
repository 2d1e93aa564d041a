"""What each recipe is expected to score at the end: a Gaussian process over recipes and rungs.

The highest score of a search is the luckiest: it is the maximum of noisy scores. The posterior mean weighs a score by
its noise, by the scores at other rungs, by other seeds of the same recipe, and by the scores of recipes nearby.

A score of training t of recipe x at level i (a rung, or the end under a single schedule) is modelled as

    y = m_i + f(x, i) + g(x, i) + h_t + e

m: a mean per level. f: smooth in x (Matern 5/2), g: of that recipe alone; both are correlated between levels by
rho^distance. h: the training's seed. e: counting noise, from the number of images. The kernel's parameters are
estimated by their posterior mode, under priors wide enough for scores of 20 to 90 %. Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, chapters 2 and 5; the levels as in multi-task processes (Swersky et al., NeurIPS
2013).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hcpr_tune.common.noise import OWN_NOISE
from hcpr_tune.search.spec.dimensions import Params, Space
from hcpr_tune.search.spec.points import coordinates

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]


class Score(NamedTuple):
    """A measured score, a share. `recipe` and `training` number the recipes and their trainings.

    `variance`: of one image's contribution, if it is not simply counted or not.
    """

    recipe: int
    training: int
    level: int
    value: float
    images: int
    variance: float | None = None


class Estimated(NamedTuple):
    """Posterior mean and standard deviation of a recipe's expected score at the top level, over seeds."""

    mean: float
    deviation: float


PRIOR_MEANS = {"smooth": math.log(0.02), "own": math.log(0.012), "seed": math.log(0.01), "length": math.log(0.5)}
"""Logarithms of the standard deviations (shares) and of the length, in units of the unit cube's diagonal."""
PRIOR_DEVIATIONS = {"smooth": 0.7, "own": 0.7, "seed": 0.4, "length": 0.6}
PRIOR_CORRELATION, PRIOR_CORRELATION_DEVIATION = 0.8, 1.0
"""Of the logit of rho: 0.69 between two rungs, with the middle 95 % from 0.24 to 0.94."""
MEAN_DEVIATION, TOP_DEVIATION = 0.3, 0.03
"""Of a level's mean, and of its change from the last rung to the single schedule (1 to 3 points on digits)."""
TOP_DISTANCE = 0.5
"""From the last rung to the top, in steps from rung to rung: both are whole trainings."""
CLIP = 4.0
"""Scores further below the median than this many median absolute deviations (scaled) are raised to that: a collapse
says nothing about good recipes nearby."""


@dataclass(frozen=True)
class _Rows:
    """The scores as arrays, one row each."""

    recipe: np.ndarray[Any, np.dtype[np.int64]]
    training: np.ndarray[Any, np.dtype[np.int64]]
    level: np.ndarray[Any, np.dtype[np.int64]]
    noise: Array
    y: Array
    distance: Array
    """Between the recipes of two rows."""
    steps: Array
    """Between their levels."""


class _Kernel(NamedTuple):
    """The parameters: standard deviations, the length, and rho."""

    smooth: float
    own: float
    seed: float
    length: float
    rho: float

    @classmethod
    def of(cls, theta: Array) -> _Kernel:
        smooth, own, seed, length = (math.exp(min(3.0, max(-12.0, value))) for value in theta[:4])
        return cls(smooth, own, seed, length, 1 / (1 + math.exp(-min(6.0, max(-6.0, float(theta[4]))))))

    def recipes(self, distance: Array, same: Any, steps: Array) -> Array:
        """Covariance of f + g."""
        import numpy as np

        scaled = math.sqrt(5) * distance / self.length
        matern = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
        between: Array = (self.smooth**2 * matern + self.own**2 * same) * self.rho**steps
        return between


def estimates(space: Space, params: Sequence[Params], scores: Sequence[Score], levels: int) -> list[Estimated]:
    """Each recipe's expected score at the top level, `levels` - 1; O(n^3) in the number of scores, hence at most 300.

    `params`: the recipes' values, which `Score.recipe` counts from 0. Level `levels` - 2 is the last rung, if any.
    """
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    points, place = np.array([coordinates(one, space) for one in params]), _places(levels)
    rows = _rows(points, place, scores, max(1, len(space)))
    centre = np.array([*PRIOR_MEANS.values(), PRIOR_CORRELATION])
    width = np.array([*PRIOR_DEVIATIONS.values(), PRIOR_CORRELATION_DEVIATION])
    common = _level_means(rows.level[:, None], rows.level[None, :], levels)
    reference = float(np.median(rows.y))

    def surprise(theta: Array) -> float:
        try:
            factor = cho_factor(_covariance(_Kernel.of(theta), rows, common), lower=True)
        except np.linalg.LinAlgError:
            return 1e10
        residual = rows.y - reference
        fit = residual @ cho_solve(factor, residual) / 2 + np.log(np.diag(factor[0])).sum()
        return float(fit + (((theta - centre) / width) ** 2).sum() / 2)

    found = minimize(surprise, centre, method="L-BFGS-B", options={"maxiter": 40})
    kernel = _Kernel.of(found.x)
    factor = cho_factor(_covariance(kernel, rows, common), lower=True)
    top = levels - 1
    distance = _distances(points, points, max(1, len(space)))
    cross = kernel.recipes(
        distance[:, rows.recipe],
        np.arange(len(params))[:, None] == rows.recipe[None, :],
        np.abs(place[top] - place[rows.level])[None, :],
    ) + _level_means(np.array([[top]]), rows.level[None, :], levels)
    mean = reference + cross @ cho_solve(factor, rows.y - reference)
    prior = kernel.smooth**2 + kernel.own**2 + float(_level_means(np.array(top), np.array(top), levels))
    variance = prior - np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
    deviations = np.sqrt(np.maximum(variance, 0.0))
    return [Estimated(float(one), float(other)) for one, other in zip(mean, deviations, strict=True)]


def _places(levels: int) -> Array:
    """The levels along the training: rungs one step apart, the top half a step after the last."""
    import numpy as np

    places = np.arange(levels, dtype=float)
    if levels > 1:
        places[-1] = places[-2] + TOP_DISTANCE
    return places


def _rows(points: Array, place: Array, scores: Sequence[Score], dimensions: int) -> _Rows:
    import numpy as np

    recipe = np.array([one.recipe for one in scores])
    level = np.array([one.level for one in scores])
    images = np.array([one.images for one in scores], dtype=float)
    y = np.array([one.value for one in scores])
    for which in np.unique(level):
        y[level == which] = _clipped(y[level == which])
    share = np.clip(y, 1 / images, 1 - 1 / images)
    counted = share * (1 - share)
    of_one = np.array(
        [fallback if one.variance is None else one.variance for one, fallback in zip(scores, counted, strict=True)]
    )
    # At least as for a share with one image more or less than none or all.
    noise = OWN_NOISE * np.maximum(of_one, (1 - 1 / images) / images) / images
    near = _distances(points[recipe], points[recipe], dimensions)
    steps = np.abs(place[level][:, None] - place[level][None, :])
    return _Rows(recipe, np.array([one.training for one in scores]), level, noise, y, near, steps)


def _clipped(values: Array) -> Array:
    import numpy as np

    middle = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    raised: Array = np.maximum(values, middle - CLIP * spread) if spread else values
    return raised


def _distances(one: Array, other: Array, dimensions: int) -> Array:
    """Euclidean distances, as a share of the unit cube's diagonal."""
    import numpy as np

    squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
    distances: Array = np.sqrt(squares / dimensions)
    return distances


def _level_means(one: Any, other: Any, levels: int) -> Array:
    """Prior covariance of two levels' means: independent, except that the top is the last rung's plus a change."""
    import numpy as np

    top = levels - 1
    base_one, base_other = (np.where(level == top, max(0, top - 1), level) for level in (one, other))
    means: Array = MEAN_DEVIATION**2 * (base_one == base_other) + TOP_DEVIATION**2 * ((one == top) & (other == top))
    return means


def _covariance(kernel: _Kernel, rows: _Rows, common: Array) -> Array:
    import numpy as np

    same_recipe = rows.recipe[:, None] == rows.recipe[None, :]
    same_training = rows.training[:, None] == rows.training[None, :]
    between = kernel.recipes(rows.distance, same_recipe, rows.steps) + common
    whole: Array = between + kernel.seed**2 * same_training + np.diag(rows.noise + 1e-9)
    return whole


def best_of(found: Mapping[int, Estimated]) -> int:
    """The key with the highest mean; the lowest key in a tie."""
    return min(found, key=lambda key: (-found[key].mean, key))
