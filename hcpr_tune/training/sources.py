"""Where images come from: each source gives the part that is trained and validated on, and, apart, the part that is tested on.

Nothing is ever downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hcpr_tune.errors import InputError
from hcpr_tune.training.folders import has_parts, read_folder
from hcpr_tune.training.recipe import Task
from hcpr_tune.typed import option


@dataclass(frozen=True)
class Pool:
    """Labelled images before they are split. `decode` gives uint8 images (N, C, H, W) by position; `white` is the value of 1.0."""

    decode: Callable[[Sequence[int] | np.ndarray], np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    white: int


def of_array(images: np.ndarray, labels: np.ndarray, names: Sequence[str], white: int = 255) -> Pool:
    """A pool of images that are in memory, (N, C, H, W) uint8."""
    channels, height, width = images.shape[1:]
    return Pool(
        lambda chosen: images[np.asarray(chosen)],
        labels.astype(np.int64),
        tuple(names),
        (channels, height, width),
        white,
    )


def digits() -> Pool:
    """scikit-learn's 1,797 real 8x8 gray images of digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return of_array(bunch.images[:, None].astype(np.uint8), bunch.target, [str(n) for n in range(10)], white=16)


def torchvision_part(task: Task, train: bool) -> Pool:
    """One part of a data set that torchvision reads from files on `task.root`."""
    import torchvision

    reader = {
        "fashion_mnist": torchvision.datasets.FashionMNIST,
        "cifar10": torchvision.datasets.CIFAR10,
        "cifar100": torchvision.datasets.CIFAR100,
        "svhn": torchvision.datasets.SVHN,
    }[task.dataset]
    part: dict[str, Any] = {"split": "train" if train else "test"} if task.dataset == "svhn" else {"train": train}
    try:
        data = reader(task.root, download=False, **part)
    except RuntimeError:
        raise InputError(
            f"the files of {task.dataset} are not in task.root = {task.root}, or not whole; run: hcpr_tune data {task.dataset} {option('--root', task.root)}"
        ) from None
    images = np.asarray(data.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    labels = np.asarray(data.labels if task.dataset == "svhn" else data.targets)
    names = getattr(data, "classes", [str(n) for n in range(10)])
    return of_array(np.ascontiguousarray(images), labels, names)


def folder_part(task: Task, part: str) -> Pool:
    """The folder itself, or its train/ or test/ subfolder where it has both."""
    root = Path(task.dataset.removeprefix("folder:")).expanduser()
    images = read_folder(root / part if has_parts(root) else root, task.image_size)
    return Pool(images.decode, images.labels, images.class_names, (images.channels, *images.size), 255)


def open_pool(task: Task) -> Pool:
    """The images from which training and validation are drawn, and the test too where the data have no test part."""
    if task.dataset == "digits":
        return digits()
    return folder_part(task, "train") if task.dataset.startswith("folder:") else torchvision_part(task, train=True)


def has_test_part(task: Task) -> bool:
    """Whether the data come with a test part of their own."""
    if task.dataset.startswith("folder:"):
        return has_parts(Path(task.dataset.removeprefix("folder:")).expanduser())
    return task.dataset != "digits"
