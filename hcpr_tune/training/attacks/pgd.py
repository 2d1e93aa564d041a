"""PGD in an L-inf or L2 ball, for training and for evaluation.

The attacks leave the model's mode, its `requires_grad` flags and its gradients unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

Objective = Callable[[Tensor], Tensor]
"""Logits (B, K) -> a value per image (B,), to be maximised."""


class Margin(Protocol):
    """Logits (B, K) and labels (B,) -> a value per image (B,), below 0 if the image is classified correctly."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor: ...


Classifier = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> logits (B, K); a module or a function."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Put the model in eval mode without parameter gradients inside the block; restores every module and parameter."""
    if not isinstance(model, nn.Module):
        yield
        return
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


def pgd_step(
    model: Classifier,
    adversarial: Tensor,
    images: Tensor,
    objective: Objective,
    epsilon: float,
    step_size: float,
    norm: str = "linf",
) -> tuple[Tensor, Tensor]:
    """One PGD step; returns the next adversarial images and the logits of the given ones, both without a graph.

    x' <- x' + step_size * sign(gradient) (L-inf) or gradient / |gradient| (L2), projected to the ball of radius epsilon
    around `images`, then to [0, 1].
    """
    with torch.enable_grad():
        adversarial = adversarial.detach().requires_grad_(True)
        logits = model(adversarial)
        (gradient,) = torch.autograd.grad(objective(logits).sum(), adversarial)
    with torch.no_grad():
        moved = adversarial + step_size * DIRECTIONS[norm](gradient)
        return project(moved, images, epsilon, norm), logits.detach()


def _unit_l2(gradient: Tensor) -> Tensor:
    """Each image's gradient scaled to length 1; a zero gradient stays zero."""
    return gradient / _lengths(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _lengths(images: Tensor) -> Tensor:
    """L2 norm of each image, (B, C, H, W) -> (B, 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return lengths


DIRECTIONS: dict[str, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": _unit_l2}


def project(moved: Tensor, images: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """Project to the ball of radius epsilon around `images`, then to [0, 1], which never leaves the ball."""
    if norm == "linf":
        return torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon).clamp_(0, 1)
    change = moved - images
    shrink = (epsilon / _lengths(change).clamp_min(torch.finfo(change.dtype).tiny)).clamp_max(1.0)
    return (images + change * shrink).clamp_(0, 1)


def uniform_noise(shape: torch.Size | tuple[int, ...], epsilon: float, norm: str, generator: torch.Generator) -> Tensor:
    """Noise drawn uniformly from the ball, (B, C, H, W), on the generator's device."""
    device = generator.device
    if norm == "linf":
        return epsilon * (2 * torch.rand(shape, generator=generator, device=device) - 1)
    direction = _unit_l2(torch.randn(shape, generator=generator, device=device))
    # The fraction of the ball's volume within radius r is (r / epsilon) ** dimension.
    share = torch.rand((shape[0], 1, 1, 1), generator=generator, device=device)
    return epsilon * direction * share ** (1 / math.prod(shape[1:]))


def pgd(
    model: Classifier,
    images: Tensor,
    objective: Objective,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    start: Tensor,
    norm: str = "linf",
) -> Tensor:
    """The inner maximisation: `steps` steps of ascent on `objective` from `start`, (B, C, H, W) -> (B, C, H, W).

    `start` may lie outside the ball and outside [0, 1], as in the published code; the first step projects it. If
    `model` is a module, it runs in eval mode and its parameters get no gradient.
    """
    adversarial = start
    with evaluating(model):
        for _ in range(steps):
            adversarial, _ = pgd_step(model, adversarial, images, objective, epsilon, step_size, norm)
    return adversarial


def predict_under_attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    margin: Margin,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    starts: Sequence[Tensor],
    norm: str = "linf",
    objective: Margin | None = None,
    shown: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which clean images are classified correctly, (B,) bool, and each image's class under attack, (B,).

    The class is the label if the image survives. Runs PGD on `objective(logits, labels)` (default: the margin) from
    each of `starts` in turn. An image is broken once its margin is not below 0, clean or at any step, and is then not
    attacked further, to save time. Its class is then that of the highest wrong logit, or -1 if the margin is NaN. If
    `shown` (B, C, H, W) is given, it is filled with the images that the classes belong to: as they were when they
    broke, or at the end of the last attack.
    """
    objective = objective or margin
    classes = labels.clone()
    survivors = torch.arange(len(images), device=images.device)

    def sift(logits: Tensor, attacked: Tensor) -> Tensor:
        """Record the classes of the survivors that `attacked` breaks; returns which of them are left."""
        nonlocal survivors
        if shown is not None:
            shown[survivors] = attacked
        values = margin(logits, labels[survivors])
        unbroken = values < 0
        wrong = logits.scatter(1, labels[survivors][:, None], -torch.inf).argmax(dim=1)
        broken = ~unbroken
        classes[survivors[broken]] = torch.where(values.isnan(), -1, wrong)[broken]
        survivors = survivors[unbroken]
        return unbroken

    with evaluating(model):
        with torch.no_grad():
            clean = sift(model(images), images)
        for start in starts:
            adversarial = project(start[survivors], images[survivors], epsilon, norm)
            for _ in range(steps):
                if not len(survivors):
                    break
                raised = partial(objective, labels=labels[survivors])
                moved, logits = pgd_step(model, adversarial, images[survivors], raised, epsilon, step_size, norm)
                adversarial = moved[sift(logits, adversarial)]
            if len(survivors):
                with torch.no_grad():
                    sift(model(adversarial), adversarial)
    return clean, classes
