"""The schedules: the published steps, ramps that arrive, segments that begin anew."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.training.methods.schedules import at_epoch, attack_steps, learning_rate, lr_factor, span, value
from hcpr_tune.training.recipe import Attack, LrSchedule, Optimiser, Recipe, Schedule

STRETCHED = Recipe(epochs=12, segment_ends=(3, 8))


def schedules(shapes: tuple[str, ...] = ("constant", "linear", "cosine")) -> st.SearchStrategy[Schedule]:
    unit = st.floats(0, 1)
    return st.builds(Schedule, start=unit, end=unit, ramp=unit, shape=st.sampled_from(shapes))


def rates(recipe: Recipe) -> list[float]:
    return [learning_rate(recipe, epoch) for epoch in range(1, recipe.epochs + 1)]


def paces(recipe: Recipe, schedule: Schedule) -> list[float]:
    return [at_epoch(recipe, schedule, epoch) for epoch in range(1, recipe.epochs + 1)]


def test_default_rates_are_the_published_steps():
    assert rates(Recipe()) == pytest.approx([0.1] * 74 + [0.01] * 15 + [0.001] * 11, rel=1e-12)


def test_steps_fall_at_the_same_fractions_of_any_length():
    assert rates(Recipe(epochs=20)) == pytest.approx([0.1] * 14 + [0.01] * 3 + [0.001] * 3, rel=1e-12)
    assert rates(Recipe(epochs=10)) == pytest.approx([0.1] * 7 + [0.01] + [0.001] * 2, rel=1e-12)


@pytest.mark.parametrize(("fraction", "epochs", "first"), [(0.55, 100, 55), (0.07, 100, 7), (0.57, 100, 57)])
def test_a_step_falls_at_its_whole_epoch_whatever_the_rounding(fraction, epochs, first):
    recipe = Recipe(epochs=epochs, lr_schedule=LrSchedule(milestones=(fraction,)))
    assert rates(recipe).index(pytest.approx(0.01)) + 1 == first


def test_cosine_rate_starts_full_and_falls_along_half_a_period():
    recipe = Recipe(epochs=8, lr_schedule=LrSchedule(shape="cosine"))
    expected = [0.05 * (1 + math.cos(math.pi * passed / 8)) for passed in range(8)]
    assert rates(recipe) == pytest.approx(expected, rel=1e-12)
    assert rates(recipe)[0] == 0.1
    assert rates(recipe)[-1] > 0


@pytest.mark.parametrize("shape", ["steps", "cosine"])
def test_annealed_rate_falls_in_each_stretch_and_returns_to_the_full_one(shape):
    recipe = replace(STRETCHED, lr_schedule=LrSchedule(mode="annealed", shape=shape))
    found = rates(recipe)
    for begin, end in ((0, 3), (3, 8), (8, 12)):
        alone = rates(Recipe(epochs=end - begin, lr_schedule=LrSchedule(shape=shape)))
        assert found[begin:end] == alone
        assert alone[0] == 0.1
        assert alone[-1] < 0.1
        assert alone == sorted(alone, reverse=True)


@pytest.mark.parametrize("shape", ["steps", "cosine"])
def test_annealed_stretch_of_one_epoch_trains_at_the_full_rate(shape):
    recipe = Recipe(epochs=4, segment_ends=(1,), lr_schedule=LrSchedule(mode="annealed", shape=shape))
    assert learning_rate(recipe, 1) == 0.1


def test_a_single_schedule_does_not_see_the_stretches():
    assert rates(STRETCHED) == rates(Recipe(epochs=12))


def test_the_rate_is_a_multiple_of_the_optimisers():
    recipe = Recipe(epochs=6, optimiser=Optimiser(lr=0.02), lr_schedule=LrSchedule(milestones=(0.5,), factor=0.5))
    assert rates(recipe) == pytest.approx([0.02, 0.02, 0.01, 0.01, 0.01, 0.01])


def test_no_milestones_means_a_constant_rate():
    assert rates(Recipe(epochs=5, lr_schedule=LrSchedule(milestones=()))) == [0.1] * 5


def test_linear_ramp_over_the_trial():
    schedule = Schedule(0.0, 1.0, ramp=0.5, shape="linear")
    assert paces(Recipe(epochs=10), schedule) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1])


def test_cosine_ramp_is_half_a_period():
    schedule = Schedule(1.0, 0.0, ramp=1.0, shape="cosine")
    expected = [(1 + math.cos(math.pi * passed / 4)) / 2 for passed in range(5)]
    assert paces(Recipe(epochs=5), schedule) == pytest.approx(expected, abs=1e-12)


def test_a_ramp_over_the_stretch_begins_anew_in_each():
    schedule = Schedule(0.0, 1.0, ramp=1.0, shape="linear", over="segment")
    expected = [0, 1 / 2, 1, 0, 1 / 4, 2 / 4, 3 / 4, 1, 0, 1 / 3, 2 / 3, 1]
    assert paces(STRETCHED, schedule) == pytest.approx(expected)
    assert paces(STRETCHED, replace(schedule, over="trial")) == pytest.approx([passed / 11 for passed in range(12)])


def test_stretches_are_counted_from_their_first_epoch():
    found = [span(STRETCHED, epoch, "segment") for epoch in (1, 3, 4, 8, 9, 12)]
    assert found == [(1, 3), (3, 3), (1, 5), (5, 5), (1, 4), (4, 4)]
    assert span(STRETCHED, 9, "trial") == (9, 12)


def test_a_stretch_that_ends_with_the_trial_adds_none():
    assert Recipe(epochs=12, segment_ends=(3, 12)).rung_epochs == (3, 12)
    assert STRETCHED.rung_epochs == (3, 8, 12)


@given(schedule=schedules(("constant",)), length=st.integers(1, 200))
@settings(deadline=None, database=None)
def test_constant_is_its_end_throughout(schedule, length):
    assert {value(schedule, position, length) for position in range(1, length + 1)} == {schedule.end}


@given(schedule=schedules(("linear", "cosine")), length=st.integers(1, 200))
@settings(deadline=None, database=None)
def test_a_ramp_starts_at_start_and_reaches_end_at_its_last_epoch(schedule, length):
    last = min(length, max(1, math.floor(schedule.ramp * length + 0.5)))
    assert value(schedule, last, length) == schedule.end
    assert value(schedule, length, length) == schedule.end
    if last > 1:
        assert value(schedule, 1, length) == schedule.start


@given(schedule=schedules(), length=st.integers(1, 200))
@settings(deadline=None, database=None)
def test_values_lie_between_start_and_end_and_move_one_way(schedule, length):
    values = [value(schedule, position, length) for position in range(1, length + 1)]
    low, high = sorted((schedule.start, schedule.end))
    assert all(low - 1e-12 <= each <= high + 1e-12 for each in values)
    rise = 1 if schedule.end >= schedule.start else -1
    assert all(rise * (after - before) >= -1e-12 for before, after in pairwise(values))


def test_attack_steps_are_rounded():
    schedule = Schedule(1, 4, ramp=1.0, shape="linear")
    recipe = Recipe(epochs=7, attack=Attack(steps=schedule))
    found = [attack_steps(recipe, epoch) for epoch in range(1, 8)]
    assert found == [1, 2, 2, 3, 3, 4, 4]  # of 1, 1.5, 2, 2.5, 3, 3.5, 4
    assert all(isinstance(steps, int) for steps in found)


@given(start=st.floats(1, 20), end=st.floats(1, 20), epoch=st.integers(1, 9))
@settings(deadline=None, database=None)
def test_attack_steps_are_at_least_one(start, end, epoch):
    recipe = Recipe(epochs=9, attack=Attack(steps=Schedule(start, end, ramp=1.0, shape="cosine")))
    assert attack_steps(recipe, epoch) >= 1


def test_default_attack_has_the_published_ten_steps():
    assert {attack_steps(Recipe(), epoch) for epoch in range(1, 101)} == {10}


def test_the_cyclic_rate_rises_to_the_peak_and_falls():
    schedule = LrSchedule(shape="cyclic", peak=0.4)
    rates = [lr_factor(schedule, position, 10) for position in range(1, 11)]
    assert rates == pytest.approx(
        [0.125, 0.375, 0.625, 0.875, 0.55 / 0.6, 0.75, 0.35 / 0.6, 0.25 / 0.6, 0.25, 0.05 / 0.6]
    )
    assert all(0 < rate <= 1 for rate in rates)


def test_where_each_rung_is_a_training_of_its_own_every_schedule_spans_it():
    whole = Recipe(epochs=27, segment_ends=(3, 9), lr_schedule=LrSchedule(mode="restarted", shape="cosine"))
    short = replace(whole, stop_epoch=9)
    alone = Recipe(epochs=9, lr_schedule=LrSchedule(shape="cosine"))
    assert [learning_rate(short, epoch) for epoch in range(1, 10)] == [learning_rate(alone, e) for e in range(1, 10)]
    ramp = Schedule(0.0, 1.0, ramp=1.0, shape="linear")
    over_stretch = replace(ramp, over="segment")
    values = [at_epoch(replace(short, pace=ramp), ramp, epoch) for epoch in range(1, 10)]
    assert values == [at_epoch(short, over_stretch, epoch) for epoch in range(1, 10)]
    assert (values[0], values[-1]) == (0.0, 1.0)
    assert (short.rung_epochs, short.rungs, short.last_epoch) == ((9,), (3, 9, 27), 9)
    assert (whole.rung_epochs, whole.last_epoch) == ((27,), 27)


def test_only_an_annealed_rate_returns():
    recipe = Recipe(epochs=12, segment_ends=(3, 8))
    for mode, returns in (("single", []), ("annealed", [4, 9]), ("restarted", [])):
        changed = replace(recipe, lr_schedule=LrSchedule(mode=mode))
        assert [epoch for epoch in range(1, 13) if changed.returns_at(epoch)] == returns
