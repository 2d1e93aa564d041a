"""Checkpoint sizes of recipes. Run as a module, it reads recipes as JSON lines and prints the largest, in bytes."""

from __future__ import annotations

import json
import sys
from typing import Any

from hcpr_tune.common.output import kept_for_us, say
from hcpr_tune.training.data.parts import class_folders, dataset_folder, layout
from hcpr_tune.training.data.registry import FOLDER
from hcpr_tune.training.data.sources import dataset_spec, open_pool
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.recipe import Recipe, recipe_from_plain

BYTES_PER_TENSOR = 1024
"""Overhead of a tensor in the file: name, shape and padding."""


def checkpoint_bytes(recipe: Recipe) -> int:
    """Bytes for weights, momentum, averages (if on) and the exported weights, all in float32."""
    model = build_model(recipe.network, *_inputs(recipe))
    weights = sum(tensor.numel() for tensor in model.parameters())
    state = weights + sum(tensor.numel() for tensor in model.buffers())
    copies = state + weights + state + (state if recipe.averaging.half_life else 0)
    return 4 * copies + BYTES_PER_TENSOR * 4 * len(model.state_dict())


def _inputs(recipe: Recipe) -> tuple[int, int, int, tuple[int, int]]:
    """Channels, classes, seed and image size; for a folder of images, from the names of its class folders alone."""
    task = recipe.task
    if task.dataset.startswith(FOLDER):
        folders, _ = class_folders(layout(dataset_folder(task.dataset)).train)
        side = task.image_size or 32
        return 3, len(folders), 0, (side, side)
    spec = dataset_spec(task.dataset)
    shape, classes = spec.shape, spec.classes
    if shape is None or not classes:
        pool = open_pool(task)
        shape, classes = pool.shape, len(pool.class_names)
    return shape[0], classes, 0, shape[1:]


def main() -> None:
    recipes: list[dict[str, Any]] = [json.loads(line) for line in sys.stdin]
    with kept_for_us(to_the_end=True):  # a user's model may print
        say(max(checkpoint_bytes(recipe_from_plain(recipe, "a recipe")) for recipe in recipes))


if __name__ == "__main__":
    main()
