"""The training loop on real digits: it learns, repeats bit for bit, continues as if never stopped, reports failure."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from hcpr_tune.errors import Diverged, InputError
from hcpr_tune.training.data.dataset import Data, Split
from hcpr_tune.training.loop import Epoch, TrainingState, initial_state, train
from hcpr_tune.training.methods.schedules import at_epoch, learning_rate
from hcpr_tune.training.recipe import Recipe, Schedule


def tensors(state: TrainingState) -> dict[str, Tensor]:
    """Every number that the state holds: weights, buffers, momentum."""
    found = {f"model.{name}": value.clone() for name, value in state.model.state_dict().items()}
    for index, values in state.optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{index}.{name}": value.clone() for name, value in values.items()}
    return found


def assert_same(first: TrainingState, second: TrainingState) -> None:
    ours, theirs = tensors(first), tensors(second)
    assert first.epoch == second.epoch
    assert ours.keys() == theirs.keys()
    assert sum(name.endswith("momentum_buffer") for name in ours) == len(list(first.model.parameters()))
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


def measured(epochs: list[Epoch]) -> list[Epoch]:
    """What was measured but for the seconds, the only figures that may differ between two runs."""
    timeless = {"seconds_attack": 0.0, "seconds_update": 0.0, "seconds_evaluation": 0.0}
    return [replace(epoch, **timeless) for epoch in epochs]


def few(data: Data) -> Data:
    """64 training images: two threads are slow where they share one core."""
    train = data.train
    return replace(data, train=Split(train.pool, train.indices[:64], train.labels[:64], train.images[:64]))


def run(recipe: Recipe, data: Data) -> tuple[TrainingState, list[Epoch]]:
    state = initial_state(recipe, data)
    return state, list(train(recipe, data, state))


def test_four_epochs_are_two_and_a_checkpoint_and_two_bit_for_bit(tiny_recipe, digits, trained, tmp_path):
    first = initial_state(tiny_recipe, digits)
    epochs = []
    for epoch in train(tiny_recipe, digits, first):
        epochs.append(epoch)
        if epoch.epoch == 2:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            break
    second = initial_state(replace(tiny_recipe, seed=77), digits)  # everything must come from the file
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same(first, second)
    epochs += train(tiny_recipe, digits, second)
    assert measured(epochs) == measured(trained.epochs)
    assert_same(second, trained.state)


def test_the_same_recipe_gives_the_same_bits(tiny_recipe, digits, trained):
    torch.manual_seed(1234)
    state, epochs = run(tiny_recipe, digits)
    assert measured(epochs) == measured(trained.epochs)
    assert_same(state, trained.state)


def test_the_callers_thread_count_does_not_change_the_result(tiny_recipe, digits):
    recipe, before = replace(tiny_recipe, epochs=1, segment_ends=()), torch.get_num_threads()
    alone, _ = run(recipe, digits)
    torch.set_num_threads(before + 1)
    try:
        beside, _ = run(recipe, digits)
    finally:
        torch.set_num_threads(before)
    assert_same(alone, beside)


def test_another_seed_gives_another_training(tiny_recipe, digits, trained):
    _, epochs = run(replace(tiny_recipe, epochs=1, segment_ends=(), seed=1), digits)
    assert epochs[0].loss != trained.epochs[0].loss


def test_initial_weights_depend_on_nothing_but_seed_and_model(tiny_recipe, digits):
    def weights(recipe: Recipe) -> list[Tensor]:
        return list(initial_state(recipe, digits).model.state_dict().values())

    first = weights(tiny_recipe)
    torch.manual_seed(99)
    other = replace(tiny_recipe, epochs=9, batch_size=32, pace=Schedule(), task=replace(tiny_recipe.task, split_seed=3))
    assert all(torch.equal(a, b) for a, b in zip(first, weights(other), strict=True))
    assert not torch.equal(first[0], weights(replace(tiny_recipe, seed=1))[0])


def test_epochs_differ_in_order(tiny_recipe, digits):
    # With weights held still, an order that began anew in each epoch would repeat the losses.
    still = replace(tiny_recipe.optimiser, lr=1e-30, weight_decay=0.0)
    recipe = replace(tiny_recipe, epochs=2, optimiser=still, pace=Schedule(), consistency=Schedule())
    _, (first, second) = run(recipe, digits)
    assert first.classification_loss != second.classification_loss
    assert first.classification_loss == pytest.approx(second.classification_loss, rel=0.05)


def test_global_generators_and_threads_are_left_as_found(tiny_recipe, digits):
    recipe, threads = replace(tiny_recipe, epochs=2), torch.get_num_threads()
    recipe = replace(recipe, threads=threads + 1)
    generators, numpys, pythons = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    data = few(digits)
    state = initial_state(recipe, data)
    for _ in train(recipe, data, state):
        assert torch.get_num_threads() == threads  # between epochs, too: the caller may do anything there
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generators)
    assert np.array_equal(np.random.get_state()[1], numpys)
    assert random.getstate() == pythons


def test_an_epoch_tells_what_its_schedules_were(trained):
    recipe = trained.recipe
    for number, epoch in enumerate(trained.epochs, start=1):
        assert (epoch.epoch, epoch.images, epoch.attack_steps) == (number, 1079, 2)
        assert epoch.is_rung == (number in (2, 4))
        assert epoch.lr == learning_rate(recipe, number)
        assert epoch.pace == at_epoch(recipe, recipe.pace, number)
        assert epoch.consistency_factor == at_epoch(recipe, recipe.consistency, number)
        assert epoch.loss == pytest.approx(
            epoch.classification_loss + epoch.consistency_factor * epoch.consistency_loss
        )
        assert min(epoch.seconds_attack, epoch.seconds_update, epoch.seconds_evaluation) > 0


def test_the_optimiser_ran_at_the_scheduled_rate(trained):
    assert {group["lr"] for group in trained.state.optimiser.param_groups} == {trained.epochs[-1].lr}


def test_rungs_are_always_evaluated_and_other_epochs_at_the_period(tiny_recipe, digits):
    evaluation = replace(tiny_recipe.evaluation, period=3)
    recipe = replace(tiny_recipe, epochs=5, segment_ends=(1,), evaluation=evaluation)
    _, epochs = run(recipe, digits)
    assert [epoch.epoch for epoch in epochs if epoch.validation is not None] == [1, 3, 5]
    assert [epoch.epoch for epoch in epochs if epoch.is_rung] == [1, 5]


def test_evaluating_less_often_trains_the_same_model(tiny_recipe, digits, trained):
    state, _ = run(replace(tiny_recipe, evaluation=replace(tiny_recipe.evaluation, period=4)), digits)
    assert_same(state, trained.state)


def test_a_finished_training_goes_no_further(tiny_recipe, digits, trained):
    before = tensors(trained.state)
    assert list(train(tiny_recipe, digits, trained.state)) == []
    assert all(torch.equal(value, before[name]) for name, value in tensors(trained.state).items())


@pytest.mark.parametrize("planted", [math.nan, math.inf])
def test_divergence_names_its_epoch(tiny_recipe, digits, planted):
    state = initial_state(tiny_recipe, digits)
    epochs = train(tiny_recipe, digits, state)
    assert [next(epochs).epoch, next(epochs).epoch] == [1, 2]
    with torch.no_grad():
        state.model.features[0].weight[0, 0, 0, 0] = planted
    with pytest.raises(Diverged, match="epoch 3"):
        next(epochs)
    assert state.epoch == 2


def test_weights_that_the_last_step_of_an_epoch_spoilt_are_a_divergence(tiny_recipe, digits):
    # One step per epoch: its loss is still finite, the weights after it are not.
    recipe = replace(tiny_recipe, batch_size=2000)
    state = initial_state(recipe, digits)
    epochs = train(recipe, digits, state)
    next(epochs)
    state.optimiser.state[state.model.features[0].weight]["momentum_buffer"].fill_(math.nan)
    with pytest.raises(Diverged, match="a weight is not finite after epoch 2"):
        next(epochs)


def test_a_training_that_blows_up_by_itself_diverges(tiny_recipe, digits):
    # Square terms of this weight leave the range of float32.
    recipe = replace(tiny_recipe, hcpr=replace(tiny_recipe.hcpr, scale=1000.0, square_weight=1e38))
    with pytest.raises(Diverged, match="epoch 1"):
        run(recipe, digits)


def test_threads_are_put_back_when_a_training_diverges(tiny_recipe, digits):
    recipe = replace(tiny_recipe, threads=torch.get_num_threads() + 1)
    state, before = initial_state(recipe, few(digits)), torch.get_num_threads()
    with torch.no_grad():
        state.model.head.bias.fill_(math.nan)
    with pytest.raises(Diverged, match="epoch 1"):
        list(train(recipe, few(digits), state))
    assert torch.get_num_threads() == before


def test_it_learns_robustly(trained):
    first, last = trained.epochs[0].validation, trained.epochs[-1].validation
    assert last.total == 359
    assert last.robust_correct > 0.4 * last.total  # chance is 0.1
    assert last.clean_correct > 0.75 * last.total
    assert last.robust_correct > first.robust_correct


def test_head_rows_are_unit_after_training(trained):
    norms = trained.state.model.head.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(10), rtol=0, atol=1e-6)


def test_the_consistency_factor_changes_the_training(tiny_recipe, digits, trained):
    recipe = replace(tiny_recipe, epochs=1, segment_ends=(), consistency=Schedule(0.0, 0.0))
    _, epochs = run(recipe, digits)
    assert epochs[0].loss == epochs[0].classification_loss
    assert epochs[0].consistency_loss > trained.epochs[0].consistency_loss


def test_a_compiled_model_trains_as_the_plain_one(tiny_recipe, digits, monkeypatch):
    # torch's own tracing without code generation, which would need a C++ compiler and a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    recipe = replace(tiny_recipe, epochs=2, segment_ends=())
    _, plain = run(recipe, digits)
    state, compiled = run(replace(recipe, compile=True), digits)
    assert state.compiled is not None
    # The plain attack folds batch normalisation: equal to rounding, which the sign of a step spreads.
    assert compiled[0].loss == pytest.approx(plain[0].loss, rel=0.01)
    assert "_orig_mod" not in "".join(state.state_dict()["model"])


def test_a_last_shorter_batch_is_not_compiled_once_more(tiny_recipe, digits, monkeypatch):
    shapes = []

    def compiled(model, **options):
        assert options == {"dynamic": False}

        def forward(images):
            shapes.append(tuple(images.shape))
            return model(images)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    recipe = replace(tiny_recipe, epochs=1, segment_ends=(), compile=True)
    assert len(digits.train) % recipe.batch_size
    run(recipe, digits)
    assert set(shapes) == {(recipe.batch_size, 1, 8, 8)}


def test_without_a_compiler_compiling_is_refused_at_once(tiny_recipe, digits, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match=r"^compile = true needs a C\+\+ compiler, and .* or set compile = false$"):
        initial_state(replace(tiny_recipe, compile=True), digits)


def test_the_margin_is_aimed_at_single_classes_after_the_last_epoch_alone(trained, tiny_recipe, digits):
    recipe = replace(tiny_recipe, evaluation=replace(tiny_recipe.evaluation, targets=3))
    epochs = list(train(recipe, digits, initial_state(recipe, digits)))
    before, after = ([one.validation for one in epochs] for epochs in (trained.epochs, epochs))
    assert after[:-1] == before[:-1]
    assert after[-1].robust_correct < before[-1].robust_correct
    assert after[-1].clean_correct == before[-1].clean_correct
