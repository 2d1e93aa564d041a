"""The posterior's estimates are close to the truth where the highest score is not, and use all that is measured."""

from __future__ import annotations

import numpy as np
import pytest

from hcpr_tune.search.selection.posterior import Score, best_of, estimates
from hcpr_tune.search.spec.dimensions import Choice, Range

SPACE = {f"x{index}": Range(0.0, 1.0) for index in range(4)}
IMAGES = 359


def world(draws, trials, smooth=0.015, own=0.012):
    """Points, and their true shares at the end: a smooth part, and one of each point alone."""
    points = draws.random((trials, len(SPACE)))
    curve = -((points - draws.random(len(SPACE))) ** 2).sum(axis=1)
    true = 0.6 + smooth * (curve - curve.mean()) / curve.std() + own * draws.standard_normal(trials)
    return [dict(zip(SPACE, map(float, point), strict=True)) for point in points], true


def measured(draws, recipe, training, level, true):
    """With a seed's luck of a point, and half of the counting noise: the other half is common to all recipes."""
    counting = np.sqrt(0.5 * true * (1 - true) / IMAGES)
    return Score(recipe, training, level, float(true + np.hypot(0.01, counting) * draws.standard_normal()), IMAGES)


def test_the_highest_score_is_optimistic_and_the_posterior_is_not():
    draws = np.random.default_rng(0)
    lucky, expected, lost, spread = [], [], [], []
    for _ in range(25):
        params, true = world(draws, 24)
        scores = [measured(draws, number, number, 2, true[number]) for number in range(24)]
        found = estimates(SPACE, params, scores, 3)
        best = best_of(dict(enumerate(found)))
        highest = max(range(24), key=lambda number: scores[number].value)
        lucky.append(100 * (scores[highest].value - true[highest]))
        expected.append(100 * (found[best].mean - true[best]))
        lost.append(100 * (true[highest] - true[best]))
        spread.append(abs(found[best].mean - true[best]) / found[best].deviation)
    assert np.median(lucky) > 2.0
    assert abs(np.median(expected)) < 0.7
    assert np.mean(lost) < 0.3, "its choice is at least as good"
    assert 0.4 < np.mean(np.array(spread) < 1.96) <= 1.0


def test_fresh_seeds_outweigh_one_lucky_score():
    params = [{"x0": value, "x1": 0.5, "x2": 0.5, "x3": 0.5} for value in (0.1, 0.9)]
    lucky = [Score(0, 0, 1, 0.70, IMAGES), Score(1, 1, 1, 0.65, IMAGES)]
    again = [Score(0, 2, 2, 0.62, IMAGES), Score(0, 3, 2, 0.61, IMAGES)]
    again += [Score(1, 4, 2, 0.66, IMAGES), Score(1, 5, 2, 0.65, IMAGES)]
    assert best_of(dict(enumerate(estimates(SPACE, params, lucky, 3)))) == 0
    assert best_of(dict(enumerate(estimates(SPACE, params, lucky + again, 3)))) == 1


def test_more_images_make_an_estimate_surer():
    params, true = world(np.random.default_rng(1), 12)
    few, many = (
        estimates(SPACE, params, [Score(n, n, 1, float(true[n]), images) for n in range(12)], 3)[0].deviation
        for images in (100, 10_000)
    )
    assert many < few


def test_a_recipe_without_a_score_is_estimated_from_its_neighbours():
    params = [{"x0": 0.1 * step, "x1": 0.5, "x2": 0.5, "x3": 0.5} for step in range(10)]
    scores = [Score(n, n, 1, 0.5 + 0.02 * n, 10_000) for n in range(10) if n not in (4, 5)]
    found = estimates(SPACE, params, scores, 3)
    assert found[3].mean < found[4].mean < found[5].mean < found[6].mean
    assert found[4].deviation > found[3].deviation


def test_a_collapse_does_not_drag_its_neighbours_down():
    params, true = world(np.random.default_rng(2), 16, own=0.0)
    scores = [Score(n, n, 1, float(true[n]), 10_000) for n in range(16)]
    whole = estimates(SPACE, params, scores, 3)
    broken = estimates(SPACE, params, [scores[0]._replace(value=0.1), *scores[1:]], 3)
    assert best_of(dict(enumerate(broken))) != 0
    assert np.mean([abs(one.mean - other.mean) for one, other in zip(whole[1:], broken[1:], strict=True)]) < 0.02


@pytest.mark.parametrize("levels", [2, 4])
def test_equal_scores_and_dimensions_that_do_not_exist_are_no_trouble(levels):
    space = {"kind": Choice(("a", "b")), "x": Range(1.0, 100.0, log=True, when=(("kind", ("b",)),))}
    params = [{"kind": "a"}, {"kind": "b", "x": 10.0}, {"kind": "b", "x": 10.0}]
    found = estimates(space, params, [Score(n, n, 0, 0.5, 10) for n in range(3)], levels)
    assert all(abs(one.mean - 0.5) < 0.05 and one.deviation > 0 for one in found)
