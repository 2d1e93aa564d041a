"""Random crop and flip, drawn per image and epoch, applied in batches on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hcpr_tune.training.recipe import Augmentation


@dataclass(frozen=True)
class Draws:
    """The augmentation of each image of a split in one epoch, by its position in the split.

    rows, columns: (N,) where the crop starts in the padded image; flipped: (N,) bool. Drawn on the CPU for the whole
    epoch, so that they do not depend on batches, workers or the device.
    """

    rows: Tensor
    columns: Tensor
    flipped: Tensor
    padding: int

    def to(self, device: torch.device) -> Draws:
        return Draws(self.rows.to(device), self.columns.to(device), self.flipped.to(device), self.padding)


def draw(augmentation: Augmentation, count: int, generator: torch.Generator) -> Draws | None:
    """One epoch's draws for `count` images; None without augmentation."""
    if not augmentation.crop_padding and not augmentation.flip:
        return None
    ends = 2 * augmentation.crop_padding + 1
    rows, columns = (torch.randint(ends, (count,), generator=generator) for _ in range(2))
    coins = torch.rand(count, generator=generator) < 0.5
    return Draws(rows, columns, coins & augmentation.flip, augmentation.crop_padding)


def augment(images: Tensor, draws: Draws | None, positions: Tensor) -> Tensor:
    """Crop and flip a batch, (B, C, H, W) -> (B, C, H, W); `positions` (B,) are the images' positions in the split.

    All are on the images' device. Pads with black on every side, crops to H x W, then flips, in one gather for all.
    """
    if draws is None:
        return images
    device, (height, width) = images.device, images.shape[-2:]
    rows, columns, flipped = (part[positions] for part in (draws.rows, draws.columns, draws.flipped))
    padded = F.pad(images, [draws.padding] * 4)
    across = torch.arange(width, device=device).expand(len(images), width)
    across = torch.where(flipped[:, None], width - 1 - across, across) + columns[:, None]
    down = torch.arange(height, device=device) + rows[:, None]
    batch = torch.arange(len(images), device=device)[:, None, None]
    # Indexing before and after the slice puts the channels last: (B, H, W, C).
    return padded[batch, :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
