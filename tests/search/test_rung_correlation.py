"""What a rung is worth, against scipy and by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import spearmanr

from hcpr_tune.common.noise import SEED_DEVIATION
from hcpr_tune.search.scheduling import rung_correlation
from hcpr_tune.search.scheduling.rung_correlation import (
    FEWEST_POINTS,
    LEAST_RELIABILITY,
    Correlation,
    RungCorrelation,
    noise_variance,
    reliability_of,
    rung_correlations,
    spearman,
    spearman_interval,
    spread_of,
    unrestricted,
)
from hcpr_tune.search.spec.objectives import Goal
from tests.search.histories import history_of, reached, suggested

RUNGS = (3, 9, 27)


def trials_with(*scores):
    """Trials with scores at epochs 3, 9 and 27, None from where they were not trained."""
    events = []
    for number, rungs in enumerate(scores):
        events.append(suggested(number))
        for start, end, score in zip((0, *RUNGS), RUNGS, rungs, strict=False):
            if score is not None:
                events += reached(number, start, end, score, clean=1000 - score)
    return events


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_spearman_is_scipys(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) == 0
    else:
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    true, held = 0.7, 0
    # The Pearson correlation whose Spearman correlation is `true`, for normal data.
    pearson = 2 * np.sin(np.pi * true / 6)
    for _ in range(1000):
        x = generator.normal(size=15)
        y = pearson * x + np.sqrt(1 - pearson**2) * generator.normal(size=15)
        low, high = spearman_interval(spearman(list(x), list(y)), 15)
        held += low <= true <= high
    assert 920 <= held <= 985


def test_the_interval_of_a_perfect_order_of_few_is_wide():
    low, high = spearman_interval(1.0, 6)
    assert low < 0.7
    assert high <= 1
    assert spearman_interval(0.3, 3) == (-1.0, 1.0)


def test_each_rung_against_the_next_and_the_end():
    history = history_of(*trials_with(*[(100 + n, 400 - 50 * n, 300 + 50 * n) for n in range(6)], (1, None, None)))
    worths = rung_correlations(history, RUNGS)
    assert set(worths) == {3, 9}
    assert worths[3].next.rho == pytest.approx(-1)
    assert worths[3].end.rho == pytest.approx(1)
    assert (worths[3].end.later, worths[3].end.trials) == (27, 6)
    assert worths[9].end.rho == pytest.approx(-1)
    assert worths[3].halves(0.1)
    assert not worths[9].halves(0.1)


def test_too_few_points_are_unknown_and_halve():
    history = history_of(*trials_with(*[(100 - n, 100 + n, 100 + n) for n in range(FEWEST_POINTS - 1)]))
    worth = rung_correlations(history, RUNGS)[3]
    assert worth.end.rho is None
    assert worth.halves(1.0)
    assert str(worth.end) == "unknown (4 trials)"


def test_it_takes_some_certainty_to_call_a_rung_worthless():
    def halves(rho, trials):
        return RungCorrelation(Correlation(3, 9, trials, rho), Correlation(3, 27, trials, rho)).halves(0.1)

    # Standard errors of Fisher's z: 0.58 with 6 trials, 0.19 with 30.
    assert [halves(0.0, n) for n in (6, 30, 200, 300)] == [True, True, True, False]
    assert [halves(-0.5, n) for n in (6, 12)] == [True, False]
    assert [halves(0.09, n) for n in (1000, 100_000)] == [True, False]


def test_until_enough_have_reached_the_end_a_rung_is_judged_by_the_latest_that_enough_have_reached():
    history = history_of(*trials_with(*[(100 - n, 100 + 50 * n, None) for n in range(6)]))
    worth = rung_correlations(history, RUNGS)[3]
    assert worth.end.later == 9
    assert not worth.halves(0.1)


def test_of_several_objectives_the_worst_counts():
    events = trials_with(*[(100 + n, 200 + n, 300 + 50 * n) for n in range(6)])
    for event in events:
        if event["event"] == "epoch" and event["epoch"] == 27:
            event["clean_correct_validation"] = event["robust_correct_validation"]
    goal = Goal(("robust_accuracy", "clean_accuracy"))
    assert rung_correlations(history_of(*events, goal=goal), RUNGS)[3].end.rho == pytest.approx(-1)
    assert rung_correlations(history_of(*events), RUNGS)[3].end.rho == pytest.approx(1)


def test_a_correlation_among_the_picked_is_brought_back_to_all():
    """Of 20,000 trials a rung picks the best third: among these its scores say less of the end."""
    draws = np.random.default_rng(0)
    early = draws.standard_normal(20_000)
    end = 0.6 * early + 0.8 * draws.standard_normal(20_000)
    picked = early > np.quantile(early, 2 / 3)
    among_all, among_picked = spearman(early, end), spearman(early[picked], end[picked])
    spread = spread_of(early, early[picked])
    assert spread == pytest.approx(early.std() / early[picked].std(), rel=0.05)
    assert among_picked < 0.35 < 0.55 < among_all
    assert unrestricted(among_picked, spread) == pytest.approx(among_all, abs=0.06)
    anybody = draws.random(20_000) < 1 / 3
    assert spread_of(early, early[anybody]) == pytest.approx(1, abs=0.01)


IMAGES = 359
SPREAD = 0.02
"""As on digits: recipes differ by 2 points, a score has a noise of 2.3 (the count's 2.1 and a seed's 1)."""


def searched(rho, recipes, picks, seed):
    """(rung scores, noisy end scores, true end scores) of those that a rung picks, and the rung scores of all.

    The rung score, as it is seen, and the true end have the correlation `rho`.
    """
    draws = np.random.default_rng(seed)
    early = draws.standard_normal(recipes)
    true = 0.8 + SPREAD * (rho * early + np.sqrt(1 - rho**2) * draws.standard_normal(recipes))
    seen = draws.binomial(IMAGES, np.clip(true + SEED_DEVIATION * draws.standard_normal(recipes), 0, 1)) / IMAGES
    picked = early >= np.quantile(early, 1 - picks)
    return early[picked], seen[picked], true[picked], early


def measured(rho, recipes, picks, seed):
    first, second, _, early = searched(rho, recipes, picks, seed)
    reliability = reliability_of(second, [noise_variance(score, IMAGES) for score in second])
    return Correlation(
        3, 27, len(first), spearman(first, second), spread_of(early, first), len(early), reliability=reliability
    )


@pytest.mark.parametrize("picks", [1.0, 1 / 3])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_the_true_correlation_is_found_in_spite_of_a_noisy_end(rho, picks):
    among_all = measured(rho, 20_000, picks, 0)
    first, _, true, early = searched(rho, 20_000, picks, 0)
    assert among_all.rho == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.08)
    # As if the end had no noise; without the correction for it the figure would be a fifth to a third lower.
    without_noise = unrestricted(spearman(first, true), spread_of(early, first))
    assert among_all.rho == pytest.approx(without_noise, abs=0.05)
    assert unrestricted(among_all.seen, among_all.spread) < 0.8 * without_noise
    assert among_all.low <= among_all.rho <= among_all.high


def test_the_correction_is_right_on_average_in_searches_of_usual_size():
    found = [measured(0.6, 60, 1.0, seed) for seed in range(150)]
    assert np.mean([one.rho for one in found if one.known]) == pytest.approx(0.58, abs=0.05)
    assert np.mean([one.seen for one in found]) < 0.42


def test_a_rung_of_a_correlation_of_0_3_is_hardly_ever_spared_and_one_of_0_is_once_that_is_certain():
    def spared(rho, recipes, picks):
        return np.mean([not measured(rho, recipes, picks, seed).halves(0.1) for seed in range(60)])

    for recipes in (6, 30, 100, 1000):
        assert spared(0.3, recipes, 1.0) <= 0.02
        assert spared(0.3, recipes, 1 / 3) <= 0.05
    # Few trials prove nothing.
    assert spared(0.0, 30, 1.0) <= 0.12
    assert spared(0.0, 1000, 1.0) >= 0.5
    assert spared(-0.3, 1000, 1.0) == 1


def test_where_the_end_is_noise_nothing_is_known_and_the_rung_stops():
    draws = np.random.default_rng(0)
    alike = draws.binomial(IMAGES, 0.8, 200) / IMAGES
    reliability = reliability_of(alike, [noise_variance(score, IMAGES) for score in alike])
    assert reliability < LEAST_RELIABILITY
    opposite = Correlation(3, 27, 200, -0.9, reliability=reliability)
    assert (opposite.rho, opposite.low, opposite.high, opposite.seen) == (None, -1, 1, -0.9)
    assert opposite.halves(0.1)
    assert not Correlation(3, 27, 200, -0.9).halves(0.1)
    assert reliability_of([0.5, 0.5, 0.5], [0.01] * 3) == 0
    assert reliability_of([0.5, 0.5001, 0.5], [1.0] * 3) == -1


def test_what_is_corrected_stays_a_correlation():
    strong = Correlation(3, 27, 30, 0.6, reliability=0.2)
    assert (strong.rho, strong.high) == (1, 1)
    assert -1 < strong.low < 1
    assert strong.to_plain()["seen"] == 0.6


def test_the_noise_of_an_end_comes_from_its_counts_in_the_record():
    ends = [500 + 20 * n for n in range(8)]  # of 1000 images
    end = rung_correlations(history_of(*trials_with(*[(300 + n, None, count) for n, count in enumerate(ends)])), RUNGS)
    shares = np.array(ends) / 1000
    noise = np.mean(shares * (1 - shares)) / 1000 + 0.01**2
    assert end[3].end.reliability == pytest.approx(1 - noise / np.var(shares, ddof=1))
    assert end[3].end.seen == pytest.approx(1)


def test_nothing_is_corrected_where_all_went_on_or_the_picked_differ_more():
    assert spread_of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1
    assert spread_of([1.0, 2.0, 2.0, 2.0, 3.0], [1.0, 3.0]) == 1
    assert spread_of([1.0, 2.0], [2.0, 2.0]) == 1
    assert [unrestricted(rho, 1.0) for rho in (-0.5, 0.0, 1.0)] == [-0.5, 0.0, 1.0]
    assert (unrestricted(1.0, 3.0), unrestricted(-1.0, 3.0), unrestricted(0.0, 3.0)) == (1, -1, 0)


def test_a_rung_that_picked_its_trials_goes_on_to_stop_others():
    """Among the ten of forty that went on, the order at 3 says little of that at 27; among all it would say enough."""
    draws = np.random.default_rng(3)
    quality = np.sort(draws.standard_normal(40))[::-1]
    early = np.round(500 + 100 * (quality + 0.5 * draws.standard_normal(40))).astype(int)
    order = np.argsort(-early)
    results = [
        (int(early[n]), None, int(500 + 100 * quality[n]) if place < 10 else None) for place, n in enumerate(order)
    ]
    end = rung_correlations(history_of(*trials_with(*results)), RUNGS)[3].end
    assert end.seen is not None
    assert end.seen < end.rho
    assert end.spread > 1.5
    assert (end.trials, end.among) == (10, 40)
    assert end.halves(0.1)


def test_a_rung_is_measured_on_the_first_trials_that_came_to_both(monkeypatch):
    monkeypatch.setattr(rung_correlation, "MOST_POINTS", 6)
    history = history_of()
    agree, differ = [(100 + n, None, 200 + 50 * n) for n in range(6)], [(900 - n, None, n) for n in range(20)]
    for event in trials_with(*agree, *differ):
        history.apply(event)
        end = rung_correlations(history, RUNGS)[3].end
    assert (end.rho, end.trials) == (pytest.approx(1), 6)
    assert rung_correlations(history_of(*trials_with(*agree, *differ)), RUNGS)[3].end == end


def test_a_worth_follows_the_trials_that_come():
    history, rhos = history_of(), {}
    for event in trials_with(*[(n, None, 50 * n) for n in range(6)], *[(9 - n, None, 50 * n) for n in range(6, 9)]):
        history.apply(event)
        end = rung_correlations(history, RUNGS)[3].end
        rhos[end.trials] = end.rho
    assert rhos[4] is None
    assert rhos[6] == pytest.approx(1)
    assert rhos[6] > rhos[7] > rhos[9]
