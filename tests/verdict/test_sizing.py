"""The size of a small verdict on machines of made-up speeds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.training.attacks.cascade import CASCADES, attacks_of, gradient_steps
from hcpr_tune.verdict.sizing import (
    FIRST_SHARE,
    TRAINING_SHARE,
    Size,
    Speed,
    Work,
    measured_speed,
    size_verdict,
    step_cost,
)
from tests.search.histories import history_of, reached, suggested

LAPTOP = Speed(start=5.0, training=15.0, step=1e-3, image=2e-5)
"""Two cores with the default search, about."""
DIGITS = Work(candidates=2, images=359, batch=512, seeds=5, classes=10, clean=0.95, robust=0.75)


def faster(speed, factor):
    return Speed(speed.start, speed.training / factor, speed.step / factor, speed.image / factor)


def test_a_laptop_trains_one_seed_and_attacks_some_of_the_images_by_all_of_autoattack():
    sized = size_verdict(LAPTOP, DIGITS, 2, 55)
    assert (sized.seeds, sized.cascade) == (1, "autoattack")
    assert 100 < sized.chunk < 359


def test_a_fast_machine_trains_all_seeds_and_attacks_all_images():
    assert size_verdict(faster(LAPTOP, 100), DIGITS, 2, 55) == Size(5, 359, "autoattack")


def test_with_time_for_few_more_seeds_images_wait():
    sized = size_verdict(replace(LAPTOP, training=5.0, step=0, image=3e-6), DIGITS, 2, 55)
    assert 1 < sized.seeds < 5
    assert sized.chunk >= 100


@pytest.mark.parametrize(
    ("factor", "cascade"), [(1, "autoattack"), (1 / 4, "gradient"), (1 / 10, "strong"), (1 / 30, "first")]
)
def test_where_attacks_are_slow_there_are_fewer(factor, cascade):
    slow = replace(faster(LAPTOP, factor), training=LAPTOP.training)
    assert size_verdict(slow, DIGITS, 2, 55).cascade == cascade


def test_where_training_alone_takes_too_long_the_reason_is_given():
    slow = replace(LAPTOP, training=40.0)
    assert size_verdict(slow, DIGITS, 2, 55) == (
        "training again would take about 45 of its 55 seconds, and leave too few for the attacks"
    )
    assert "about 65 of" in size_verdict(replace(slow, training=30.0), DIGITS, 1, 55), "one after the other"


def test_where_no_attack_fits_the_reason_is_given():
    assert "even its first attack would take more than the 35 of its 55 seconds" in size_verdict(
        replace(LAPTOP, step=1.0), DIGITS, 2, 55
    )


def test_a_chunk_fits_into_a_batch_and_many_workers_share_the_images():
    fast = faster(LAPTOP, 1000)
    assert size_verdict(fast, replace(DIGITS, images=math.inf), 2, 55).chunk == 512
    assert size_verdict(fast, DIGITS, 40, 55).chunk == math.ceil(359 / 4)
    assert size_verdict(fast, replace(DIGITS, images=7), 2, 55).chunk == 7


def seconds_of_first_chunk(speed, work, workers, sized):
    """What training and the first chunk take of the time, by the same costs."""
    models = sized.seeds * work.candidates
    rounds = math.ceil(models / workers)
    steps = gradient_steps(work.classes)
    shares = [work.clean, *[work.robust] * 3]
    attacks = attacks_of(sized.cascade, work.classes)
    attacked = sum(
        steps[attack] * (speed.step + speed.image * share * sized.chunk)
        for attack, share in zip(attacks, shares, strict=False)
    )
    return speed.start + rounds * speed.training, rounds * attacked


@given(
    training=st.floats(0.01, 100),
    step=st.floats(0, 0.1),
    image=st.floats(0, 1e-3),
    workers=st.integers(1, 64),
    candidates=st.integers(1, 2),
    images=st.integers(1, 10_000),
    classes=st.sampled_from([2, 3, 10, 100]),
    seconds=st.floats(1, 600),
)
@settings(max_examples=200, deadline=None, database=None)
def test_what_is_planned_fits_and_what_is_not_planned_has_a_reason(
    training, step, image, workers, candidates, images, classes, seconds
):
    speed, work = Speed(0.5, training, step, image), Work(candidates, images, 512, 5, classes, 0.9, 0.5)
    sized = size_verdict(speed, work, workers, seconds)
    if isinstance(sized, str):
        assert "seconds" in sized
        return
    trained, attacked = seconds_of_first_chunk(speed, work, workers, sized)
    assert trained <= TRAINING_SHARE * seconds
    assert attacked <= FIRST_SHARE * (seconds - trained) + 1e-6
    assert 1 <= sized.seeds <= 5
    assert 1 <= sized.chunk <= min(512, images)
    assert sized.cascade in CASCADES


def test_a_faster_machine_never_does_less():
    before = None
    for factor in (0.02, 0.1, 0.5, 1, 2, 5, 20, 100):
        sized = size_verdict(faster(LAPTOP, factor), DIGITS, 2, 55)
        done = (0, 0, 0) if isinstance(sized, str) else (sized.seeds, [*CASCADES].index(sized.cascade), sized.chunk)
        assert before is None or done >= before
        before = done


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((64, 1.64), (300, 4.0), (1.0, 0.01)),
        ((64, 3.0), (300, 2.0), (3.0, 0.0)),
        ((64, 0.5), (300, 4.0), (0.0, 4.0 / 300)),
        ((0, 0.0), (300, 3.0), (0.0, 0.01)),
        ((64, 1.0), (64, 2.0), (0.0, 2 / 64)),
    ],
)
def test_the_cost_of_a_step_from_two_batches(small, large, expected):
    assert step_cost(small, large) == pytest.approx(expected)


def test_the_speed_is_read_off_the_record(small_study):
    history = history_of(suggested(0), *reached(0, 0, 4, 500), last_epoch=4)
    recipe = small_study.recipe
    speed = measured_speed(recipe, history)
    assert speed.training == pytest.approx(4 * 1.0)
    batches = math.ceil(1079 / recipe.batch_size)
    # The clean images are all right and half of them survive: a step of the evaluation has 750 on average.
    of_training, of_evaluation = 0.5 / (10 * batches), 0.25 / (recipe.evaluation.steps + 1)
    assert (recipe.evaluation.batch_size, recipe.evaluation.restarts) == (512, 1), "two batches, one start"
    expected = step_cost((recipe.batch_size, of_training), (750 / 2, of_evaluation / 2))
    assert (speed.step, speed.image) == pytest.approx(expected)


def test_without_an_evaluated_trial_there_is_no_speed(small_study):
    assert measured_speed(small_study.recipe, history_of()) is None
