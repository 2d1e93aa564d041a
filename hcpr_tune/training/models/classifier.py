"""Models as recipes name them: built, checked, projected, saved, and made quick to attack. Images in [0, 1] go in, logits come out."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hcpr_tune.common.text import first_line, one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training import plugins
from hcpr_tune.training.models.architectures import (
    BasicBlock,
    CosineHead,
    HeadFactory,
    LinearHead,
    PreActivationBlock,
    SmallCnn,
    preact_resnet18,
    resnet18,
    wide_resnet,
)
from hcpr_tune.training.recipe import Model

ARCHITECTURES: dict[str, Callable[[int, HeadFactory], nn.Module]] = {
    "resnet18": resnet18,
    "preact_resnet18": preact_resnet18,
    "wide_resnet_28_10": partial(wide_resnet, 28, 10),
    "wide_resnet_34_10": partial(wide_resnet, 34, 10),
}
"""Built-in architectures besides small_cnn, which has a width."""


@torch.no_grad()
def normalise_head(model: nn.Module) -> None:
    """Overwrite the rows of every cosine head in `model` by unit rows."""
    for module in model.modules():
        if isinstance(module, CosineHead):
            module.weight.copy_(F.normalize(module.weight, dim=1))


def head_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the last layer: a cosine head, or else the last linear one."""
    heads = [module for module in model.modules() if isinstance(module, CosineHead | nn.Linear)]
    if heads:
        yield from heads[-1].parameters()


class Normalised(nn.Module):
    """(x - mean) / std per channel before the network, so that the model as a whole takes images in [0, 1]."""

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
    """A network for colour images that is given gray ones: the channel is repeated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def build_model(
    settings: Model, channels: int, classes: int, seed: int, image_size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """A new model with weights drawn from `seed`; the global generator is left as it was found.

    Raises `InputError` where the settings do not fit the data, or where a user's factory gives no classifier of them.
    """
    if settings.mean and len(settings.mean) != channels:
        raise InputError(
            f"model.mean must have one value per channel, {channels}, got {len(settings.mean)}; mend it and model.std"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _network(settings, channels, classes, image_size)
        model: nn.Module = Normalised(network, settings.mean, settings.std) if settings.mean else network
        normalise_head(model)
        # A network with dropout or the like may draw: that is part of its building.
        _check_logits(settings.name, model, channels, classes, image_size)
        # Convolutions are faster on images whose channels lie together, on the CPU and on the GPU. A user's own network may take views that only
        # row-major tensors have.
        model = model.to(memory_format=torch.channels_last)
        if ":" in settings.name:
            try:
                _check_logits(settings.name, model, channels, classes, image_size)
            except InputError:
                model = model.to(memory_format=torch.contiguous_format)
    return model


def _network(settings: Model, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    def head(features: int) -> nn.Module:
        kind = CosineHead if settings.head == "cosine" else LinearHead
        return kind(features, classes, settings.head_bias)

    if settings.name == "small_cnn":
        return SmallCnn(channels, settings.width, head)
    if settings.name in ARCHITECTURES:
        return ARCHITECTURES[settings.name](channels, head)
    if settings.name.startswith("torchvision:"):
        return _from_torchvision(settings, channels, classes, image_size, head)
    factory = plugins.load(settings.name, "model.name")
    own = plugins.call(factory, settings.name, "model.name", classes=classes, channels=channels)
    if not isinstance(own, nn.Module):
        raise InputError(
            f"model.name {settings.name} must return a torch.nn.Module, got {one_line(type(own).__name__)}; mend the factory"
        )
    return own


def _from_torchvision(
    settings: Model, channels: int, classes: int, image_size: tuple[int, int], head: HeadFactory
) -> nn.Module:
    """A classifier of torchvision with new weights; with a cosine head in place of its last linear layer."""
    import torchvision

    name = settings.name.removeprefix("torchvision:")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet18", "mobilenet_v3_small"]
        raise InputError(
            f"model.name {settings.name}: torchvision has no such classifier; for instance {', '.join('torchvision:' + one for one in near)}"
        )
    if channels not in (1, 3):
        raise InputError(
            f"model.name {settings.name} takes gray or colour images, but these have {channels} channels; choose another model"
        )
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": image_size[0]}
    try:
        network = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"model.name {settings.name} cannot be built for images of {image_size[0]}x{image_size[1]}: {error}; choose another model or size"
        ) from None
    if settings.head == "cosine":
        _replace_head(network, settings, head)
    return network if channels == 3 else GrayToColour(network)


def _replace_head(network: nn.Module, settings: Model, head: HeadFactory) -> None:
    """Put the head in place of the network's last linear layer, where that is what gives its logits."""
    last = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    if not isinstance(last[1], nn.Linear):
        raise InputError(
            f'model.name {settings.name} ends in a convolution and has no place for a cosine head; set model.head = "linear" or choose another'
        )
    parent, _, child = last[0].rpartition(".")
    setattr(network.get_submodule(parent), child, head(last[1].in_features))


