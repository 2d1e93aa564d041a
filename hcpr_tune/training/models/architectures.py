"""The networks, in their usual variants for small images. Each has `features` (images to a vector) and a `head`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HeadFactory = Callable[[int], nn.Module]
"""Number of features -> the head."""


class CosineHead(nn.Module):
    """z_j = <w_j, f/|f|> + b_j with unit rows w_j, (B, D) -> (B, K), in float32 even under autocast.

    The rows are kept on the unit sphere by `normalise_head`, called after construction and after every optimiser step.
    The forward pass does not normalise them: as in the published code, no gradient flows through the row norm.
    """

    def __init__(self, features: int, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(F.normalize(features.to(self.weight.dtype), dim=1), self.weight, self.bias)


class LinearHead(nn.Linear):
    """z = W f + b, (B, D) -> (B, K), in float32 even under autocast."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class SmallCnn(nn.Module):
    """Three 3x3 convolutions with batch normalisation, two of them with stride 2, and a head on 2x2 averages."""

    def __init__(self, channels: int, width: int, head: HeadFactory) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for index, (into, out) in enumerate(pairwise(widths)):
            stride = 1 if index == 0 else 2
            layers += [
                nn.Conv2d(into, out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.head = head(4 * widths[-1])

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        logits: Tensor = self.head(quarters(maps).flatten(1))
        return logits


def quarters(maps: Tensor) -> Tensor:
    """The averages over four quarters of the maps, (B, C, H, W) -> (B, C, 2, 2), which overlap where a side is odd.

    `F.adaptive_avg_pool2d` adds up their gradients in an order of its own each time on a GPU.
    """
    height, width = maps.shape[-2:]
    # On 8x8 images the maps are already 2x2, and pooling, an identity there, would take a tenth of the time.
    if (height, width) == (2, 2):
        return maps
    if height % 2 == 0 and width % 2 == 0:
        return F.avg_pool2d(maps, (height // 2, width // 2))
    rows, columns = ((slice(0, -(-side // 2)), slice(side // 2, side)) for side in (height, width))
    means = [maps[:, :, down, across].mean(dim=(2, 3)) for down in rows for across in columns]
    return torch.stack(means, dim=2).reshape(*maps.shape[:2], 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch normalisation, plus a shortcut (He et al., CVPR 2016)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        same = into == out and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class PreActivationBlock(nn.Module):
    """Batch normalisation and ReLU before each of two 3x3 convolutions, plus a shortcut.

    He et al., ECCV 2016; wide: Zagoruyko and Komodakis, 2016.
    """

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(into)
        self.conv1 = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        same = into == out and stride == 1
        self.shortcut: nn.Module | None = None if same else nn.Conv2d(into, out, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        beside = maps if self.shortcut is None else self.shortcut(active)
        inner = F.relu(self.bn2(self.conv1(active)))
        branch: Tensor = self.conv2(inner)
        return branch + beside


class ResidualNet(nn.Module):
    """A 3x3 stem without pooling, stages of blocks (all but the first halve the maps), global averages, a head."""

    def __init__(
        self,
        channels: int,
        stem: int,
        widths: tuple[int, ...],
        blocks_per_stage: int,
        block: type[BasicBlock] | type[PreActivationBlock],
        head: HeadFactory,
    ) -> None:
        super().__init__()
        after_block = block is BasicBlock
        layers: list[nn.Module] = [nn.Conv2d(channels, stem, 3, padding=1, bias=False)]
        if after_block:
            layers += [nn.BatchNorm2d(stem), nn.ReLU(inplace=True)]
        into = stem
        for stage, width in enumerate(widths):
            for index in range(blocks_per_stage):
                layers.append(block(into, width, 2 if stage and index == 0 else 1))
                into = width
        if not after_block:
            layers += [nn.BatchNorm2d(into), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = head(into)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
        return logits


def resnet18(channels: int, head: HeadFactory) -> nn.Module:
    return ResidualNet(channels, 64, (64, 128, 256, 512), 2, BasicBlock, head)


def preact_resnet18(channels: int, head: HeadFactory) -> nn.Module:
    return ResidualNet(channels, 64, (64, 128, 256, 512), 2, PreActivationBlock, head)


def wide_resnet(depth: int, factor: int, channels: int, head: HeadFactory) -> nn.Module:
    """WRN-depth-factor: 6 n + 4 layers, widths 16, 16 k, 32 k, 64 k, no dropout."""
    blocks = (depth - 4) // 6
    return ResidualNet(channels, 16, (16 * factor, 32 * factor, 64 * factor), blocks, PreActivationBlock, head)
