"""Sources of images: each provides the part for training and validation and, separately, the test part.

Nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hcpr_tune.common.shell import option
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.folders import ImageFolder, check_classes, check_shape, read_folder, read_headers
from hcpr_tune.training.data.parts import Layout, class_folders, dataset_folder, layout
from hcpr_tune.training.recipe import Task


@dataclass(frozen=True)
class Pool:
    """Labelled images before splitting.

    `decode` returns uint8 images (N, C, H, W) by position; `white` is the stored value of 1.0. Images from position
    `own_validation` on are the data's own validation part; None: it is drawn from the training part. `notes`: what was
    skipped, and how unusual images are handled.
    """

    decode: Callable[[Sequence[int] | np.ndarray], np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    white: int
    own_validation: int | None = None
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    """Height and width of the files, for images that come from files."""


def of_array(images: np.ndarray, labels: np.ndarray, names: Sequence[str], white: int = 255) -> Pool:
    """A pool of images in memory, (N, C, H, W) uint8."""
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
    # The file alone: scikit-learn's import takes longer than all else of a short training's start.
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise InputError("the digits are a file of scikit-learn, which is not installed; run: pip install scikit-learn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1]
    return of_array(images, labels, [str(n) for n in range(10)], white=16)


def torchvision_part(task: Task, train: bool) -> Pool:
    """One part of a data set that torchvision reads from files in `task.root`."""
    import torchvision

    reader = {
        "fashion_mnist": torchvision.datasets.FashionMNIST,
        "cifar10": torchvision.datasets.CIFAR10,
        "cifar100": torchvision.datasets.CIFAR100,
        "svhn": torchvision.datasets.SVHN,
    }[task.dataset]
    part: dict[str, Any] = {"split": "train" if train else "test"} if task.dataset == "svhn" else {"train": train}
    not_whole = InputError(
        f"the files of {task.dataset} are not in task.root = {task.root}, or incomplete; "
        f"run: hcpr_tune data {task.dataset} {option('--root', task.root)}"
    )
    try:
        data = reader(task.root, download=False, **part)
    except Exception:  # torchvision raises various errors for truncated files, and has checksums for only some files
        raise not_whole from None
    images = np.asarray(data.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    labels = np.asarray(data.labels if task.dataset == "svhn" else data.targets)
    names = getattr(data, "classes", [str(n) for n in range(10)])
    if not len(labels) == len(images) > 0 or labels.min() < 0 or labels.max() >= len(names):
        raise not_whole
    return of_array(np.ascontiguousarray(images), labels, names)


def folder_layout(task: Task) -> Layout | None:
    """The parts of a folder of images; None for other data."""
    return layout(dataset_folder(task.dataset)) if task.dataset.startswith("folder:") else None


def folder_pool(task: Task, parts: Layout) -> Pool:
    """The images of the training part, followed by those of the validation part if there is one.

    Of the test part, only the names of the class folders are read.
    """
    fence = parts.fence()
    train = read_folder(parts.train, task.image_size, fence)
    if parts.test is not None:
        check_classes(parts.test, train.class_names)
    if parts.validation is None:
        return _pool(train, None, (*parts.skipped, *train.notes))
    check_classes(parts.validation, train.class_names)
    own = read_folder(parts.validation, task.image_size, fence)
    check_shape(parts.validation, _shape(own), _shape(train))
    both = replace(
        train,
        files=train.files + own.files,
        labels=np.concatenate([train.labels, own.labels]),
        sizes=train.sizes + own.sizes,
    )
    return _pool(both, len(train.files), (*parts.skipped, *train.notes, *own.notes))


def folder_test(task: Task, part: Path, fence: frozenset[tuple[int, int]]) -> Pool:
    """The images of the test part."""
    return _pool(read_folder(part, task.image_size, fence), None, ())


def _pool(images: ImageFolder, own_validation: int | None, notes: tuple[str, ...]) -> Pool:
    return Pool(
        images.decode, images.labels, images.class_names, _shape(images), 255, own_validation, notes, images.sizes
    )


def _shape(images: ImageFolder) -> tuple[int, int, int]:
    return (images.channels, *images.size)


def check_test_part(task: Task, class_names: Sequence[str], shape: tuple[int, int, int]) -> None:
    """Raise `InputError` if the test part has other classes, channels or sizes, which would stop the verdict later.

    Only names and headers are read, no pixel of a test image is decoded, and nothing read here enters the search.
    """
    parts = folder_layout(task)
    if parts is not None and parts.test is not None:
        check_classes(parts.test, class_names)
        check_shape(parts.test, read_headers(parts.test, task.image_size, parts.fence())[0], shape)


def check_parts(task: Task) -> tuple[str, ...]:
    """The same check for all parts of a folder, from names and headers alone; returns what was skipped.

    For data that only workers see.
    """
    parts = folder_layout(task)
    if parts is None:
        return ()
    names = [path.name for path in class_folders(parts.train)[0]]
    shape, notes = read_headers(parts.train, task.image_size, parts.fence())
    said = [*parts.skipped, *notes]
    if parts.validation is not None:
        check_classes(parts.validation, names)
        own, notes = read_headers(parts.validation, task.image_size, parts.fence())
        check_shape(parts.validation, own, shape)
        said += notes
    check_test_part(task, names, shape)
    return tuple(said)


def open_pool(task: Task) -> Pool:
    """The images from which training and validation are drawn; also the test split, if the data have no test part."""
    if task.dataset == "digits":
        return digits()
    parts = folder_layout(task)
    return torchvision_part(task, train=True) if parts is None else folder_pool(task, parts)


def has_test_part(task: Task) -> bool:
    """Whether the data come with a test part."""
    parts = folder_layout(task)
    return task.dataset != "digits" if parts is None else parts.test is not None
