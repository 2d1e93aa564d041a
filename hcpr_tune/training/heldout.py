"""The test images. Nothing that a search runs imports this module; an import contract and a test keep it so."""

from __future__ import annotations

from hcpr_tune.training.data import READERS, Split, split_indices, take
from hcpr_tune.training.recipe import Task


def open_test(task: Task) -> Split:
    """The test images of a task, never seen by training or by the choice of a recipe."""
    images, labels, white, _ = READERS[task.dataset]()
    return take(images, labels, split_indices(labels, task)["test"], white)
