"""A trained model to take away, in RobustBench's convention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcpr_tune.common.paths import is_file
from hcpr_tune.common.schema import MODEL_INPUTS, Table
from hcpr_tune.errors import InputError
from hcpr_tune.training.models.classifier import build_model, load_weights
from hcpr_tune.training.recipe import load_recipe

FILES = ("recipe.toml", "model.safetensors", "metrics.json")
"""What a folder with a model holds."""


def load_model(folder: str | Path, device: str = "cpu") -> nn.Module:
    """The model in a folder that a search or a training left (recipe.toml, model.safetensors, metrics.json).

    forward(x), x (B, C, H, W) in [0, 1], gives logits (B, K); normalisation is inside, the mode is eval, and no parameter wants a
    gradient. Raises `InputError` where something is missing or damaged.
    """
    folder = Path(folder)
    check_files(folder)
    recipe = load_recipe(folder / "recipe.toml")
    channels, classes, image_size = model_inputs(folder)
    model = build_model(recipe.network, channels, classes, 0, image_size)
    load_weights(model, folder / "model.safetensors")
    return model.to(torch.device(device)).eval().requires_grad_(False)


def check_files(folder: Path) -> None:
    """Raises `InputError` where the folder holds no model."""
    for name in FILES:
        if not is_file(folder / name, str(folder)):
            raise InputError(f"{folder} holds no {name}; give a folder such as results/NAME/best")


def model_inputs(folder: Path) -> tuple[int, int, tuple[int, int]]:
    """Channels, classes and (height, width) of the images that the model in a folder takes. Raises `InputError` where they are not said."""
    inputs = _inputs(folder)
    height, width = inputs["image_size"]
    return inputs["channels"], inputs["classes"], (height, width)


def class_names(folder: Path) -> tuple[str, ...]:
    """What the outputs of the model in a folder stand for, in their order; empty where it is not said. Raises `InputError`."""
    return tuple(_inputs(folder).get("class_names", ()))


def _inputs(folder: Path) -> dict[str, Any]:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8-sig"))
        Table(needed={"model_inputs": MODEL_INPUTS}).check(metrics, "")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{folder / 'metrics.json'} does not say model_inputs as it must ({error}); restore it from a copy, or train the recipe again"
        ) from None
    inputs: dict[str, Any] = metrics["model_inputs"]
    return inputs
