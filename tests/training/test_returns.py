"""What happens at a rung: a training of its own, and what momentum and averaged weights do where the rate returns."""

from __future__ import annotations

from dataclasses import replace

import torch

from hcpr_tune.training.loop import initial_state, train
from hcpr_tune.training.recipe import Averaging, LrSchedule
from hcpr_tune.training.session import DataShelf, train_segment


def weights_of(recipe, digits, upto):
    state = initial_state(recipe, digits)
    for epoch in train(recipe, digits, state):
        if epoch.epoch == upto:
            break
    return state


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_rung_of_its_own_is_the_short_training(tiny_recipe, digits):
    restarted = replace(tiny_recipe, stop_epoch=2, lr_schedule=LrSchedule(mode="restarted", shape="cosine"))
    short = replace(tiny_recipe, epochs=2, segment_ends=(), lr_schedule=LrSchedule(mode="single", shape="cosine"))
    assert same(weights_of(restarted, digits, 2).model, weights_of(short, digits, 2).model)
    assert not same(weights_of(replace(restarted, stop_epoch=0), digits, 2).model, weights_of(short, digits, 2).model)


def test_momentum_goes_on_or_begins_anew_where_the_rate_returns(tiny_recipe, digits):
    kept = replace(tiny_recipe, lr_schedule=LrSchedule(mode="annealed", shape="cosine"))
    reset = replace(kept, lr_schedule=replace(kept.lr_schedule, momentum_at_return="reset"))
    assert same(weights_of(kept, digits, 2).model, weights_of(reset, digits, 2).model)
    assert not same(weights_of(kept, digits, 3).model, weights_of(reset, digits, 3).model)


def test_the_average_goes_on_or_begins_anew_where_the_rate_returns(tiny_recipe, digits):
    kept = replace(
        tiny_recipe, averaging=Averaging(half_life=50.0), lr_schedule=LrSchedule(mode="annealed", shape="cosine")
    )
    reset = replace(kept, averaging=replace(kept.averaging, at_return="reset"))
    before, after = weights_of(kept, digits, 3), weights_of(reset, digits, 3)
    assert same(before.model, after.model)
    assert not same(before.scored_model(), after.scored_model())
    steps_per_epoch = before.averaged.steps // 3
    assert (before.averaged.steps, after.averaged.steps) == (3 * steps_per_epoch, steps_per_epoch)


def test_a_return_survives_a_checkpoint(tiny_recipe, tmp_path):
    recipe = replace(
        tiny_recipe,
        averaging=Averaging(half_life=1.0, at_return="reset"),
        lr_schedule=LrSchedule(mode="annealed", shape="cosine", momentum_at_return="reset"),
    )
    shelf = DataShelf()
    whole = [report["robust_correct_validation"] for report in train_segment(recipe, shelf, tmp_path / "whole", 0, 4)]
    halves = list(train_segment(recipe, shelf, tmp_path / "halves", 0, 2))
    halves += list(train_segment(recipe, shelf, tmp_path / "halves", 2, 4))
    assert [report["robust_correct_validation"] for report in halves] == whole
    assert (tmp_path / "whole/epoch_0004/model.safetensors").read_bytes() == (
        tmp_path / "halves/epoch_0004/model.safetensors"
    ).read_bytes()
