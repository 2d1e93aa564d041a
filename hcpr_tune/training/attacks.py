"""Attacks as functions: signed gradient ascent in an L-inf ball, for training and for evaluation.

They leave the model as they found it: its mode, which of its parameters want gradients, and their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

Objective = Callable[[Tensor], Tensor]
"""Logits (B, K) -> a value per image (B,), to be raised."""


class Margin(Protocol):
    """Logits (B, K) and labels (B,) -> a value per image (B,), below 0 where the image is classified rightly."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor: ...


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode without parameter gradients; mode and gradient flags of every part are restored."""
    modes = [(module, module.training) for module in model.modules()]
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanting:
            parameter.requires_grad_(True)


def ascend(
    model: nn.Module, adversarial: Tensor, images: Tensor, objective: Objective, epsilon: float, step_size: float
) -> tuple[Tensor, Tensor]:
    """One step: (the next adversarial images, the logits of the given ones), both without a graph.

    x' <- x' + step_size * sign(gradient), projected to the L-inf ball of radius epsilon around `images`, then to [0, 1].
    """
    with torch.enable_grad():
        adversarial = adversarial.detach().requires_grad_(True)
        logits = model(adversarial)
        (gradient,) = torch.autograd.grad(objective(logits).sum(), adversarial)
    with torch.no_grad():
        moved = adversarial + step_size * gradient.sign()
        return into_ball(moved, images, epsilon), logits.detach()


def into_ball(moved: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Project to the L-inf ball of radius epsilon around `images` and to [0, 1]."""
    return torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon).clamp_(0, 1)


def maximise(
    model: nn.Module,
    images: Tensor,
    objective: Objective,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    start: Tensor,
) -> Tensor:
    """The inner maximisation: `steps` steps of ascent on `objective` from `start`, (B, C, H, W) -> (B, C, H, W).

    The model is in eval mode meanwhile; its parameters get no gradient. `start` may lie outside the ball and outside [0, 1],
    as the published code's noise does; the first step brings it in.
    """
    adversarial = start
    with evaluating(model):
        for _ in range(steps):
            adversarial, _ = ascend(model, adversarial, images, objective, epsilon, step_size)
    return adversarial


def margin_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    margin: Margin,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    start: Tensor,
) -> Tensor:
    """Which images survive, (B,) bool: ascent on `margin(logits, labels)` from `start` until it is no longer below 0.

    An image that is broken, clean or at any step, is not attacked further, so that only survivors cost time. A margin that is not a number
    counts as broken.
    """
    survivors = torch.arange(len(images), device=images.device)
    with evaluating(model):
        with torch.no_grad():
            survivors = survivors[margin(model(images), labels) < 0]
        adversarial = into_ball(start, images, epsilon)[survivors]
        for _ in range(steps):
            if not len(survivors):
                break
            objective = partial(margin, labels=labels[survivors])
            moved, logits = ascend(model, adversarial, images[survivors], objective, epsilon, step_size)
            unbroken = objective(logits) < 0
            survivors, adversarial = survivors[unbroken], moved[unbroken]
        with torch.no_grad():
            survivors = survivors[margin(model(adversarial), labels[survivors]) < 0] if len(survivors) else survivors
    survived = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    survived[survivors] = True
    return survived
