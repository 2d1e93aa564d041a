"""Loading a trained model from a results folder, in RobustBench's convention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.common.paths import is_file
from hcpr_tune.common.schema import MODEL_INPUTS, Table, check_model_inputs
from hcpr_tune.errors import InputError
from hcpr_tune.training.models.classifier import build_model, load_weights
from hcpr_tune.training.recipe import load_recipe

FILES = ("recipe.toml", "model.safetensors", "metrics.json")
"""The files of a folder with a model."""


def load_model(folder: str | Path, device: str = "cpu") -> nn.Module:
    """The model in a folder written by a search or a training (recipe.toml, model.safetensors, metrics.json).

    forward(x), x (B, C, H, W) in [0, 1], returns logits (B, K); normalisation is inside, the model is in eval mode, and
    no parameter requires a gradient. `model.classes` are the names of the K classes, in order.
    Raises `InputError` if something is missing or damaged.
    """
    folder = Path(folder)
    check_files(folder)
    recipe = load_recipe(folder / "recipe.toml")
    channels, classes, image_size = model_inputs(folder)
    model = build_model(recipe.network, channels, classes, 0, image_size)
    load_weights(model, folder / "model.safetensors")
    named = with_classes(model, class_names(folder) or tuple(map(str, range(classes))))
    return named.to(torch.device(device)).eval().requires_grad_(False)


class Named(nn.Module):
    """A network that has a `classes` of its own, in a module with the names of the classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def with_classes(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The model with `classes`, the names of its outputs in order."""
    named = Named(model) if hasattr(model, "classes") else model
    # Not an attribute of a type that nn.Module knows; torch's stubs have it as a tensor or a module.
    vars(named)["classes"] = names
    return named


def check_files(folder: Path) -> None:
    """Raise `InputError` if the folder does not hold a model."""
    for name in FILES:
        if not is_file(folder / name, str(folder)):
            raise InputError(f"{folder} holds no {name}; give a folder such as results/NAME/best")


def model_inputs(folder: Path) -> tuple[int, int, tuple[int, int]]:
    """Channels, classes and (height, width) for the model in a folder. Raises `InputError` if they are not given."""
    inputs = _inputs(folder)
    height, width = inputs["image_size"]
    return inputs["channels"], inputs["classes"], (height, width)


def class_names(folder: Path) -> tuple[str, ...]:
    """The class names of the outputs of the model in a folder, in order; empty if not given. Raises `InputError`."""
    return tuple(_inputs(folder).get("class_names", ()))


def scores(folder: Path) -> dict[str, Any]:
    """The accuracies of the model in a folder, as its metrics.json has them: shares with intervals, and the attacks.

    With a note for the best trial of a search. Raises `InputError` as `model_inputs` does.
    """
    metrics, kept = _metrics(folder), ("clean_accuracy_", "robust_accuracy_", "attacks_")
    found = {name: value for name, value in metrics.items() if name.startswith(kept) and value is not None}
    chosen = "on the validation images by which the model was chosen, and so optimistic"
    return found | ({"note": chosen} if metrics.get("chosen_from") else {})


def _inputs(folder: Path) -> dict[str, Any]:
    inputs: dict[str, Any] = _metrics(folder)["model_inputs"]
    return inputs


def _metrics(folder: Path) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8-sig"))
        Table(needed={"model_inputs": MODEL_INPUTS}).check(metrics, "")
        check_model_inputs(metrics["model_inputs"], "model_inputs")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{folder / 'metrics.json'} has no valid model_inputs ({error}); "
            "restore it from a copy, or train the recipe again"
        ) from None
    return metrics
