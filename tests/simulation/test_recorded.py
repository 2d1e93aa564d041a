"""Curves of earlier studies: continued where they were stopped, resampled with their noise, found by their values."""

from __future__ import annotations

import numpy as np
import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.simulation.curves.recorded import Measured, RecordedCurves, coordinates, relative_seconds
from hcpr_tune.simulation.curves.resampling import Redrawn, continued, noise_of
from tests.search.histories import epoch, history_of, job, job_end, suggested

NAN = float("nan")


def test_a_stopped_trial_goes_on_as_those_did_that_stood_where_it_did():
    robust = np.array(
        [[0.5, 0.7], [0.52, 0.72], [0.54, 0.74], [0.1, 0.1], [0.11, 0.11], [0.12, 0.12], [0.51, NAN], [0.115, NAN]]
    )
    clean = robust + 0.2
    for seed in range(20):
        full = continued(robust, clean, np.random.default_rng(seed))
        assert 0.68 < full[6, 1] < 0.75
        assert 0.09 < full[7, 1] < 0.13
        # The same trial is followed in both accuracies.
        assert full[:, 2:] == pytest.approx(full[:, :2] + 0.2)
    assert np.array_equal(full[:6, :2], robust[:6])


def test_a_gap_is_filled_from_either_side():
    scores = np.array(
        [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.3, 0.4, 0.5], [NAN, NAN, 0.4], [0.2, NAN, 0.4], [NAN, NAN, NAN]]
    )
    full = continued(scores, scores, np.random.default_rng(0))
    assert np.isfinite(full).all()
    assert full[3, 1] == pytest.approx(0.3, abs=0.11)


def test_an_epoch_s_seconds_are_compared_with_those_of_the_same_epoch():
    """The first epoch takes 1 second, the second 3, in trials 0 and 1; trial 1 is half as fast and was stopped."""
    events = [suggested(0), job(0, 0, 2), timed(0, 1, 1.0), timed(0, 2, 3.0, 500), job_end(0, 0, 2)]
    events += [suggested(1), job(1, 0, 1), timed(1, 1, 2.0, 400), job_end(1, 0, 1)]
    history = history_of(*events, last_epoch=2)
    assert relative_seconds(history) == pytest.approx({0: 4.0 / (1.5 + 3.0), 1: 2.0 / 1.5})


def timed(trial, number, seconds, robust=None):
    parts = {"seconds_attack": seconds, "seconds_update": 0.0, "seconds_evaluation": 0.0}
    return epoch(trial, number, robust) | parts


def recorded_scores(trials=300, images=359):
    """Trials whose truth is known: (measured, true) at three rungs."""
    draws = np.random.default_rng(1)
    quality = draws.normal(0.0, 0.04, (trials, 1))
    true = np.array([0.5, 0.65, 0.75]) + quality + draws.normal(0, [0.03, 0.02, 0.0], (trials, 3))
    noise = noise_of(true, images)
    return true + draws.normal(0, np.sqrt(noise), true.shape), true, noise


def test_drawn_anew_scores_have_the_record_s_means_and_covariance():
    scores, _, noise = recorded_scores()
    curves = Redrawn.of(scores, noise)
    draws = np.random.default_rng(2)
    drawn = [curves.draw(int(draws.integers(len(scores))), draws) for _ in range(30_000)]
    seen, truth = np.array([one[0] for one in drawn]), np.array([one[1] for one in drawn])
    assert seen.mean(axis=0) == pytest.approx(scores.mean(axis=0), abs=0.002)
    assert np.cov(seen, rowvar=False) == pytest.approx(np.cov(scores, rowvar=False), abs=1e-4)
    assert (seen - truth).var(axis=0) == pytest.approx(noise, rel=0.05)


def test_what_a_measured_score_is_truly_worth_is_told_without_bias():
    scores, true, noise = recorded_scores(trials=4000)
    curves = Redrawn.of(scores, noise)
    best = np.argsort(scores[:, 2])[-400:]
    assert scores[best, 2].mean() - true[best, 2].mean() > 0.004
    assert curves.expected[best, 2].mean() == pytest.approx(true[best, 2].mean(), abs=0.002)


def test_trials_that_broke_do_not_make_the_others_look_sure():
    scores, _, noise = recorded_scores(trials=60)
    broken = np.vstack([scores, np.full((6, 3), 0.1)])
    curves = Redrawn.of(broken, noise)
    assert curves.expected[:60] == pytest.approx(Redrawn.of(scores, noise).expected, abs=0.02)
    assert (curves.expected[60:] == 0.1).all()


@pytest.fixture(scope="module")
def study():
    return read_study(find_space("default"))


def test_a_dimension_has_its_own_scale_and_one_that_is_not_there_lies_in_the_middle(study):
    params = params_of(study.recipe, study.space)
    low = coordinates(params | {"hcpr.scale": 4.0}, study.space)
    middle = coordinates(params | {"hcpr.scale": 8.0}, study.space)
    high = coordinates(params | {"hcpr.scale": 16.0}, study.space)
    assert np.array(middle) - np.array(low) == pytest.approx(np.array(high) - np.array(middle))
    other = coordinates(params | {"pace.shape": "linear", "pace.start": 0.5, "pace.ramp": 0.45}, study.space)
    assert np.linalg.norm(np.array(other) - np.array(coordinates(params, study.space))) == pytest.approx(1.0)


def curves_of(study, robust):
    published = params_of(study.recipe, study.space)
    trials = [
        Measured(published | {"hcpr.margin": 0.01 * n}, scores, dict.fromkeys(scores, 0.9), 1.0, 0)
        for n, scores in enumerate(robust)
    ]
    return RecordedCurves(trials, study.space, 359, "results/old", ((3, 9, 27),))


def test_a_trial_gets_the_curve_of_the_nearest_recorded_one_and_keeps_it(study):
    curves = curves_of(study, [{3: 0.1 * n, 27: 0.1 * n} for n in range(1, 9)])
    play = curves.play([3, 27], 100, 0)
    near = params_of(study.recipe, study.space) | {"hcpr.margin": 0.0301}
    assert play.curve(5, near).true_robust[1] == pytest.approx(0.4, abs=0.06)
    assert play.curve(5, near) == curves.play([3, 27], 100, 0).curve(5, near)
    assert play.curve(6, near) != play.curve(5, near)


def test_a_rung_that_nobody_was_scored_at_is_refused(study):
    curves = curves_of(study, [{3: 0.3, 9: 0.4, 27: 0.5}] * 3)
    with pytest.raises(InputError, match=r"results/old has no score at epoch 5, where a rung is \(it has 3, 9, 27\)"):
        curves.play([5, 27], 10, 0)
    with pytest.raises(InputError, match="has only 2 scored trials at epoch 27"):
        curves_of(study, [{3: 0.3, 27: 0.5}] * 2 + [{3: 0.4}]).play([3, 27], 10, 0)
