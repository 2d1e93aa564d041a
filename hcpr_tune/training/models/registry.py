"""The networks: one `ArchitectureSpec` each, for the built-in ones as for a user's own.

Names can be listed without torch, which a network imports when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkInputs:
    """What a network is built for.

    `width` is `model.width` of the recipe. `head(features)` makes the last layer, from features (B, features) to logits
    (B, classes): cosine or linear, as the recipe says.
    """

    channels: int
    classes: int
    image_size: tuple[int, int]
    width: int
    head: Callable[[int], nn.Module]


@dataclass(frozen=True)
class ArchitectureSpec:
    """A network: `build` returns a module from images (B, C, H, W) in [0, 1] to logits (B, K), with new weights."""

    build: Callable[[NetworkInputs], nn.Module]


def _small_cnn(inputs: NetworkInputs) -> nn.Module:
    from hcpr_tune.training.models.architectures import SmallCnn

    return SmallCnn(inputs.channels, inputs.width, inputs.head)


def _resnet18(inputs: NetworkInputs) -> nn.Module:
    from hcpr_tune.training.models.architectures import resnet18

    return resnet18(inputs.channels, inputs.head)


def _preact_resnet18(inputs: NetworkInputs) -> nn.Module:
    from hcpr_tune.training.models.architectures import preact_resnet18

    return preact_resnet18(inputs.channels, inputs.head)


def _wide_resnet(depth: int) -> ArchitectureSpec:
    def build(inputs: NetworkInputs) -> nn.Module:
        from hcpr_tune.training.models.architectures import wide_resnet

        return wide_resnet(depth, 10, inputs.channels, inputs.head)

    return ArchitectureSpec(build)


ARCHITECTURES = {
    "small_cnn": ArchitectureSpec(_small_cnn),
    "resnet18": ArchitectureSpec(_resnet18),
    "preact_resnet18": ArchitectureSpec(_preact_resnet18),
    "wide_resnet_28_10": _wide_resnet(28),
    "wide_resnet_34_10": _wide_resnet(34),
}
"""The built-in networks; torchvision:NAME and a user's package.module:name are further ones."""
