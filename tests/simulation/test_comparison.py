"""Variants are compared in pairs, and the ones that nobody would want are told from the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.simulation.comparison import Estimate, Played, beats, choice, compare, gain, unbeaten
from hcpr_tune.simulation.curves.curves import GuessedCurves
from hcpr_tune.simulation.outcome import Outcome, averaged
from hcpr_tune.simulation.suggesting import repeated
from hcpr_tune.simulation.variants import Variant, variants_of, varied
from hcpr_tune.simulation.worker_pool import WorkerPool
from tests.simulation.plays import SECOND

NOTHING = Outcome(10.0, 20.0, 0.5, 0.1, 4, 8, 7, 0, 0.0, 100, 10, True, 0.5, 0.6, (), ())


def played(name, scores, hours=1.0, study=None):
    outcomes = [replace(NOTHING, wall_clock=hours, worker_seconds=2 * hours, score=score) for score in scores]
    return Played(Variant(name, study, WorkerPool(2)), outcomes)


def test_an_interval_is_student_s():
    # mean 2, standard deviation 1, three values: 4.3027 / sqrt(3) on either side.
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.high) == pytest.approx((2.0, 2.0 + 4.302653 / 3**0.5))
    assert Estimate.of([1.5]) == Estimate(1.5, 1.5, 1.5)


def test_running_jobs_are_averaged_over_steps():
    steps = averaged([(0.0, 4), (1.0, 3), (1.5, 4), (100.0, 2)], 150.0)
    assert len(steps) == 151
    assert steps[:3] == ((0.0, 4.0), (1.0, 3.5), (2.0, 4.0))
    assert [jobs for _, jobs in steps[99:101]] == [4.0, 2.0]
    assert sum(jobs for _, jobs in steps) == pytest.approx(4 * 100 - 0.5 + 2 * 50)
    assert steps[-1] == (150.0, 0.0)
    assert averaged([], 0.0) == ((0.0, 0.0),)


def test_differences_are_taken_in_pairs():
    one, other = played("one", [0.5, 0.6, 0.7]), played("other", [0.49, 0.59, 0.69])
    assert gain(one, other).low == pytest.approx(0.01)


def test_what_costs_more_and_is_not_shown_to_score_higher_is_beaten():
    cheap, dear = played("cheap", [0.5, 0.6, 0.7]), played("dear", [0.52, 0.58, 0.72], hours=2.0)
    better = played("better", [0.55, 0.66, 0.74], hours=2.0)
    assert beats(cheap, dear)
    assert not beats(dear, cheap)
    assert not beats(cheap, better)
    assert [one.variant.name for one in unbeaten([cheap, dear, better])] == ["cheap", "better"]
    assert choice([cheap, dear, better]) is better


def test_where_variants_beat_each_other_in_a_circle_all_are_left():
    # Nearly equal costs, and scores that only some pairs show.
    a, b = played("a", [0.50, 0.60]), played("b", [0.50, 0.60])
    c, d = played("c", [0.51, 0.61]), played("d", [0.49, 0.59])
    for one, (wall, work) in {"a": (100, 100), "b": (101.1, 99.1), "c": (100.2, 98.2), "d": (99.3, 99.3)}.items():
        found = {"a": a, "b": b, "c": c, "d": d}[one]
        found.outcomes = [replace(outcome, wall_clock=wall, worker_seconds=work) for outcome in found.outcomes]
    results = [a, b, c, d]
    assert unbeaten(results)
    assert choice(results) in results


def test_of_equal_cost_only_what_is_shown_to_score_lower_is_beaten():
    one, other, worse = played("one", [0.5, 0.6]), played("other", [0.51, 0.59]), played("worse", [0.4, 0.5])
    assert unbeaten([one, other, worse]) == [one, other]


def test_the_cheapest_of_those_that_may_be_the_best_is_chosen():
    cheap, dear = played("cheap", [0.5, 0.6, 0.7]), played("dear", [0.52, 0.58, 0.72], hours=2.0)
    assert choice([dear, cheap]) is cheap


@pytest.fixture
def read(space_file):
    return lambda more: read_study(space_file, more)


def test_each_combination_is_a_variant_and_the_space_itself_is_the_first(read):
    variants = variants_of(varied(["early_stopping.first_rung=1,2", "workers=2,4"]), read, WorkerPool(2))
    assert [variant.name for variant in variants] == [
        "early_stopping.first_rung=1, workers=2 (the unchanged space)",
        "early_stopping.first_rung=1, workers=4",
        "early_stopping.first_rung=2, workers=2",
        "early_stopping.first_rung=2, workers=4",
    ]
    assert [variant.worker_pool.workers for variant in variants] == [2, 4, 2, 4]
    assert variants[2].study.rungs == (2, 4)
    assert [variant.name for variant in variants_of(varied(["seed=3"]), read, WorkerPool(2))] == [
        "the unchanged space",
        "seed=3",
    ]


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["first_rung"], "must be KEY=VALUE,VALUE"),
        (["recipe.batch_size=64,128"], "a plan has learning curves of the training as it is and cannot vary that"),
        (["workers=0,4"], "--vary workers must be a whole number of at least 1, got 0"),
        (["workers=two"], "--vary workers must be a whole number of at least 1, got two"),
        (["seed=1", "seed=2"], "--vary seed is given twice"),
        (["seed=1,1"], "--vary seed has 1 twice"),
        (["epochs=2,4"], "cannot vary that"),
        (["workers=2,1000000"], "--vary workers must be a whole number of at most 100000, got 1000000"),
        (["budget.trials=" + ",".join(map(str, range(1, 70)))], "makes 69 variants, at most 64"),
        (["early_stopping.first_rung=9"], "first_rung must be at most recipe.epochs = 4"),
    ],
)
def test_what_cannot_vary_is_refused(vary, words, read):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        variants_of(varied(vary), read, WorkerPool(2))


CURVES = GuessedCurves(classes=10, last_epoch=4, images=359, probed_epoch=1.0, probed_accuracy=0.3)


def test_a_comparison_is_the_same_each_time_and_needs_no_more_than_its_seconds(read):
    variants = variants_of(varied(["early_stopping.first_rung=1,2", "budget.trials=4,40"]), read, WorkerPool(3))
    one, again = (compare(variants, CURVES, SECOND, 0, 3) for _ in range(2))
    assert [played.outcomes for played in one] == [played.outcomes for played in again]
    assert [len(played.outcomes) for played in compare(variants, CURVES, SECOND, 0, 3, seconds=0.0)] == [1] * 4
    trials = {played.variant.name: played.estimate("trials").mean for played in one}
    assert [*trials.values()] == [4, 40, 4, 40]


def test_workers_that_vary_are_written_and_stay_within_what_the_space_allows(read):
    variants = variants_of(varied(["workers=2,4"]), read, WorkerPool(2))
    assert [variant.study.settings.resources.workers for variant in variants] == [2, 4]
    assert variants_of(varied(["seed=3"]), read, WorkerPool(2))[1].study.settings.resources.workers == 0

    def few(more):
        return read([("resources.workers", 3), *more])

    with pytest.raises(InputError, match=r"--vary workers 4 is above resources\.workers = 3"):
        variants_of(varied(["workers=2,4"]), few, WorkerPool(2))


def test_each_repeat_is_another_search_with_the_same_settings(read):
    study = read([("seed", 7)])
    assert repeated(study, 0) is study
    seeds = {repeated(study, repeat).settings.seed for repeat in range(20)}
    assert len(seeds) == 20
    assert repeated(study, 3) == repeated(study, 3)
    assert repeated(study, 3).settings.sampler == study.settings.sampler


def test_more_trials_find_more_and_halving_costs_little_of_it(read):
    def always_halving(more):
        return read([("early_stopping.min_rank_correlation", -1), *more])

    variants = variants_of(
        varied(["budget.trials=4,64", "early_stopping.method=asha,none"]), always_halving, WorkerPool(8)
    )
    results = {played.variant.name: played for played in compare(variants, CURVES, SECOND, 0, 20)}
    few, all_few, many, all_many = results.values()
    assert gain(many, few).low > 0.02
    assert all_many.estimate("epochs").mean > 1.5 * many.estimate("epochs").mean
    # Noise loses something where nobody is stopped, and halving little more.
    assert 0 < all_many.estimate("loss").low < all_many.estimate("loss").high < 0.03
    assert abs(gain(all_many, many).mean) < 0.02
    assert all_few.rungs() == []
    first = many.rungs()[0]
    assert first["reached"] == 64
    assert 0 < first["correlation_with_truth"]["mean"] < 1
    assert first["saved_worker_seconds"] == pytest.approx(3 * first["stopped"])
