"""Datasets and their fixed splits. Images stay on the device as uint8; nothing is ever downloaded.

The test images are not here: `heldout` opens them, and a search has no way to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hcpr_tune.errors import InputError
from hcpr_tune.training.recipe import Task


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    images: (N, C, H, W) uint8; `white` is the stored value of 1.0. labels: (N,) int64. indices: (N,) positions in the dataset.
    """

    images: Tensor
    labels: Tensor
    indices: np.ndarray
    white: int

    def __len__(self) -> int:
        return len(self.labels)

    def to_unit(self, images: Tensor) -> Tensor:
        """Stored images as float32 in [0, 1]."""
        return images.to(torch.float32) / self.white

    @property
    def index_hash(self) -> str:
        """A hash of which images of the dataset are in this split."""
        return hashlib.sha256(np.sort(self.indices).astype("<i8").tobytes()).hexdigest()[:16]

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device), self.indices, self.white)


@dataclass(frozen=True)
class Data:
    """What a training may see: the training images and the validation images."""

    train: Split
    validation: Split
    class_names: tuple[str, ...]

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def to(self, device: torch.device) -> Data:
        return Data(self.train.to(device), self.validation.to(device), self.class_names)


def load_digits() -> tuple[np.ndarray, np.ndarray, int, tuple[str, ...]]:
    """scikit-learn's 1,797 real 8x8 gray images of digits: images (N, 1, 8, 8), labels, white, class names."""
    from sklearn.datasets import load_digits as read

    bunch = read()
    return bunch.images[:, None].astype(np.uint8), bunch.target.astype(np.int64), 16, tuple(str(n) for n in range(10))


READERS = {"digits": load_digits}


def split_indices(labels: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """A stratified split that depends on the labels and `task.split_seed` alone: sorted indices by split name.

    Raises `InputError` where a class would be missing from a split.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.PCG64([task.split_seed, int(label)]))
        # Sorting random keys, rather than `permutation`, keeps the split independent of NumPy's shuffling algorithm.
        members = members[np.argsort(generator.random(len(members)), kind="stable")]
        test = round(task.test_fraction * len(members))
        validation = round(task.validation_fraction * len(members))
        if not (test and validation and test + validation < len(members)):
            raise InputError(
                f"task.validation_fraction = {task.validation_fraction:g} and task.test_fraction = {task.test_fraction:g} leave"
                f" class {label} ({len(members)} images) out of a split; choose fractions that give each split at least one image"
            )
        parts["test"].append(members[:test])
        parts["validation"].append(members[test : test + validation])
        parts["train"].append(members[test + validation :])
    return {name: np.sort(np.concatenate(chunks)) for name, chunks in parts.items()}


def take(images: np.ndarray, labels: np.ndarray, indices: np.ndarray, white: int) -> Split:
    """The split that `indices` name."""
    return Split(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]), indices, white)


def load_data(task: Task) -> Data:
    """The training and validation images of a task."""
    images, labels, white, names = READERS[task.dataset]()
    indices = split_indices(labels, task)
    return Data(
        take(images, labels, indices["train"], white), take(images, labels, indices["validation"], white), names
    )


def batches(split: Split, batch_size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """The split once, shuffled by `order` (a generator on the CPU, so that the order is the same on every device).

    Yields images in [0, 1] and labels. A last batch of one image is dropped: batch normalisation cannot train on it.
    """
    shuffled = torch.randperm(len(split), generator=order).to(split.labels.device)
    for chosen in shuffled.split(batch_size):
        if len(chosen) > 1:
            yield split.to_unit(split.images[chosen]), split.labels[chosen]
