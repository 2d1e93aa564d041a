"""What an epoch costs, from a record and from a probe; of a training that is restarted at every rung too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.simulation.curves.costs import Costs, costs_of_probe, costs_of_records
from tests.search.histories import begin, epoch, job, job_end
from tests.simulation.plays import SECOND

COSTS = replace(SECOND, attack_step=2.0, update=1.0, evaluation=10.0, last_evaluation=30.0, checkpoint=0.5)


def test_an_epoch_costs_its_attack_steps_update_evaluation_and_checkpoint(small_study):
    # Two attack steps; rungs at 1, 2 and 4, an evaluation after each epoch.
    assert COSTS.epochs_of(small_study, 2) == [15.5, 15.5, 15.5, 35.5]
    recipe = replace(small_study.recipe, evaluation=replace(small_study.recipe.evaluation, period=10))
    assert COSTS.epochs_of(replace(small_study, recipe=recipe), 4) == [15.5, 15.5, 5.5, 35.5]


def test_a_training_that_is_restarted_at_every_rung_ends_with_it(small_study):
    schedule = replace(small_study.recipe.lr_schedule, mode="restarted")
    evaluation = replace(small_study.recipe.evaluation, period=10)
    study = replace(small_study, recipe=replace(small_study.recipe, lr_schedule=schedule, evaluation=evaluation))
    # No evaluation on the way, and the last one looks for masked gradients.
    assert COSTS.epochs_of(study, 2) == [5.5, 35.5]
    assert COSTS.epochs_of(study, 4) == [5.5, 5.5, 5.5, 35.5]


def test_an_epoch_s_seconds_may_be_given(small_study):
    faster = COSTS.with_epoch_seconds(small_study, 1.0)
    assert (faster.attack_step * 2 + faster.update, faster.evaluation) == pytest.approx((1.0, 2.0))
    assert (faster.checkpoint, faster.start) == (COSTS.checkpoint, COSTS.start)
    assert "1 seconds for the training of an epoch" in faster.words


def test_a_driver_s_rate_may_be_given():
    slower = Costs(**{**vars(COSTS), "driver_report": 0.004, "driver_job": 0.02}).with_driver_rate(25.0)
    assert (slower.driver_report, slower.driver_job) == pytest.approx((0.04, 0.2))


def reported(trial, number, time, worker, robust=None, **more):
    return epoch(trial, number, robust, time=time) | {"worker": worker, "seconds_checkpoint": 0.125, **more}


def test_costs_of_a_record_tell_work_from_waiting():
    """An epoch is 0.5 s of attack in ten steps, 0.25 s of update, 0.25 s of evaluation and 0.125 s of checkpoint."""
    events = [
        begin(),
        job(0, 0, 2, time=1.0),
        reported(0, 1, 1.0 + 8.0 + 1.125, "a", 500),  # eight seconds until a new process began
        reported(0, 2, 10.125 + 1.125 + 0.1, "a", 600, masking_validation={}, seconds_evaluation=0.25),
        job_end(0, 0, 2, time=11.5),
        job(1, 0, 1, time=12.0),
        reported(1, 1, 12.0 + 0.5 + 1.125, "a", 500),
    ]
    costs = costs_of_records([events], 1000, "made up")
    assert costs.attack_step == pytest.approx(0.05)
    assert (costs.update, costs.evaluation, costs.last_evaluation, costs.checkpoint) == (0.25, 0.25, 0.25, 0.125)
    assert (costs.start, costs.job) == pytest.approx((8.0, 0.5))
    assert costs.report == pytest.approx(0.1 - costs.driver_report)


def test_costs_of_probes_are_their_means():
    probe = {"seconds_per_attack_step": 1.0, "seconds_update": 2.0, "seconds_evaluation": 3.0, "seconds_startup": 4.0}
    probe |= {"checkpoint_bytes": 200_000_000, "steps": 1}
    costs = costs_of_probe([probe, probe | {"seconds_update": 4.0}])
    assert (costs.attack_step, costs.update, costs.evaluation, costs.checkpoint) == (1.0, 3.0, 3.0, 1.0)
    assert costs.words == "a probe of 2 optimiser steps on 2 workers"
