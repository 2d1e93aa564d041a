"""Sources of images: each provides the part for training and validation and, separately, the test part.

Nothing is downloaded here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hcpr_tune.common.shell import option
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.folders import ImageFolder, check_classes, check_shape, read_folder, read_headers
from hcpr_tune.training.data.parts import Layout, class_folders, dataset_folder, layout, named
from hcpr_tune.training.data.pool import Pool, check_every_class, pool_of
from hcpr_tune.training.data.registry import DATASETS, FOLDER, DatasetSpec, arguments, is_own
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.plugins import call, load
from hcpr_tune.training.recipe import Task

WHAT = "task.dataset"


def dataset_spec(dataset: str) -> DatasetSpec:
    """The data set of that name, or the user's: package.module:name is a reader or a `DatasetSpec`.

    Raises `InputError` if it cannot be imported.
    """
    if dataset in DATASETS:
        return DATASETS[dataset]
    found = load(dataset, WHAT, DatasetSpec)
    return found if isinstance(found, DatasetSpec) else DatasetSpec(found)


def dataset_part(task: Task, train: bool, spec: DatasetSpec | None = None) -> Pool:
    """One part of a data set that is not a folder. Raises `InputError`, for a user's code `PluginError`."""
    spec = spec or dataset_spec(task.dataset)
    # Unlike Path.expanduser, this raises nothing for a user who does not exist.
    given = arguments(spec.read, os.path.expanduser(task.root), train)  # noqa: PTH111
    where = f"{WHAT} {task.dataset}"
    if is_own(task.dataset):
        return pool_of(call(spec.read, task.dataset, WHAT, **given), spec, where)
    try:
        return pool_of(spec.read(**given), spec, where)
    except Exception:  # torchvision raises various errors for truncated files, and has checksums for only some files
        if spec.download is None:
            raise
        raise InputError(
            f"the files of {task.dataset} are not in task.root = {task.root}, or incomplete; "
            f"run: hcpr_tune data {task.dataset} {option('--root', task.root)}"
        ) from None


def dataset_test(task: Task, train: Pool) -> Pool:
    """The test part of a data set that is not a folder, with the classes and the shape of its training part."""
    spec = replace(dataset_spec(task.dataset), shape=train.shape, classes=len(train.class_names))
    test = dataset_part(task, train=False, spec=spec)
    if test.class_names != train.class_names:
        raise InputError(
            f"{WHAT} {task.dataset}: the test part has the classes {named(test.class_names)}, the training part "
            f"{named(train.class_names)}; give both the same class names"
        )
    return test


def folder_layout(task: Task) -> Layout | None:
    """The parts of a folder of images; None for other data."""
    return layout(dataset_folder(task.dataset)) if task.dataset.startswith(FOLDER) else None


def folder_parts(task: Task, parts: Layout) -> tuple[ImageFolder, ImageFolder | None]:
    """The images of the training part, and those of the validation part if there is one, checked against each other.

    Of the test part, only the names of the class folders are read. Raises `InputError`.
    """
    fence = parts.fence()
    train = read_folder(parts.train, task.image_size, fence)
    if parts.test is not None:
        check_classes(parts.test, train.class_names)
    if parts.validation is None:
        return train, None
    check_classes(parts.validation, train.class_names)
    own = read_folder(parts.validation, task.image_size, fence)
    check_shape(parts.validation, _shape(own), _shape(train))
    return train, own


def folder_pool(task: Task, parts: Layout) -> Pool:
    """The images of the training part, followed by those of the validation part if there is one."""
    return pool_of_parts(*folder_parts(task, parts), parts.skipped)


def pool_of_parts(train: ImageFolder, own: ImageFolder | None, skipped: tuple[str, ...]) -> Pool:
    """The pool of what `folder_parts` has read. `skipped`: what belongs to no part."""
    if own is None:
        return _pool(train, None, (*skipped, *train.notes))
    both = replace(
        train,
        files=train.files + own.files,
        labels=np.concatenate([train.labels, own.labels]),
        sizes=train.sizes + own.sizes,
    )
    return _pool(both, len(train.files), (*skipped, *train.notes, *own.notes))


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
    """Check all parts of a folder, as a search and its verdict would, from names and headers alone.

    A user's own data set is read, but for its test images. Returns what was skipped. For data that only workers see.
    """
    if is_own(task.dataset):
        split_pool(open_pool(task), task, has_test_part(task))
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
    parts = folder_layout(task)
    if parts is not None:
        return folder_pool(task, parts)
    pool = dataset_part(task, train=True)
    check_every_class(pool, f"{WHAT} {task.dataset}")
    return pool


def has_test_part(task: Task) -> bool:
    """Whether the data come with a test part."""
    parts = folder_layout(task)
    return "test" in dataset_spec(task.dataset).parts if parts is None else parts.test is not None
