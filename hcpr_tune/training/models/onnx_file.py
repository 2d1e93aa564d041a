"""Export of a trained model to an ONNX file, checked against the model before it is written."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.text import encodable, first_line
from hcpr_tune.errors import InputError
from hcpr_tune.training.models.export import class_names, load_model, model_inputs, scores
from hcpr_tune.training.recipe import load_recipe

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST_DIFFERENCE = 1e-4
"""Between logits of the file and of the model: rounding from another order of float32 operations stays far below."""
BATCHES = (1, 2, 7)
"""Batch sizes of the random images in the comparison."""


@dataclass(frozen=True)
class Written:
    """The file's input and output sizes, and its difference from the model."""

    image: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    size: int
    """Bytes."""
    difference: float
    """The largest of all logits."""


def check_installed() -> None:
    """Raise `InputError` if a package of the `onnx` extra is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"ONNX files need {name} ({error}); pip install 'hcpr_tune[onnx]'") from None


def write_onnx(folder: Path, target: Path) -> Written:
    """Write the model in `folder` to `target`: "images" (B, C, H, W), float32 in [0, 1], B free, to "logits" (B, K).

    The file includes the weights, and as metadata what `described` says. Raises `InputError`, without writing, if the
    folder has no valid model, the network cannot be exported, or the file would give other logits.
    """
    check_installed()
    model = load_model(folder)
    channels, classes, (height, width) = model_inputs(folder)
    image = (channels, height, width)
    data = exported(model, image, f"the model in {folder}", described(folder))
    difference = largest_difference(model, data, image)
    # Negated, so that NaN fails too.
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(
            f"the ONNX file of the model in {folder} would give other logits than the model, "
            f"by up to {difference:.3g} (at most {LARGEST_DIFFERENCE:g}); nothing was written: "
            "a network that draws random numbers or changes between calls cannot be exported"
        )
    try:
        write_bytes_whole(target, data)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}; choose another file") from None
    return Written(image, classes, len(data), difference)


def described(folder: Path) -> dict[str, Any]:
    """What a file says of the model in a folder, so that it can be used without this program: `metadata` in the file.

    class_names: of the logits, in order. image_shape: channels, height, width. image_range, channel_order: of the
    images. threat_model: norm and radius that it was evaluated with. scores: accuracies with 95 % intervals.
    """
    recipe = load_recipe(folder / "recipe.toml")
    found, task = scores(folder), recipe.task
    if "attacks_validation" not in found:
        found["attacks_validation"] = f"margin attack, {recipe.evaluation.steps} steps"
    channels, classes, (height, width) = model_inputs(folder)
    return {
        "class_names": list(class_names(folder) or map(str, range(classes))),
        "image_shape": [channels, height, width],
        "image_range": [0, 1],
        "channel_order": {1: "gray", 3: "RGB"}.get(channels, ""),
        "threat_model": {"norm": task.norm, "epsilon": task.epsilon},
        "scores": found,
    }


def exported(
    model: nn.Module, image: tuple[int, int, int], what: str, metadata: Mapping[str, Any] | None = None
) -> bytes:
    """The file's bytes, with `metadata` as JSON by name. Raises `InputError` naming `what` if it cannot be exported."""
    try:
        # Two images: the exporter would treat a batch of one as a constant.
        program = torch.onnx.export(
            model,
            (torch.zeros(2, *image),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
        # The exporter records source lines and folders of the code that ran it.
        for part in (
            proto,
            proto.graph,
            *proto.graph.node,
            *proto.graph.value_info,
            *proto.graph.input,
            *proto.graph.output,
        ):
            part.ClearField("metadata_props")
        for name, value in (metadata or {}).items():
            proto.metadata_props.add(key=name, value=json.dumps(encodable(value), ensure_ascii=False))
        data: bytes = proto.SerializeToString(deterministic=True)
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"{what} cannot be exported to ONNX: {reason}; load it from Python with hcpr_tune.load_model"
        ) from error
    return data


@torch.no_grad()
def largest_difference(
    model: nn.Module, data: bytes, image: tuple[int, int, int], batches: Sequence[int] = BATCHES
) -> float:
    """The largest difference between logits of the model and of the file (ONNX Runtime), on random images in [0, 1]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about skipped optimisations
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = torch.tensor(0.0)
    for batch in batches:
        images = torch.rand(batch, *image, generator=generator)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        worst = torch.maximum(worst, (torch.from_numpy(logits) - model(images)).abs().max())
    return float(worst)
