"""The probe trains real steps, within its time, and says what an epoch is made of."""

from __future__ import annotations

from dataclasses import replace

from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.probe import probe
from hcpr_tune.training.session import DataShelf
from hcpr_tune.views.forecast import detectable, hours, plan_lines, probe_lines, segment_seconds


def test_a_probe_measures_at_least_one_step_however_little_time_there_is(tiny_recipe):
    found = probe(tiny_recipe, DataShelf(), seconds=0.0)
    assert found.steps == 1
    assert min(found.seconds_per_attack_step, found.seconds_update, found.seconds_evaluation) > 0
    assert found.steps_per_epoch == 17
    assert found.validation_images == 359
    assert found.epoch_seconds(10) > found.epoch_seconds(2)


def test_a_probe_ends_after_two_epochs(tiny_recipe):
    found = probe(tiny_recipe, DataShelf(), seconds=600.0)
    assert found.steps == 2 * 17
    assert found.checkpoint_bytes > 1000


MEASURED = {
    "steps": 34,
    "seconds_per_attack_step": 0.5,
    "seconds_update": 1.0,
    "seconds_evaluation": 2.0,
    "seconds_startup": 0.0,
    "checkpoint_bytes": 10_000_000,
    "validation_images": 1000,
}


def test_a_trial_costs_the_attack_steps_of_each_epoch_and_its_evaluations(small_study):
    # 2 epochs of 2 steps of 0.5 s and 1 s; an evaluation of 2 s after each.
    assert segment_seconds(small_study, [MEASURED], 2, 4) == (2 * 2.0, 2 * 2.0)
    ramp = replace(small_study.recipe.attack.steps, start=2.0, end=4.0, ramp=1.0, shape="linear")
    recipe = replace(small_study.recipe, attack=replace(small_study.recipe.attack, steps=ramp))
    # Steps 2, 3, 3, 4.
    assert segment_seconds(replace(small_study, recipe=recipe), [MEASURED], 0, 2) == (5 * 0.5 + 2, 4.0)
    assert segment_seconds(replace(small_study, recipe=recipe), [MEASURED], 2, 4) == (7 * 0.5 + 2, 4.0)


def test_the_forecast_in_words(small_study, space_file):
    lines = "\n".join([*plan_lines(small_study), *probe_lines(small_study, 2, [MEASURED, MEASURED])])
    assert "calibration: 1 trials run to the end whatever their scores, 40 % of the usual epochs" in lines
    assert "one trial to the end: 16 seconds on one worker, 50 % of it evaluation" in lines
    # 10 usual epochs of 4 s.
    assert "the search: 40 seconds of workers' time, about 20 seconds on 2 workers" in lines
    assert "difference between two recipes that 1000 validation images show (95 %, power 80 %): 2.8 points" in lines
    study = read_study(space_file, [("budget.hours", 2), ("budget.worker_hours", 1.5)])
    assert "ends with: 4 trials or 2 hours or 1.5 worker-hours" in plan_lines(study)


def test_more_images_show_smaller_differences():
    assert detectable(4000, 0.1) == detectable(1000, 0.1) / 2
    assert [hours(59), hours(600), hours(7200)] == ["59 seconds", "10 minutes", "2.0 hours"]
