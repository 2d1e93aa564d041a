"""A look at a folder of class folders: what is in it, what becomes of it, and what its numbers of images allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from hcpr_tune.common.settings import in_toml
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.folders import count_images
from hcpr_tune.training.data.parts import Layout, dataset_folder, layout
from hcpr_tune.training.data.pool import Pool
from hcpr_tune.training.data.sources import check_test_part, folder_parts, pool_of_parts
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.recipe import Task

ANY_SIZE = 32
SIZES = (8, 16, 32, 64, 128, 224)


@dataclass(frozen=True)
class ClassCount:
    """A class and its images in each split."""

    name: str
    train: int
    validation: int
    test: int

    @property
    def all(self) -> int:
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Look:
    """What is in a folder, and what a search makes of it.

    images: those of the training part. sizes: how many training and validation images have each height and width.
    gray: how many of these are gray. size: the side of all images in a search; `resized`: files have other sizes.
    own_validation, own_test: the names of these parts, empty where the split is drawn from the training part.
    """

    counts: tuple[ClassCount, ...]
    images: int
    channels: int
    gray: int
    sizes: Counter[tuple[int, int]]
    size: int
    resized: bool
    own_validation: str
    own_test: str
    skipped: tuple[str, ...]
    unusual: tuple[str, ...]
    converted: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.counts)

    @property
    def train(self) -> int:
        return sum(one.train for one in self.counts)

    @property
    def validation(self) -> int:
        return sum(one.validation for one in self.counts)

    @property
    def test(self) -> int:
        return sum(one.test for one in self.counts)


def look(folder: Path, tell: Callable[[str], object] = lambda words: None) -> Look:
    """Look at every image of the training part, and of the validation part if there is one.

    Of a test part only file names and headers are read. `tell` is told at once how much there is to look at. Raises
    `InputError` that names what is wrong, also where a class has too few images to be in each split.
    """
    parts = layout(dataset_folder(f"folder:{folder}"))
    fence = parts.fence()
    count = sum(sum(count_images(part, fence)) for part in (parts.train, parts.validation) if part is not None)
    tell(f"looking at {count:,} images in {folder} ...")
    # Any size will do to read the folder; the actual sizes are found next.
    train, own = folder_parts(task_of(folder, ANY_SIZE), parts)
    pool = pool_of_parts(train, own, parts.skipped)
    size, resized = _size(folder, pool)
    check_test_part(task_of(folder, size), pool.class_names, (pool.shape[0], size, size))
    both = [train] if own is None else [train, own]
    return Look(
        counts=_counts(task_of(folder, size), parts, pool),
        images=len(train.files),
        channels=pool.shape[0],
        gray=sum(one.gray for one in both),
        sizes=Counter(pool.sizes),
        size=size,
        resized=resized,
        own_validation="" if parts.validation is None else parts.validation.name,
        own_test="" if parts.test is None else parts.test.name,
        skipped=(*parts.skipped, *(words for one in both for words in one.skipped)),
        unusual=tuple(words for one in both for words in one.unusual),
        converted=tuple(words for one in both for words in one.converted),
    )


def task_of(folder: Path, image_size: int) -> Task:
    """The task of a search on the folder. Raises `InputError` for a path that a study file cannot hold."""
    text_in_toml(str(folder))
    return Task(dataset=f"folder:{folder}", image_size=image_size)


def text_in_toml(text: str) -> str:
    """A string in TOML. Raises `InputError` for a name that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {text!r} is not UTF-8, as a study file must be; rename the folder") from None
    return in_toml(text)


def _size(folder: Path, pool: Pool) -> tuple[int, bool]:
    """The side of the images in a search, and whether some files have another size."""
    sizes = Counter(pool.sizes)
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) > 1 or height != width:
        middle = median(side for one, count in sizes.items() for side in one for _ in range(count))
        return min(SIZES, key=lambda size: abs(size - middle)), True
    return height, not _test_has_size(folder, pool, height)


def _test_has_size(folder: Path, pool: Pool, size: int) -> bool:
    """Whether the test part's images need no resizing either. Other errors in them are found later."""
    try:
        check_test_part(task_of(folder, 0), pool.class_names, (pool.shape[0], size, size))
    except InputError:
        return False
    return True


def _counts(task: Task, parts: Layout, pool: Pool) -> tuple[ClassCount, ...]:
    """The images of each class in the splits that a search of this task draws."""
    splits = split_pool(pool, task, has_test_part=parts.test is not None)
    per_class: dict[str, Sequence[int]] = {
        name: np.bincount(pool.labels[indices], minlength=len(pool.class_names)).tolist()
        for name, indices in splits.items()
    }
    if parts.test is not None:
        per_class["test"] = count_images(parts.test, parts.fence())
    rows = zip(pool.class_names, *(per_class[name] for name in ("train", "validation", "test")), strict=True)
    return tuple(ClassCount(*row) for row in rows)
