"""A small network whose epochs last and cost no work: for what has to happen in the middle of one."""

from __future__ import annotations

import time

from torch import Tensor, nn

from hcpr_tune.training.models.architectures import CosineHead, SmallCnn


class Slow(nn.Module):
    """Sleeps a little in each step of the training."""

    def __init__(self, classes: int, channels: int, seconds: float) -> None:
        super().__init__()
        self.network = SmallCnn(channels, 4, lambda features: CosineHead(features, classes))
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.seconds)
        logits: Tensor = self.network(images)
        return logits


def second(classes: int, channels: int) -> nn.Module:
    """Its epochs of nine steps last about a second."""
    return Slow(classes, channels, 0.05)


def seconds(classes: int, channels: int) -> nn.Module:
    return Slow(classes, channels, 0.2)


def minutes(classes: int, channels: int) -> nn.Module:
    """Not one epoch of it ends while a test looks on."""
    return Slow(classes, channels, 60.0)
