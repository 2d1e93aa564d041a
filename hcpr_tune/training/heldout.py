"""The test images. Nothing that a search runs imports this module; an import contract and a test keep it so."""

from __future__ import annotations

import numpy as np

from hcpr_tune.errors import InputError
from hcpr_tune.training.data import Split, split_indices, take
from hcpr_tune.training.recipe import Task
from hcpr_tune.training.sources import folder_part, has_test_part, open_pool, torchvision_part


def open_test(task: Task) -> Split:
    """The test images of a task, never seen by training or by the choice of a recipe."""
    pool = open_pool(task)
    if not has_test_part(task):
        return take(pool, split_indices(pool.labels, task, has_test_part=False)["test"])
    test = folder_part(task, "test") if task.dataset.startswith("folder:") else torchvision_part(task, train=False)
    if test.class_names != pool.class_names or test.shape[0] != pool.shape[0] or test.shape[1:] != pool.shape[1:]:
        raise InputError(
            f"task.dataset: the test part of {task.dataset} has {len(test.class_names)} classes of images {test.shape}, the training part"
            f" {len(pool.class_names)} of {pool.shape}; both must have the same class folders and sizes"
        )
    return take(test, np.arange(len(test.labels)))
