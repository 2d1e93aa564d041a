"""Fixed, stratified splits: which images of a pool are trained on, validated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcpr_tune.errors import InputError
from hcpr_tune.training.data.pool import Pool
from hcpr_tune.training.recipe import Task


def split_pool(pool: Pool, task: Task, has_test_part: bool) -> dict[str, np.ndarray]:
    """The splits of a pool: sorted positions by split name. A validation part of the data is used as a whole."""
    if pool.own_validation is None:
        return split_indices(pool.labels, task, has_test_part, pool.class_names)
    drawn = split_indices(
        pool.labels[: pool.own_validation], task, has_test_part, pool.class_names, draw_validation=False
    )
    return drawn | {"validation": np.arange(pool.own_validation, len(pool.labels))}


def split_indices(
    labels: np.ndarray,
    task: Task,
    has_test_part: bool,
    class_names: Sequence[str] = (),
    draw_validation: bool = True,
) -> dict[str, np.ndarray]:
    """A stratified split that depends only on the labels and the task: sorted indices by split name.

    "test" is empty if the data have a test part, "validation" without `draw_validation`. Raises `InputError` if a class
    would be missing from a split.
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
        validation = validation if draw_validation else 0
        if (draw_validation and not validation) or validation >= len(rest) or not (test or has_test_part):
            name = str(int(label))
            if len(class_names) and class_names[int(label)] != name:
                name += f" ({class_names[int(label)]})"
            raise _left_out(task, name, len(members), len(rest), draw_validation, not has_test_part)
        parts["test"].append(members[:test])
        parts["validation"].append(rest[:validation])
        parts["train"].append(rest[validation:])
    return {name: np.sort(np.concatenate(chunks)) for name, chunks in parts.items()}


def _left_out(task: Task, name: str, images: int, usable: int, draws_validation: bool, draws_test: bool) -> InputError:
    """Why a class is missing from a split, with a hint: with fewer images than splits, other fractions do not help."""
    splits = ["training", *(["validation"] if draws_validation else []), *(["test"] if draws_test else [])]
    fractions = [f"task.{split}_fraction = {getattr(task, f'{split}_fraction'):g}" for split in splits[1:]]
    if images < len(splits):
        return InputError(
            f"task.dataset: class {name} has {images} images, and {', '.join(splits)} need one each; "
            "add images to the class, or remove it"
        )
    if task.images and usable < 1 + draws_validation:
        return InputError(
            f"task.images = {task.images} leaves class {name} {usable} images for training"
            f"{' and validation' if draws_validation else ''}; raise it, or set it to 0: all"
        )
    limit = [f"task.images = {task.images}"] if task.images else []
    return InputError(
        f"{' and '.join([*limit, *fractions])} leave class {name} ({images} images) out of a split; "
        "choose fractions that give each split at least one image"
        f"{', or raise task.images' if limit else ''}"
    )
