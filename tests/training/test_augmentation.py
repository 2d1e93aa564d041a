"""Batched crop and flip against a loop over images; draws belong to images, not to batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hcpr_tune.training.data.augmentation import augment, draw
from hcpr_tune.training.data.dataset import batches
from hcpr_tune.training.recipe import Augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [Augmentation(2, flip=True), Augmentation(3), Augmentation(0, flip=True)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)])
def test_it_is_pad_crop_flip_per_image(settings, shape):
    images = torch.rand(10, *shape, generator=generator())
    draws = draw(settings, 30, generator(1))
    positions = torch.tensor([3, 29, 0, 7, 7, 12, 25, 1, 2, 28])
    found = augment(images, draws, positions)
    for image, position, result in zip(images, positions.tolist(), found, strict=True):
        padded = F.pad(image, [settings.crop_padding] * 4)
        row, column = int(draws.rows[position]), int(draws.columns[position])
        cropped = padded[:, row : row + shape[1], column : column + shape[2]]
        assert torch.equal(result, cropped.flip(2) if draws.flipped[position] else cropped)


def test_all_offsets_and_both_directions_occur_and_only_if_asked():
    draws = draw(Augmentation(2, flip=True), 2000, generator())
    assert set(draws.rows.tolist()) == set(draws.columns.tolist()) == set(range(5))
    assert 0.45 < draws.flipped.float().mean() < 0.55
    assert not draw(Augmentation(2), 2000, generator()).flipped.any()
    assert draw(Augmentation(), 2000, generator()) is None


def test_the_size_of_the_batches_changes_nothing(digits):
    def images(size):
        drawn = batches(digits.train, size, generator(3), Augmentation(1, flip=True), generator(4))
        return torch.cat([batch for batch, _ in drawn])

    assert torch.equal(images(64), images(100))
    plain = torch.cat([batch for batch, _ in batches(digits.train, 64, generator(3))])
    assert not torch.equal(images(64), plain)
