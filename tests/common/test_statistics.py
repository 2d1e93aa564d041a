"""Intervals that hold what they promise, adjustments by hand, and no difference where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control, ttest_ind

from hcpr_tune.common.statistics import (
    Difference,
    differences,
    holm,
    mcnemar,
    mean_over_seeds,
    smallest_difference,
    variance_of,
)
from hcpr_tune.simulation.survival import DIFFERING, TwoRecipes, drawn, image_probabilities

SEEDED = 20


@pytest.fixture(scope="module")
def probabilities():
    return image_probabilities(50_000, np.random.default_rng(SEEDED))


def simulated(recipes, probabilities, repeats):
    """The shares of verdicts that tell two recipes apart, and whose interval holds the true difference."""
    generator, found, held = np.random.default_rng([SEEDED, recipes.images, *recipes.seeds]), [], []
    for one, other in drawn(recipes, probabilities, repeats, generator):
        of_image = one.mean(axis=-2) - other.mean(axis=-2)
        variance, value = variance_of([one, other], of_image), of_image.mean(axis=-1)
        found.append(variance.p(value) < 0.05)
        held.append(np.abs(value - recipes.gain) <= variance.half())
    return np.concatenate(found).mean(), np.concatenate(held).mean()


def survivors(seeds, images, share, generator):
    return (generator.random((seeds, images)) < share).astype(float)


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
    assert 0 <= found.low < 0.75 < found.high <= 1
    assert mean_over_seeds(np.array([[1, 0.0]])).deviation is None


def test_the_parts_of_the_variance_are_those_of_the_analysis_of_variance():
    generator = np.random.default_rng(SEEDED)
    hard = np.repeat([0.1, 0.9], 20)  # for one recipe, and easy for the other
    one, other = survivors(3, 40, hard, generator), survivors(4, 40, 1 - hard, generator)
    variance = variance_of([one, other], one.mean(axis=0) - other.mean(axis=0))

    def squares(values):
        """Mean squares of the seeds and of the residual, by double loops."""
        seeds, images = values.shape
        rows, columns, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
        of_seeds = images * sum((row - mean) ** 2 for row in rows) / (seeds - 1)
        rest = sum(
            (values[seed, image] - rows[seed] - columns[image] + mean) ** 2
            for seed in range(seeds)
            for image in range(images)
        )
        return of_seeds / (seeds * images), rest / ((seeds - 1) * (images - 1)) / (seeds * images)

    (seeds_one, rest_one), (seeds_other, rest_other) = squares(one), squares(other)
    assert variance.seeds == pytest.approx(seeds_one + seeds_other)
    spread = np.var(one.mean(axis=0) - other.mean(axis=0), ddof=1) / 40
    assert variance.images == pytest.approx(spread - rest_one - rest_other)


def test_where_only_seeds_vary_it_is_the_t_test_of_their_accuracies():
    # Every image is alike, so that the least variance of one image in 10,000 is all that is left of the images.
    one, other = (np.repeat(np.array(rows, float)[:, None], 10_000, axis=1) for rows in ([1, 1, 0], [0, 1, 0]))
    found = differences({"x": (one, other)})["x"]
    assert found.p == pytest.approx(ttest_ind([1, 1, 0], [0, 1, 0], equal_var=False).pvalue, abs=1e-3)


SIMULATED = [
    (images, seeds, deviation)
    for images, most in ((359, 5), (1000, 5), (10_000, 5))
    for seeds in range(2, most + 1)
    for deviation in (0.0, 0.003, 0.01)
]


@pytest.mark.parametrize(("images", "seeds", "deviation"), SIMULATED)
def test_equal_recipes_are_told_apart_in_3_to_6_percent_of_cases(images, seeds, deviation, probabilities):
    # The standard error of the share: 0.5 points for 2,000 verdicts, 1 point for 500; three of them are allowed.
    repeats = 500 if images == 10_000 else 2000
    size, coverage = simulated(TwoRecipes(images, (seeds, seeds), (deviation, deviation)), probabilities, repeats)
    allowed = 2 * (0.05 * 0.95 / repeats) ** 0.5
    assert 0.03 - allowed <= size <= 0.06 + allowed
    assert 0.94 - allowed <= coverage <= 0.97 + allowed


@pytest.mark.parametrize("seeds", [(3, 2), (5, 3)])
def test_so_are_recipes_with_other_numbers_and_other_noise_of_seeds(seeds, probabilities):
    size, _ = simulated(TwoRecipes(359, seeds, (0.003, 0.01)), probabilities, 2000)
    assert 0.025 <= size <= 0.065


@pytest.mark.parametrize(("deviation", "least"), [(0.003, 0.55), (0.01, 0.47)])
def test_three_points_on_359_images_with_five_seeds_are_seen_in_half_of_the_cases_or_more(
    deviation, least, probabilities
):
    # The bootstrap that was here before saw them in 40 and 33 % of the same cases.
    power, coverage = simulated(TwoRecipes(359, (5, 5), (deviation, deviation), gain=0.03), probabilities, 2000)
    assert power >= least
    assert 0.94 <= coverage <= 0.98


@pytest.mark.parametrize(("images", "seeds"), [(359, 3), (359, 5), (1000, 2), (1000, 5)])
def test_the_smallest_difference_is_seen_in_80_percent_of_cases(images, seeds, probabilities):
    gain = smallest_difference(images, seeds, DIFFERING)
    power, _ = simulated(TwoRecipes(images, (seeds, seeds), (0.01, 0.01), gain), probabilities, 2000)
    assert power == pytest.approx(0.8, abs=0.07)


def test_more_images_and_more_seeds_show_smaller_differences():
    by_images = [smallest_difference(images, 3) for images in (100, 359, 1000, 10_000)]
    by_seeds = [smallest_difference(359, seeds) for seeds in (2, 3, 5, 10)]
    assert by_images == sorted(by_images, reverse=True)
    assert by_seeds == sorted(by_seeds, reverse=True)


def test_simulated_models_differ_as_often_as_is_said(probabilities):
    one, other = probabilities.astype(float)
    assert 2 * (one * (1 - one)).mean() == pytest.approx(DIFFERING[0], abs=0.01)
    assert (one * (1 - other) + other * (1 - one)).mean() == pytest.approx(DIFFERING[1], abs=0.01)


def test_identical_recipes_give_no_difference():
    one = survivors(3, 100, 0.5, np.random.default_rng(0))
    found = differences({"itself": (one, one)})["itself"]
    assert found.value == 0.0
    assert found.low < 0 < found.high
    assert not found.found
    constant = np.ones((2, 10))
    assert differences({"itself": (constant, constant)})["itself"].p == 1.0


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_large_difference_is_found_in_both_directions(seeds):
    generator = np.random.default_rng(seeds)
    one, other = (survivors(seeds, 200, share, generator) for share in (0.8, 0.4))
    found = differences({"behind": (one, other), "ahead": (other, one)})
    assert all(each.found and each.adjusted > 0 for each in found.values())
    assert found["behind"].low > 0 > found["ahead"].high
    assert found["behind"].value == pytest.approx(one.mean() - other.mean())


def test_no_p_is_zero_and_several_comparisons_make_it_larger():
    sure = np.ones((2, 20)), np.zeros((2, 20))
    alone, three = differences({"a": sure}), differences(dict.fromkeys("abc", sure))
    assert 0 < alone["a"].p == alone["a"].adjusted < 0.001
    assert alone["a"].low > 0.8
    assert alone["a"].high == 1.0
    assert [one.adjusted for one in three.values()] == pytest.approx([3 * alone["a"].p] * 3)


@pytest.mark.parametrize(("adjusted", "found"), [(0.0499, True), (0.05, False), (0.06, False)])
def test_a_difference_is_found_by_the_p_that_several_comparisons_leave(adjusted, found):
    assert Difference(0.1, 0.0, 0.2, p=0.03, adjusted=adjusted).found == found


def test_with_one_seed_nothing_is_found_of_the_recipes():
    one, other = np.ones((1, 300)), np.zeros((3, 300))
    assert not differences({"x": (one, other)})["x"].found
    assert differences({"x": (np.ones((2, 300)), other)})["x"].found
