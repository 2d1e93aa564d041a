"""Checkpoint sizes of recipes. Run as a module, it reads recipes as JSON lines and prints the largest, in bytes."""

from __future__ import annotations

import json
import sys
from typing import Any

from hcpr_tune.common.output import kept_for_us, say
from hcpr_tune.training.data.parts import class_folders, dataset_folder, layout
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.recipe import Recipe, recipe_from_plain

KNOWN = {
    "digits": (1, 10, (8, 8)),
    "fashion_mnist": (1, 10, (28, 28)),
    "cifar10": (3, 10, (32, 32)),
    "cifar100": (3, 100, (32, 32)),
    "svhn": (3, 10, (32, 32)),
}
"""Channels, classes and image size."""
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
    dataset = recipe.task.dataset
    if dataset in KNOWN:
        channels, classes, size = KNOWN[dataset]
        return channels, classes, 0, size
    folders, _ = class_folders(layout(dataset_folder(dataset)).train)
    side = recipe.task.image_size or 32
    return 3, len(folders), 0, (side, side)


def main() -> None:
    recipes: list[dict[str, Any]] = [json.loads(line) for line in sys.stdin]
    with kept_for_us(to_the_end=True):  # a user's model may print
        say(max(checkpoint_bytes(recipe_from_plain(recipe, "a recipe")) for recipe in recipes))


if __name__ == "__main__":
    main()
