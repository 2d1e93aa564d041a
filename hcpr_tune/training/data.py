"""The splits that a training sees: fixed, stratified, on the device as uint8 where they are small, decoded as it goes where not.

The test images are not here: `heldout` opens them, and a search has no way to it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hcpr_tune.errors import InputError
from hcpr_tune.training.augmentation import augment, draw
from hcpr_tune.training.recipe import Augmentation, Task
from hcpr_tune.training.sources import Pool, has_test_part, open_pool

RESIDENT_SHARE = 0.25
"""A split stays in memory if its images take at most this share of what is free."""


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    labels: (N,) int64 on the device. indices: (N,) positions in the data set. shape: (C, H, W). images: (N, C, H, W) uint8 on the
    device, or None where they are decoded from `pool` each time. `white` is the stored value of 1.0.
    """

    pool: Pool
    indices: np.ndarray
    labels: Tensor
    images: Tensor | None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pool.shape

    @property
    def index_hash(self) -> str:
        """A hash of which images of the data set are in this split."""
        return hashlib.sha256(np.sort(self.indices).astype("<i8").tobytes()).hexdigest()[:16]

    def stored(self, positions: Tensor) -> Tensor:
        """The images at `positions` (B,) as uint8, where they lie: on the device, or, just decoded, on the CPU."""
        if self.images is not None:
            return self.images[positions.to(self.images.device)]
        return torch.from_numpy(self.pool.decode(self.indices[positions.cpu().numpy()]))

    def to_unit(self, images: Tensor) -> Tensor:
        """Stored images as float32 in [0, 1] on the device."""
        return images.to(self.labels.device, non_blocking=True).to(torch.float32) / self.pool.white

    def fetch(self, positions: Tensor) -> Tensor:
        """The images at `positions` (B,) as float32 in [0, 1] on the device, (B, C, H, W)."""
        return self.to_unit(self.stored(positions))

    def to(self, device: torch.device) -> Split:
        return replace(
            self, labels=self.labels.to(device), images=None if self.images is None else self.images.to(device)
        )


@dataclass(frozen=True)
class Data:
    """What a training may see: the training images and the validation images."""

    train: Split
    validation: Split
    class_names: tuple[str, ...]

    @property
    def channels(self) -> int:
        return self.train.shape[0]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.train.shape[1:]

    def to(self, device: torch.device) -> Data:
        return Data(self.train.to(device), self.validation.to(device), self.class_names)


def split_indices(labels: np.ndarray, task: Task, has_test_part: bool) -> dict[str, np.ndarray]:
    """A stratified split that depends on the labels and the task alone: sorted indices by split name.

    With a test part of their own the data give nothing to "test". Raises `InputError` where a class would be missing from a split.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    classes = np.unique(labels)
    for label in classes:
        members = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.PCG64([task.split_seed, int(label)]))
        # Sorting random keys, rather than `permutation`, keeps the split independent of NumPy's shuffling algorithm.
        members = members[np.argsort(generator.random(len(members)), kind="stable")]
        test = 0 if has_test_part else round(task.test_fraction * len(members))
        rest = members[test:]
        if task.images:
            rest = rest[: task.images // len(classes) + (int(label) < task.images % len(classes))]
        validation = round(
            task.validation_fraction * (len(members) if not task.images and not has_test_part else len(rest))
        )
        if not validation or validation >= len(rest) or not (test or has_test_part):
            raise InputError(
                f"task.validation_fraction = {task.validation_fraction:g} and task.test_fraction = {task.test_fraction:g} leave"
                f" class {label} ({len(members)} images) out of a split; choose fractions that give each split at least one image"
            )
        parts["test"].append(members[:test])
        parts["validation"].append(rest[:validation])
        parts["train"].append(rest[validation:])
    return {name: np.sort(np.concatenate(chunks)) for name, chunks in parts.items()}


def take(pool: Pool, indices: np.ndarray) -> Split:
    """The split that `indices` name, in memory where it is small enough."""
    labels = torch.from_numpy(pool.labels[indices])
    size = len(indices) * int(np.prod(pool.shape))
    images = torch.from_numpy(pool.decode(indices)) if size <= RESIDENT_SHARE * free_memory() else None
    return Split(pool, indices, labels, images)


def free_memory() -> int:
    """Bytes that the machine can still give, the GPU's where there is one."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_data(task: Task) -> Data:
    """The training and validation images of a task. Files of a test part are not opened."""
    pool = open_pool(task)
    indices = split_indices(pool.labels, task, has_test_part(task))
    return Data(take(pool, indices["train"]), take(pool, indices["validation"]), pool.class_names)


def fixed_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted positions of a fixed subset of `count` images, in shares per class that differ by one at most while images last."""
    keys = np.random.Generator(np.random.PCG64(seed)).random(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members[np.argsort(keys[members], kind="stable")]] = np.arange(len(members))
    return np.sort(np.lexsort((keys, rank))[:count])


def batches(
    split: Split,
    batch_size: int,
    order: torch.Generator,
    augmentation: Augmentation | None = None,
    drawn: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The split once, shuffled by `order` and augmented by `drawn`, both on the CPU, so that they are the same on every device.

    Yields images in [0, 1] and labels, on the device. A last batch of one image is dropped: batch normalisation cannot train on it. Images
    that are not in memory are decoded one batch ahead.
    """
    shuffled = torch.randperm(len(split), generator=order)
    draws = draw(augmentation, len(split), drawn) if augmentation is not None and drawn is not None else None
    chunks = [chosen for chosen in shuffled.split(batch_size) if len(chosen) > 1]
    for chosen, stored in zip(chunks, _stored_ahead(split, chunks), strict=True):
        images = augment(split.to_unit(stored), draws, chosen)
        yield images, split.labels[chosen.to(split.labels.device)]


def _stored_ahead(split: Split, chunks: list[Tensor]) -> Iterator[Tensor]:
    if split.images is not None:
        yield from map(split.stored, chunks)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(split.stored, chunks[0])
        for following in chunks[1:]:
            ready, ahead = ahead, pool.submit(split.stored, following)
            yield ready.result()
        yield ahead.result()
