"""Fixed splits of real digits, batches that leave nothing out, and test images that only `heldout` opens."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from hcpr_tune.errors import InputError
from hcpr_tune.training.data.dataset import Data, Split, batches, load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.data.sources import open_pool
from hcpr_tune.training.data.splits import split_indices
from hcpr_tune.training.loop import initial_state, train
from hcpr_tune.training.recipe import Task

# A change of these hashes makes every recorded figure incomparable with new ones.
HASHES = {
    0: {"train": "7be36dfa928fd6a0", "validation": "3299d868ef670f38", "test": "2f597062c63468e2"},
    1: {"train": "9c5cf502471178b4", "validation": "ae9af6d9ff239b14", "test": "ef32349bb76be8e0"},
}


def splits(task: Task) -> dict[str, Split]:
    data = load_data(task)
    return {"train": data.train, "validation": data.validation, "test": open_test(task)}


def drawn(split: Split, batch_size: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(batches(split, batch_size, torch.Generator().manual_seed(seed)))


def test_the_digits_are_scikit_learns_without_its_import():
    code = (
        "import sys; from hcpr_tune.training.data.registry import DATASETS\n"
        "DATASETS['digits'].read(); print('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    bunch, pool = load_digits(), open_pool(Task())
    assert (pool.decode(range(1797))[:, 0] == bunch.images).all()
    assert (pool.labels == bunch.target).all()


def test_digits_have_their_known_sizes(digits):
    pool = open_pool(Task())
    images = pool.decode(range(1797))
    assert images.shape == (1797, *pool.shape) == (1797, 1, 8, 8)
    assert images.dtype == np.uint8
    assert (int(images.max()), pool.white, len(pool.labels)) == (16, 16, 1797)
    assert pool.class_names == tuple("0123456789")
    assert {name: len(split) for name, split in splits(Task()).items()} == {
        "train": 1079,
        "validation": 359,
        "test": 359,
    }
    assert (digits.channels, digits.classes) == (1, 10)


@pytest.mark.parametrize("split_seed", [0, 1])
def test_splits_are_pinned(split_seed):
    found = {name: split.index_hash for name, split in splits(Task(split_seed=split_seed)).items()}
    assert found == HASHES[split_seed]


@pytest.mark.parametrize("task", [Task(), Task(split_seed=5, validation_fraction=0.1, test_fraction=0.33)])
def test_splits_are_disjoint_and_cover_all_images(task):
    indices = np.concatenate([split.indices for split in splits(task).values()])
    assert sorted(indices) == list(range(1797))


def test_splits_hold_the_images_and_labels_of_their_indices():
    pool = open_pool(Task())
    images, labels = pool.decode(range(1797)), pool.labels
    for split in splits(Task()).values():
        np.testing.assert_array_equal(split.images.numpy(), images[split.indices])
        np.testing.assert_array_equal(split.labels.numpy(), labels[split.indices])


def test_splits_are_stratified():
    labels = open_pool(Task()).labels
    counts = np.bincount(labels)
    for name, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        found = np.bincount(splits(Task())[name].labels.numpy(), minlength=10)
        assert np.abs(found - share * counts).max() <= 1


def test_the_split_depends_on_nothing_but_labels_and_task():
    labels = open_pool(Task()).labels
    first = split_indices(labels, Task(), has_test_part=False)
    torch.manual_seed(7)
    np.random.default_rng(7).random(3)
    second = split_indices(labels, Task(epsilon=0.5), has_test_part=False)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_training_seed_does_not_change_what_is_validated_on(tiny_recipe):
    for seed in (0, 99):
        recipe = dataclasses.replace(tiny_recipe, seed=seed)
        assert load_data(recipe.task).validation.index_hash == HASHES[0]["validation"]
    assert "seed" not in {item.name for item in dataclasses.fields(Task)}


def test_the_split_seed_changes_every_split():
    first, second = splits(Task(split_seed=0)), splits(Task(split_seed=1))
    assert all(first[name].index_hash != second[name].index_hash for name in first)


def test_the_index_hash_does_not_depend_on_the_order(digits):
    split = digits.validation
    turned = dataclasses.replace(split, indices=split.indices[::-1].copy())
    assert turned.index_hash == split.index_hash


def test_stored_images_become_numbers_from_zero_to_one(digits):
    for split in (digits.train, digits.validation):
        unit = split.to_unit(split.images)
        assert unit.dtype == torch.float32
        assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)
        assert torch.equal((unit * 16).to(torch.uint8), split.images)


@pytest.mark.parametrize("batch_size", [2000, 128, 100, 8])
def test_batches_bring_every_image_once(digits, batch_size):
    split = digits.train
    found = drawn(split, batch_size, seed=3)
    assert [len(labels) for _, labels in found[:-1]] == [batch_size] * (len(found) - 1)
    images, labels = torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])
    expected = sorted(zip(split.labels.tolist(), split.to_unit(split.images).flatten(1).tolist(), strict=True))
    assert sorted(zip(labels.tolist(), images.flatten(1).tolist(), strict=True)) == expected


def test_a_last_batch_of_one_image_is_dropped(digits):
    # Batch normalisation cannot train on one image; 1079 = 77 * 14 + 1.
    assert [len(labels) for _, labels in drawn(digits.train, 14, seed=0)] == [14] * 77


def test_the_same_generator_seed_gives_the_same_order(digits):
    first, again, other = (torch.cat([y for _, y in drawn(digits.train, 128, seed)]) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_loaded_data_hold_no_test_images(digits):
    assert {item.name for item in dataclasses.fields(Data)} == {"train", "validation", "class_names", "notes"}
    test = set(open_test(Task()).indices.tolist())
    assert not test & set(digits.train.indices.tolist())
    assert not test & set(digits.validation.indices.tolist())


def test_training_sees_its_training_images_and_no_others(tiny_recipe, digits):
    # With the validation labels turned round the weights stay the same: validation measures and nothing else.
    recipe = dataclasses.replace(tiny_recipe, epochs=1, segment_ends=())
    turned = dataclasses.replace(digits.validation, labels=digits.validation.labels.flip(0))
    weights = []
    for data in (digits, dataclasses.replace(digits, validation=turned)):
        state = initial_state(recipe, data)
        list(train(recipe, data, state))
        weights.append(state.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("validation", "test"), [(0.001, 0.2), (0.2, 0.001), (0.4999, 0.5)], ids=["validation", "test", "train"]
)
def test_fractions_that_leave_a_split_without_a_class_are_refused(validation, test):
    task = Task(validation_fraction=validation, test_fraction=test)
    for load in (load_data, open_test):
        with pytest.raises(InputError, match=r"task\.validation_fraction = .* task\.test_fraction = .* class 0 \(178 "):
            load(task)
