"""Points that need no model: the published recipe, points given by hand or by an earlier study, an even spread, and draws from a prior."""

from __future__ import annotations

import random
from collections.abc import Callable

from hcpr_tune.search.history import (
    CALIBRATION,
    ENQUEUED,
    FIRST_POINT,
    PUBLISHED,
    WARM_START,
    History,
    OldTrial,
    Source,
)
from hcpr_tune.search.space import Choice, Dimension, Params, Prior, Range, Value, active_params, params_of
from hcpr_tune.search.study import Study
from hcpr_tune.seeds import derive_seed

WARM_STARTS = 3
"""How many of an earlier study's best points are tried first."""


def planned_point(study: Study, history: History) -> tuple[Params, Source] | None:
    """The next point that is not the sampler's: the published recipe, enqueued ones, first points, an earlier study's best, calibration."""
    if not history.trials:
        return params_of(study.recipe, study.space), PUBLISHED
    if history.queue:
        return history.queue[0], ENQUEUED
    begun = dict.fromkeys((FIRST_POINT, WARM_START, CALIBRATION), 0)
    for trial in history.trials.values():
        if trial.source in begun:
            begun[trial.source] += 1
    for points, source in ((study.first_points, FIRST_POINT), (best_old_points(study, history), WARM_START)):
        if begun[source] < len(points):
            return points[begun[source]], source
    if begun[CALIBRATION] < study.calibration - 1:
        return low_discrepancy_point(study, begun[CALIBRATION]), CALIBRATION
    return None


def low_discrepancy_point(study: Study, index: int) -> Params:
    """Point `index` of a scrambled Sobol sequence over the space, drawn from the study's seed."""
    import numpy as np
    from scipy.stats import qmc

    generator = np.random.default_rng(derive_seed(study.settings.seed, "low discrepancy"))
    sequence = qmc.Sobol(max(1, len(study.space)), scramble=True, rng=generator)
    shares = sequence.random_base2(index.bit_length())[index]
    return active_params(
        study.space,
        {
            name: dimension.at(float(share))
            for (name, dimension), share in zip(study.space.items(), shares, strict=False)
        },
    )


def best_old_points(study: Study, history: History) -> list[Params]:
    """The best points of an earlier study: of those that got furthest, the best ones first, each point once."""
    kept: list[Params] | None = history.derived.get("best old points")
    if kept is not None or not history.old_trials:
        return kept or []
    published, points = params_of(study.recipe, study.space), list[Params]()
    scored = [old for old in history.old_trials if old.scores and not old.lost]

    def worth(old: OldTrial) -> tuple[float, ...]:
        last = max(old.scores)
        return (-last, study.goal.shortfall(old.scores[last]), -study.goal.values(old.scores[last])[0])

    for old in sorted(scored, key=worth):
        if len(points) < WARM_STARTS and old.params not in (*points, published):
            points.append(old.params)
    history.derived["best old points"] = points
    return points


def follows_prior(study: Study, number: int, sampled: int) -> bool:
    """Whether a suggestion follows the priors, after `sampled` ones of the sampler.

    The strongest prior's strength is the share at first; it falls as 1 / n after the start-up, so that a wrong prior costs a number
    of trials that grows with the logarithm of the search, and cannot ruin it (the reasoning of Hvarfner et al., ICLR 2022, and Mallik
    et al., NeurIPS 2023).
    """
    strength = max((dimension.prior.strength for dimension in study.space.values() if dimension.prior), default=0.0)
    startup = study.settings.sampler.startup_trials
    share = strength * startup / (startup + max(0, sampled - startup))
    return random.Random(derive_seed(study.settings.seed, "prior", number)).random() < share


def with_priors(study: Study, number: int, params: Params) -> Params:
    """`params` with dimensions drawn from their priors, and those that come into being drawn evenly.

    The strongest prior is followed in all of these points, a weaker one in its share of them.
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
    """Near the centre: a normal draw in the dimension's own scale; of choices the centre in one half of the draws."""
    if isinstance(dimension, Choice) or (isinstance(dimension, Range) and prior.centre in dimension.also):
        return prior.centre if drawn.random() < 0.5 else dimension.at(drawn.random())
    while True:
        share = _share_of(dimension, float(prior.centre)) + drawn.gauss(0, PRIOR_SPREAD)
        if 0 <= share < 1:
            return dimension.at(share)


def _share_of(dimension: Dimension, value: float) -> float:
    """The inverse of `Dimension.at`, by bisection: `at` rises with the share."""
    low, high = getattr(dimension, "share_also", 0.0), 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float(dimension.at(middle)) < value else (low, middle)
    return low


def fresh(params_of_attempt: Callable[[int], Params], taken: list[Params]) -> Params:
    """The first attempt that is no point of `taken`; the last one where small spaces run out of points."""
    for attempt in range(MOST_ATTEMPTS):
        params = params_of_attempt(attempt)
        if params not in taken:
            return params
    return params


MOST_ATTEMPTS = 8
