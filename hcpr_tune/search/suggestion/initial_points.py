"""Points that need no model: the published recipe, user and warm-start points, Sobol points, and draws from priors."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import (
    CALIBRATION,
    ENQUEUED,
    FIRST_POINT,
    PUBLISHED,
    WARM_START,
    History,
    OldTrial,
    Source,
)
from hcpr_tune.search.spec.dimensions import Choice, Dimension, Params, Prior, Range, Value, active_params
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import StudySpec

if TYPE_CHECKING:
    import numpy as np

WARM_STARTS = 3
"""How many of an earlier study's best points are tried first."""


def planned_point(study: StudySpec, history: History) -> tuple[Params, Source] | None:
    """The next point that does not come from the sampler, or None.

    In this order: the published recipe, enqueued points, first points, an earlier study's best, calibration.
    """
    if not history.trials:
        return params_of(study.recipe, study.space), PUBLISHED
    if history.queue:
        return history.queue[0], ENQUEUED
    begun = history.by_source
    for points, source in ((study.first_points, FIRST_POINT), (best_old_points(study, history), WARM_START)):
        if begun[source] < len(points):
            return points[begun[source]], source
    if begun[CALIBRATION] < study.calibration - 1:
        return low_discrepancy_point(study, begun[CALIBRATION]), CALIBRATION
    return None


def low_discrepancy_point(study: StudySpec, index: int) -> Params:
    """Point `index` of a Sobol sequence over the space, scrambled with the study's seed."""
    seed = derive_seed(study.settings.seed, "low discrepancy")
    dimensions = max(1, len(study.space))
    shares = (
        _sobol(seed, dimensions, index.bit_length())[index]
        if index < MOST_KEPT
        else _sobol_sequence(seed, dimensions).fast_forward(index).random(1)[0]
    )
    return active_params(
        study.space,
        {
            name: dimension.at(float(share))
            for (name, dimension), share in zip(study.space.items(), shares, strict=False)
        },
    )


MOST_KEPT = 2**16
"""Number of points to cache: a million would fill the memory, and later ones can be drawn individually."""


@lru_cache(maxsize=2)
def _sobol(seed: int, dimensions: int, exponent: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The first 2 ** exponent points, cached since drawing a point means drawing those before it."""
    drawn: np.ndarray[Any, np.dtype[np.float64]] = _sobol_sequence(seed, dimensions).random_base2(exponent)
    return drawn


def _sobol_sequence(seed: int, dimensions: int) -> Any:
    import numpy as np
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))


@dataclass
class _BestOldPoints:
    """An index of a history: the best points among its first `count` trials of an earlier study."""

    count: int = 0
    points: list[Params] = field(default_factory=list)


def best_old_points(study: StudySpec, history: History) -> list[Params]:
    """The best points of an earlier study, without duplicates: those trained longest first, then by score."""
    best = history.index(_BestOldPoints)
    if best.count == len(history.old_trials):
        return best.points
    published, points = params_of(study.recipe, study.space), list[Params]()
    scored = [old for old in history.old_trials if old.scores and not old.lost]

    def quality(old: OldTrial) -> tuple[float, ...]:
        last = max(old.scores)
        return -last, *study.goal.place(old.scores[last])

    for old in sorted(scored, key=quality):
        if len(points) < WARM_STARTS and old.params not in (*points, published):
            points.append(old.params)
    best.count, best.points = len(history.old_trials), points
    return points


def follows_prior(study: StudySpec, number: int, sampled: int) -> bool:
    """Whether a suggestion follows the priors, after `sampled` suggestions by the sampler.

    The initial share is the strength of the strongest prior. After the startup trials it falls as 1 / n, so that the
    number of trials a wrong prior costs grows only logarithmically (as in Hvarfner et al., ICLR 2022, and Mallik et
    al., NeurIPS 2023).
    """
    strength = max((dimension.prior.strength for dimension in study.space.values() if dimension.prior), default=0.0)
    if not strength:
        return False
    startup = study.settings.sampler.startup_trials
    share = strength * startup / (startup + max(0, sampled - startup))
    return random.Random(derive_seed(study.settings.seed, "prior", number)).random() < share


def with_priors(study: StudySpec, number: int, params: Params) -> Params:
    """`params` with dimensions drawn from their priors; dimensions that become active are drawn uniformly.

    The strongest prior applies to all of these points, a weaker one to a proportional share of them.
    """
    drawn = random.Random(derive_seed(study.settings.seed, "prior point", number))
    strongest = max(dimension.prior.strength for dimension in study.space.values() if dimension.prior)
    values: Params = {}
    for name, dimension in study.space.items():
        share, chance = drawn.random(), drawn.random()
        if dimension.prior is not None and chance * strongest < dimension.prior.strength:
            values[name] = prior_draw(dimension, dimension.prior, drawn)
        else:
            values[name] = params.get(name, dimension.at(share))
    return active_params(study.space, values)


PRIOR_SPREAD = 0.15
"""Standard deviation of a draw around a prior's centre, as a share of the dimension in its own scale."""


def prior_draw(dimension: Dimension, prior: Prior, drawn: random.Random) -> Value:
    """A normal draw around the centre in the dimension's own scale; for choices, the centre in half of the draws."""
    if isinstance(dimension, Choice) or (isinstance(dimension, Range) and prior.centre in dimension.extra_values):
        return prior.centre if drawn.random() < 0.5 else dimension.at(drawn.random())
    centre = _share_of(dimension, float(prior.centre))
    # Wherever the centre is, about half of the draws or more lie inside.
    for _ in range(100):
        share = centre + drawn.gauss(0, PRIOR_SPREAD)
        if 0 <= share < 1:
            return dimension.at(share)
    return prior.centre


def _share_of(dimension: Dimension, value: float) -> float:
    """The inverse of `Dimension.at`, by bisection, since `at` is increasing."""
    low, high = getattr(dimension, "share_of_extra_values", 0.0), 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float(dimension.at(middle)) < value else (low, middle)
    return low


def fresh(params_of_attempt: Callable[[int], Params], taken: Callable[[Params], bool]) -> Params:
    """The first attempt that is not taken, or the last attempt if a small space has run out of points."""
    for attempt in range(MOST_ATTEMPTS):
        params = params_of_attempt(attempt)
        if not taken(params):
            return params
    return params


MOST_ATTEMPTS = 8
