"""The test images. Nothing that a search runs imports this module; an import contract and a test enforce it."""

from __future__ import annotations

import numpy as np
import torch

from hcpr_tune.training.data.dataset import CPU, Split, take
from hcpr_tune.training.data.folders import check_shape
from hcpr_tune.training.data.sources import dataset_test, folder_layout, folder_test, has_test_part, open_pool
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.recipe import Task


def open_test(task: Task, device: torch.device = CPU) -> Split:
    """The test images of a task, on `device`; never used in training or in choosing a recipe."""
    pool = open_pool(task)
    if not has_test_part(task):
        return take(pool, split_pool(pool, task, has_test_part=False)["test"], device=device)
    parts = folder_layout(task)
    if parts is None or parts.test is None:
        test = dataset_test(task, pool)
    else:
        # Opening the training part has already checked that the class folders match.
        test = folder_test(task, parts.test, parts.fence())
        check_shape(parts.test, test.shape, pool.shape)
    return take(test, np.arange(len(test.labels)), device=device)