@torch.no_grad()
def _check_logits(name: str, model: nn.Module, channels: int, classes: int, image_size: tuple[int, int]) -> None:
    """Two blank images must give two rows of finite logits, one per class."""
    blank = torch.zeros(2, channels, *image_size)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with plugins.guarded():
            logits = model(blank)
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"model.name {name} cannot classify images of {channels}x{image_size[0]}x{image_size[1]}: {reason}; choose another model or size"
        ) from error
    finally:
        for module, mode in training:
            module.training = mode
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else one_line(type(logits).__name__)
    if shape != (2, classes):
        raise InputError(
            f"model.name {name} must give logits of shape (2, {classes}) for 2 images of {classes} classes, got {shape}; mend it"
        )
    if not logits.isfinite().all():
        raise InputError(
            f"model.name {name} must give finite logits for blank images, got {logits[0].tolist()[:3]} ...; mend it"
        )


@torch.no_grad()
def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """The same function in eval mode, quicker: every convolution that a batch normalisation follows takes it in.

    Equal to rounding (1e-9 in float64). Where nothing can be folded it is the model itself. The copy shares what is not folded, and is
    right only until the next optimiser step.
    """
    pairs = [
        (f"{name}.{first}" if name else first, f"{name}.{second}" if name else second)
        for name, module in model.named_modules()
        for first, second in _foldable(module)
    ]
    if not pairs:
        return model
    # The copy's tensors are the model's own; only those of the folded convolutions are replaced.
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    folded = copy.deepcopy(model, memo).eval()
    for convolution_name, normalisation_name in pairs:
        convolution, normalisation = folded.get_submodule(convolution_name), folded.get_submodule(normalisation_name)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(normalisation, nn.BatchNorm2d)
        _fold(convolution, normalisation)
        parent, _, child = normalisation_name.rpartition(".")
        setattr(folded.get_submodule(parent), child, nn.Identity())
    return folded


def _foldable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the children (convolution, batch normalisation) of which the second is applied directly to the first's result."""
    if isinstance(module, BasicBlock):
        yield from (("conv1", "bn1"), ("conv2", "bn2"))
    elif isinstance(module, PreActivationBlock):
        yield "conv1", "bn2"
    elif type(module).forward is nn.Sequential.forward:
        for (first, one), (second, other) in pairwise(module.named_children()):
            if type(one) is nn.Conv2d and type(other) is nn.BatchNorm2d and other.affine and other.track_running_stats:
                yield first, second


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    """Give the convolution the scale and the shift that the normalisation has in eval mode."""
    mean, variance = normalisation.running_mean, normalisation.running_var
    assert mean is not None
    assert variance is not None
    scale = normalisation.weight * torch.rsqrt(variance + normalisation.eps)
    shift = normalisation.bias - mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    convolution.weight = nn.Parameter(convolution.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
    convolution.bias = nn.Parameter(shift, requires_grad=False)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters and buffers as safetensors."""
    # Through memory, so that a full disk is the OSError that it is.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file. Raises `InputError` where the file is damaged or of another architecture."""
    hint = "give the recipe that it was trained with, or an undamaged copy"
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
            f"{path} does not hold the weights of this recipe's model: {len(differing)} of {len(wanted)} tensors differ, {differing[0]} first; {hint}"
        )
    model.load_state_dict(stored)
