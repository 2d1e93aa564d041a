"""Stretches with checkpoints: what is kept, what is dropped, and damaged files named with the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training import checkpoints
from hcpr_tune.training.recipe import Model
from hcpr_tune.training.session import DataShelf, train_stretch


def stretch(recipe, folder, start, end):
    return list(train_stretch(recipe, DataShelf(), folder, start, end))


@pytest.fixture
def recipe(tiny_recipe):
    return replace(tiny_recipe, epochs=4, stretch_ends=(1,))


def test_rungs_keep_their_checkpoints_and_the_others_go(recipe, tmp_path):
    stretch(recipe, tmp_path, 0, 4)
    assert checkpoints.saved_epochs(tmp_path) == [1, 4]
    assert all((checkpoints.folder_of(tmp_path, epoch) / "model.safetensors").is_file() for epoch in (1, 4))
    assert not list(tmp_path.glob(".epoch*"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "another model"])
def test_a_checkpoint_that_cannot_be_continued_is_named(recipe, tmp_path, damage):
    stretch(recipe, tmp_path, 0, 1)
    path = checkpoints.folder_of(tmp_path, 1) / "state.pt"
    if damage == "another model":
        recipe = replace(recipe, model=Model(width=recipe.model.width + 1))
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "truncated" else 0])
    with pytest.raises(InputError, match=r"cannot be continued from: .* delete its folder") as caught:
        stretch(recipe, tmp_path, 1, 4)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_values(recipe, tmp_path):
    stretch(recipe, tmp_path, 0, 1)
    state = torch.load(checkpoints.folder_of(tmp_path, 1) / "state.pt", weights_only=True)
    assert set(state) == {"epoch", "model", "optimiser"}


def test_the_stop_epoch_ends_a_training_with_the_schedules_of_the_whole(recipe, tmp_path):
    whole = stretch(recipe, tmp_path / "whole", 0, 4)
    stopped = replace(recipe, stop_epoch=1)
    assert stopped.last_epoch == 1
    (only,) = stretch(stopped, tmp_path / "stopped", 0, stopped.last_epoch)
    assert only["loss"] == whole[0]["loss"]
    assert only["lr"] == whole[0]["lr"]
    with pytest.raises(InputError, match=r"stop_epoch must be 0 or a rung, one of \[1, 4\], got 3"):
        replace(recipe, stop_epoch=3)
