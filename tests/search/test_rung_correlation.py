"""What a rung is worth, against scipy and by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import spearmanr

from hcpr_tune.search.scheduling import rung_correlation
from hcpr_tune.search.scheduling.rung_correlation import (
    FEWEST_POINTS,
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
    history = history_of(*trials_with(*[(100 + n, 200 - n, 300 + n) for n in range(6)], (1, None, None)))
    worths = rung_correlations(history, RUNGS)
    assert set(worths) == {3, 9}
    assert worths[3].next.rho == pytest.approx(-1)
    assert worths[3].end.rho == pytest.approx(1)
    assert (worths[3].end.later, worths[3].end.trials) == (27, 6)
    assert worths[9].end.rho == pytest.approx(-1)
    assert worths[3].halves(0.5)
    assert not worths[9].halves(0.5)


def test_too_few_points_are_unknown_and_halve():
    history = history_of(*trials_with(*[(100 - n, 100 + n, 100 + n) for n in range(FEWEST_POINTS - 1)]))
    worth = rung_correlations(history, RUNGS)[3]
    assert worth.end.rho is None
    assert worth.halves(0.5)
    assert str(worth.end) == "unknown (4 trials)"


def test_it_takes_some_certainty_to_call_a_rung_worthless():
    from hcpr_tune.search.scheduling.rung_correlation import Correlation, RungCorrelation

    def halves(rho, trials):
        return RungCorrelation(Correlation(3, 9, trials, rho), Correlation(3, 27, trials, rho)).halves(0.5)

    # Standard errors of Fisher's z: 0.58 with 6 trials, 0.19 with 30.
    assert [halves(0.3, n) for n in (6, 12, 30, 100)] == [True, True, False, False]
    assert [halves(-0.5, n) for n in (6, 12)] == [False, False]
    assert [halves(0.49, n) for n in (100, 100_000)] == [True, False]


def test_until_enough_have_reached_the_end_a_rung_is_judged_by_the_latest_that_enough_have_reached():
    history = history_of(*trials_with(*[(100 - n, 100 + n, None) for n in range(6)]))
    worth = rung_correlations(history, RUNGS)[3]
    assert worth.end.later == 9
    assert not worth.halves(0.5)


def test_of_several_objectives_the_worst_counts():
    events = trials_with(*[(100 + n, 200 + n, 300 + n) for n in range(6)])
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
    assert end.halves(0.5)


def test_a_rung_is_measured_on_the_first_trials_that_came_to_both(monkeypatch):
    monkeypatch.setattr(rung_correlation, "MOST_POINTS", 6)
    history = history_of()
    agree, differ = [(100 + n, None, 200 + n) for n in range(6)], [(900 - n, None, n) for n in range(20)]
    for event in trials_with(*agree, *differ):
        history.apply(event)
        end = rung_correlations(history, RUNGS)[3].end
    assert (end.rho, end.trials) == (pytest.approx(1), 6)
    assert rung_correlations(history_of(*trials_with(*agree, *differ)), RUNGS)[3].end == end


def test_a_worth_follows_the_trials_that_come():
    history, rhos = history_of(), {}
    for event in trials_with(*[(n, None, n) for n in range(6)], *[(9 - n, None, n) for n in range(6, 9)]):
        history.apply(event)
        end = rung_correlations(history, RUNGS)[3].end
        rhos[end.trials] = end.rho
    assert rhos[4] is None
    assert rhos[6] == pytest.approx(1)
    assert rhos[6] > rhos[7] > rhos[9]
