"""Clean and robust accuracy of a split, as counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks import evaluating, margin_attack
from hcpr_tune.training.data import Split
from hcpr_tune.training.losses import misclassification_margin
from hcpr_tune.training.recipe import Evaluation
from hcpr_tune.training.seeds import generator


@dataclass(frozen=True)
class Accuracies:
    """Counts of rightly classified images of one split: clean, and under the margin attack."""

    clean_correct: int
    robust_correct: int
    total: int


def random_starts(split: Split, epsilon: float, seed: int) -> Tensor:
    """A uniform start in the ball for each image of `split`, the same in every evaluation, (N, C, H, W).

    Drawn on the CPU, so that it is the same on every device, and not yet clipped to [0, 1].
    """
    noise = torch.rand(split.images.shape, generator=generator("cpu", seed, "evaluation start"))
    return split.to_unit(split.images) + epsilon * (2 * noise - 1).to(split.images.device)


def evaluate(model: nn.Module, split: Split, epsilon: float, settings: Evaluation) -> Accuracies:
    """Count what `model` gets right on `split`, clean and under the margin attack of radius `epsilon`."""
    starts = random_starts(split, epsilon, settings.seed)
    clean = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    robust = torch.zeros_like(clean)
    for chosen in torch.arange(len(split), device=split.labels.device).split(settings.batch_size):
        images, labels = split.to_unit(split.images[chosen]), split.labels[chosen]
        with evaluating(model), torch.no_grad():
            clean += (misclassification_margin(model(images), labels) < 0).sum()
        robust += margin_attack(
            model,
            images,
            labels,
            misclassification_margin,
            epsilon=epsilon,
            steps=settings.steps,
            step_size=settings.relative_step_size * epsilon,
            start=starts[chosen],
        ).sum()
    return Accuracies(int(clean), int(robust), len(split))
