"""Building, checking, saving and loading a recipe's model.

A model takes images in [0, 1] and returns logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hcpr_tune.common.nearest import nearest
from hcpr_tune.common.text import first_line, one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training import plugins
from hcpr_tune.training.models.architectures import (
    CosineHead,
    HeadFactory,
    LinearHead,
)
from hcpr_tune.training.models.registry import ARCHITECTURES, ArchitectureSpec, NetworkInputs
from hcpr_tune.training.recipe import Model


@torch.no_grad()
def normalise_head(model: nn.Module) -> None:
    """Normalise the rows of every cosine head in `model`, in place."""
    for module in model.modules():
        if isinstance(module, CosineHead):
            module.weight.copy_(F.normalize(module.weight, dim=1))


def head_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the last cosine or linear layer."""
    heads = [module for module in model.modules() if isinstance(module, CosineHead | nn.Linear)]
    if heads:
        yield from heads[-1].parameters()


def cosine_head_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of all cosine layers, whose rows `normalise_head` keeps on the unit sphere."""
    for module in model.modules():
        if isinstance(module, CosineHead):
            yield from module.parameters()


class Normalised(nn.Module):
    """(x - mean) / std per channel before the network, so that the whole model takes images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class GrayToColour(nn.Module):
    """A network for colour images, applied to gray ones by repeating the channel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def build_model(
    settings: Model, channels: int, classes: int, seed: int, image_size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """A new model with weights drawn from `seed`; the state of the global generator is preserved.

    Raises `InputError` if the settings do not fit the data, or if a user's factory does not return a classifier for
    them.
    """
    if settings.mean and len(settings.mean) != channels:
        raise InputError(
            f"model.mean must have one value per channel, {channels}, got {len(settings.mean)}; fix it and model.std"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _network(settings, channels, classes, image_size)
        model: nn.Module = Normalised(network, settings.mean, settings.std) if settings.mean else network
        normalise_head(model)
        # Inside the fork, because the forward pass of a user's network may draw random numbers.
        _check_logits(settings.name, model, channels, classes, image_size)
        # Convolutions are faster in channels-last format, on CPUs and on GPUs. A user's network may take views that
        # only row-major tensors allow.
        model = model.to(memory_format=torch.channels_last)
        if ":" in settings.name:
            try:
                _check_logits(settings.name, model, channels, classes, image_size)
            except InputError:
                model = model.to(memory_format=torch.contiguous_format)
    return model


def architecture_of(settings: Model) -> ArchitectureSpec:
    """The built-in network of that name, torchvision's, or the user's: package.module:name is an `ArchitectureSpec`, or
    a factory that is called with `classes` and `channels`.

    Raises `InputError` if it was not vouched for, cannot be imported or is something else.
    """
    name = settings.name
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith("torchvision:"):
        return ArchitectureSpec(partial(_from_torchvision, settings))
    own = plugins.load(name, "model.name", ArchitectureSpec)

    def build(inputs: NetworkInputs) -> nn.Module:
        spec = isinstance(own, ArchitectureSpec)
        given = {"inputs": inputs} if spec else {"classes": inputs.classes, "channels": inputs.channels}
        network = plugins.call(own.build if spec else own, name, "model.name", **given)
        if not isinstance(network, nn.Module):
            raise InputError(
                f"model.name {name} must return a torch.nn.Module, got {one_line(type(network).__name__)}; "
                "fix the factory"
            )
        return network

    return ArchitectureSpec(build)


def _network(settings: Model, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    def head(features: int) -> nn.Module:
        kind = CosineHead if settings.head == "cosine" else LinearHead
        return kind(features, classes, settings.head_bias)

    return architecture_of(settings).build(NetworkInputs(channels, classes, image_size, settings.width, head))


def _from_torchvision(settings: Model, inputs: NetworkInputs) -> nn.Module:
    """A torchvision classifier with new weights; for a cosine head, its last linear layer is replaced."""
    import torchvision

    name = settings.name.removeprefix("torchvision:")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = nearest(name, known, 3) or ["resnet18", "mobilenet_v3_small"]
        raise InputError(
            f"model.name {settings.name}: torchvision has no such classifier; "
            f"for instance {', '.join('torchvision:' + one for one in near)}"
        )
    if inputs.channels not in (1, 3):
        raise InputError(
            f"model.name {settings.name} takes gray or colour images, but these have {inputs.channels} channels; "
            "choose another model"
        )
    height, width = inputs.image_size
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": height}
    try:
        network = torchvision.models.get_model(name, weights=None, num_classes=inputs.classes, **options)
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"model.name {settings.name} cannot be built for images of {height}x{width}: {error}; "
            "choose another model or size"
        ) from None
    if settings.head == "cosine":
        _replace_head(network, settings.name, inputs.head)
    return network if inputs.channels == 3 else GrayToColour(network)


def _replace_head(network: nn.Module, name: str, head: HeadFactory) -> None:
    """Replace the network's last linear layer, which computes the logits, with the head."""
    last = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    if not isinstance(last[1], nn.Linear):
        raise InputError(
            f"model.name {name} ends in a convolution and cannot have a cosine head; "
            'set model.head = "linear" or choose another model'
        )
    parent, _, child = last[0].rpartition(".")
    setattr(network.get_submodule(parent), child, head(last[1].in_features))


@torch.no_grad()
def _check_logits(name: str, model: nn.Module, channels: int, classes: int, image_size: tuple[int, int]) -> None:
    """Raise `InputError` unless two blank images give two rows of finite logits, one per class."""
    blank = torch.zeros(2, channels, *image_size)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with plugins.guarded():
            logits = model(blank)
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"model.name {name} cannot classify images of {channels}x{image_size[0]}x{image_size[1]}: {reason}; "
            "choose another model or size"
        ) from error
    finally:
        for module, mode in training:
            module.training = mode
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else one_line(type(logits).__name__)
    if shape != (2, classes):
        raise InputError(
            f"model.name {name} must give logits of shape (2, {classes}) for 2 images of {classes} classes, "
            f"got {shape}; fix the model"
        )
    if not logits.isfinite().all():
        raise InputError(
            f"model.name {name} must give finite logits for blank images, got {logits[0].tolist()[:3]} ...; "
            "fix the model"
        )


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters and buffers as safetensors."""
    # Through memory, so that a full disk raises OSError.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load `model` from a safetensors file. Raises `InputError` if the file is damaged or of another architecture."""
    hint = "give the recipe it was trained with, or an undamaged copy"
    try:
        stored = load_file(path)
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{path} cannot be read as safetensors: {reason}; {hint}") from error
    wanted = model.state_dict()
    differing = sorted(
        name
        for name in stored.keys() | wanted.keys()
        if name not in stored or name not in wanted or stored[name].shape != wanted[name].shape
    )
    if differing:
        raise InputError(
            f"{path} does not hold the weights of this recipe's model: "
            f"{len(differing)} of {len(wanted)} tensors differ, {differing[0]} first; {hint}"
        )
    model.load_state_dict(stored)
