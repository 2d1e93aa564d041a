"""Intervals that hold what they promise, adjustments by hand, and no difference where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control

from hcpr_tune.verdict.decision import statistics
from hcpr_tune.verdict.decision.statistics import (
    Difference,
    bootstrap_differences,
    differences,
    holm,
    mcnemar,
    mean_over_seeds,
)

SEEDED = 20


def drawn(generator: np.random.Generator, seeds: int, images: int, share: float, by_seed: float, hardness: np.ndarray):
    """Survivors of models whose share differs by seed, on images that differ in hardness, (seeds, images)."""
    shares = share + hardness + by_seed * generator.standard_normal((seeds, 1))
    return (generator.random((seeds, images)) < shares.clip(0, 1)).astype(float)


@pytest.fixture
def fewer_draws(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 600)


def test_holm_is_that_of_a_hand_calculation():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 raised to the one before, 0.5 * 1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(deadline=None, database=None)
def test_holm_keeps_the_order_and_only_raises(p_values):
    adjusted = holm(p_values)
    assert all(p <= one <= 1 for p, one in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [one for _, one in pairs] == sorted(adjusted)
    # What Holm finds, Benjamini and Hochberg's weaker rule finds too.
    if p_values:
        assert all(np.array(adjusted) >= false_discovery_control(p_values) - 1e-12)


@pytest.mark.parametrize(("one", "other"), [(1, 0), (5, 0), (3, 9), (7, 7), (40, 21)])
def test_mcnemar_is_the_binomial_test_on_discordant_images(one, other):
    first = np.array([1] * one + [0] * other + [1] * 6 + [0] * 4)
    second = np.array([0] * one + [1] * other + [1] * 6 + [0] * 4)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (one, other)
    assert found.p == pytest.approx(min(1, 2 * binom.cdf(min(one, other), one + other, 0.5)))
    assert mcnemar(second, first).p == pytest.approx(found.p)


def test_mcnemar_of_models_that_agree_finds_nothing():
    same = np.array([1, 0, 1])
    assert mcnemar(same, same).to_plain() == {"only_first": 0, "only_second": 0, "p": 1.0}


def test_mean_and_deviation_over_seeds():
    found = mean_over_seeds(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1.0]]))
    assert (found.mean, found.deviation) == pytest.approx((0.75, 0.25))
    assert found.per_seed == (0.5, 0.75, 1.0)
    assert mean_over_seeds(np.array([[1, 0.0]])).deviation is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(seeds, fewer_draws):
    # Seeds that differ as trainings on small data do, and images that are hard for both recipes.
    generator, held, true = np.random.default_rng(SEEDED + seeds), 0, 0.05
    for _ in range(200):
        hardness = generator.uniform(-0.3, 0.3, 300)
        one, other = (drawn(generator, seeds, 300, share, 0.015, hardness) for share in (0.55, 0.55 - true))
        found = differences({"other": (one, other)}, int(generator.integers(2**31)))["other"]
        held += found.low <= true <= found.high
    assert held >= 180


def test_equal_recipes_are_seldom_told_apart(fewer_draws):
    generator, told = np.random.default_rng(SEEDED), 0
    for _ in range(200):
        hardness = generator.uniform(-0.3, 0.3, 300)
        one, other = (drawn(generator, 3, 300, 0.5, 0.015, hardness) for _ in range(2))
        told += differences({"other": (one, other)})["other"].found
    assert told <= 20


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_resampled_seeds_spread_as_the_mean_of_new_seeds_does(seeds):
    # All images of a seed are alike, so that only seeds vary: the unbiased variance of a mean is s^2 / n.
    shares = np.random.default_rng(seeds).random(seeds)
    one, other = np.repeat(shares[:, None], 4, axis=1), np.zeros((1, 4))
    drawn = bootstrap_differences(one, other)
    assert drawn.mean() == pytest.approx(shares.mean(), abs=4 * drawn.std() / math.sqrt(len(drawn)))
    assert drawn.var() == pytest.approx(shares.var(ddof=1) / seeds, rel=0.08)


def test_resampled_images_spread_as_binomial_counts_do():
    one, other = np.array([[1.0] * 30 + [0.0] * 70]), np.zeros((1, 100))
    drawn = bootstrap_differences(one, other)
    assert drawn.mean() == pytest.approx(0.3, abs=4 * drawn.std() / math.sqrt(len(drawn)))
    assert drawn.var() == pytest.approx(0.3 * 0.7 / 100, rel=0.08)


def test_the_one_seed_of_a_recipe_is_kept():
    # Without differences between images nothing is left to vary.
    drawn = bootstrap_differences(np.full((1, 10), 0.75), np.full((1, 10), 0.25))
    assert np.unique(drawn).tolist() == [0.5]


def test_identical_recipes_give_no_difference():
    one = drawn(np.random.default_rng(0), 3, 100, 0.5, 0.05, np.zeros(100))
    found = differences({"itself": (one, one)})["itself"]
    assert found.value == 0.0
    assert found.low < 0 < found.high
    assert not found.found
    constant = np.ones((2, 10))
    assert differences({"itself": (constant, constant)})["itself"].p == 1.0


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_large_difference_is_found_in_both_directions(seeds):
    generator = np.random.default_rng(seeds)
    one, other = (drawn(generator, seeds, 200, share, 0.02, np.zeros(200)) for share in (0.8, 0.4))
    found = differences({"behind": (one, other), "ahead": (other, one)})
    assert all(each.found and each.adjusted > 0 for each in found.values())
    assert found["behind"].low > 0 > found["ahead"].high
    assert found["behind"].value == pytest.approx(one.mean() - other.mean())


def test_no_p_is_zero_and_several_comparisons_make_it_larger():
    sure = np.ones((2, 20)), np.zeros((2, 20))
    alone, three = differences({"a": sure}), differences(dict.fromkeys("abc", sure))
    assert 0 < alone["a"].p == alone["a"].adjusted < 0.001
    assert [one.adjusted for one in three.values()] == pytest.approx([3 * alone["a"].p] * 3)


@pytest.mark.parametrize(("adjusted", "found"), [(0.0499, True), (0.05, False), (0.06, False)])
def test_a_difference_is_found_by_the_p_that_several_comparisons_leave(adjusted, found):
    assert Difference(0.1, 0.0, 0.2, p=0.03, adjusted=adjusted).found == found


def test_the_same_seed_gives_the_same_numbers():
    generator = np.random.default_rng(1)
    one, other = (drawn(generator, 3, 50, share, 0.02, np.zeros(50)) for share in (0.6, 0.5))
    assert differences({"a": (one, other)}, 7) == differences({"a": (one, other)}, 7)
    assert differences({"a": (one, other)}, 7) != differences({"a": (one, other)}, 8)


@pytest.mark.parametrize("cells", [1, 999, 10_000_000])
def test_the_bound_on_memory_changes_no_shape(cells, monkeypatch):
    monkeypatch.setattr(statistics, "CELLS", cells)
    monkeypatch.setattr(statistics, "RESAMPLES", 250)
    one = drawn(np.random.default_rng(2), 2, 40, 0.5, 0.1, np.zeros(40))
    assert bootstrap_differences(one, 1 - one).shape == (250,)


def test_with_one_seed_nothing_is_found_of_the_recipes():
    one, other = np.ones((1, 300)), np.zeros((3, 300))
    assert not differences({"x": (one, other)})["x"].found
    assert differences({"x": (np.ones((2, 300)), other)})["x"].found
