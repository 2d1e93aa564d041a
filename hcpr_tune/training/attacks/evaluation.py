"""Clean and robust accuracy of a split as counts, which classes an attack leads to, and an alarm for masked gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hcpr_tune.training.attacks.pgd import Classifier, evaluating, predict_under_attack, uniform_noise
from hcpr_tune.training.data.dataset import Split, fixed_subset
from hcpr_tune.training.methods.losses import cross_entropy, misclassification_margin
from hcpr_tune.training.recipe import Evaluation, Task
from hcpr_tune.training.seeds import generator

OBJECTIVES = {"margin": misclassification_margin, "cross_entropy": cross_entropy}
"""What an evaluation attack may raise."""


@dataclass(frozen=True)
class Accuracies:
    """Counts of rightly classified images of one split: clean, and under the margin attack.

    `pairs` says where the attack led: (true class, class under attack, number of images) for every pair that occurred and whose
    classes differ; `class_totals` the number of images per class. A class of -1 stands for logits that are not numbers.
    """

    clean_correct: int
    robust_correct: int
    total: int
    pairs: tuple[tuple[int, int, int], ...] = ()
    class_totals: tuple[int, ...] = ()


def scored_positions(split: Split, settings: Evaluation) -> Tensor:
    """The images that are scored, always the same: all, or a fixed subset in equal shares per class, (N,) positions."""
    if not settings.images or settings.images >= len(split):
        return torch.arange(len(split))
    return torch.as_tensor(fixed_subset(split.labels.cpu().numpy(), settings.images, settings.seed))


START_BLOCK = 64
"""Images whose starts share a generator."""


def random_starts(images: Tensor, positions: Tensor, task: Task, settings: Evaluation) -> list[Tensor]:
    """One start in the ball for each image and restart, the same in every evaluation and on every device, (B, C, H, W) each.

    An image's start follows from its position in the split alone, so that neither batch size nor subset changes it: positions
    are drawn in blocks, each with a generator of its own.
    """
    starts = []
    blocks, places = positions // START_BLOCK, positions % START_BLOCK
    for restart in range(settings.restarts):
        noise = torch.empty(images.shape)
        for block in blocks.unique().tolist():
            seeded = generator("cpu", settings.seed, "start", restart, block)
            drawn = uniform_noise((START_BLOCK, *images.shape[1:]), task.epsilon, task.norm, seeded)
            noise[blocks == block] = drawn[places[blocks == block]]
        starts.append(images + noise.to(images.device))
    return starts


def evaluate(
    model: Classifier, split: Split, task: Task, settings: Evaluation, classes: int, objective: str = "margin"
) -> Accuracies:
    """What `model` gets right on `split`, clean and under ascent on `objective` in the task's ball. Runs in float32."""
    totals = torch.zeros(2, dtype=torch.int64, device=split.labels.device)
    # One column more than there are classes, for logits that are not numbers.
    confusion = torch.zeros(classes, classes + 1, dtype=torch.int64, device=split.labels.device)
    positions = scored_positions(split, settings)
    for chosen in positions.split(settings.batch_size):
        images, labels = split.fetch(chosen), split.labels[chosen.to(split.labels.device)]
        clean, attacked = scoring_attack(model, images, labels, chosen, task, settings, objective)
        totals += torch.stack((clean.sum(), (attacked == labels).sum()))
        ones = torch.ones_like(labels)
        confusion.index_put_((labels, torch.where(attacked < 0, classes, attacked)), ones, accumulate=True)
    clean_correct, robust_correct = totals.tolist()
    return Accuracies(
        clean_correct, robust_correct, len(positions), _pairs(confusion.tolist()), tuple(confusion.sum(dim=1).tolist())
    )


def scoring_attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    positions: Tensor,
    task: Task,
    settings: Evaluation,
    objective: str = "margin",
    shown: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attacked_classes` of the images at `positions` of a split, as every evaluation attacks them."""
    return predict_under_attack(
        model,
        images,
        labels,
        misclassification_margin,
        epsilon=task.epsilon,
        norm=task.norm,
        steps=settings.steps,
        step_size=settings.relative_step_size * task.epsilon,
        starts=random_starts(images, positions, task, settings),
        objective=OBJECTIVES[objective],
        shown=shown,
    )


def _pairs(confusion: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    """The cells off the diagonal that are not 0, the last column as class -1."""
    last = len(confusion)
    return tuple(
        (true, -1 if attacked == last else attacked, count)
        for true, row in enumerate(confusion)
        for attacked, count in enumerate(row)
        if count and attacked != true
    )


@dataclass(frozen=True)
class Masking:
    """Signs that gradients are masked, so that robust accuracy is overrated. Counts are of images that survive.

    The bound on 10 against 50 steps marked exactly the masked runs among public logs of fast adversarial training; it was fitted
    after the fact, and so were the others.
    """

    images: int
    survive_margin_10: int
    survive_margin_50: int
    survive_cross_entropy_50: int
    without_gradient: int

    @property
    def alarms(self) -> tuple[str, ...]:
        """What looks wrong, in words; empty where nothing does."""
        if not self.images:
            return ()
        found = []
        points = 100 * (self.survive_margin_10 - self.survive_margin_50) / self.images
        if points > MOST_STEP_GAP:
            found.append(f"50 steps break {points:.1f} points more than 10 (above {MOST_STEP_GAP:g})")
        points = 100 * (self.survive_cross_entropy_50 - self.survive_margin_50) / self.images
        if points > MOST_LOSS_GAP:
            found.append(f"the margin breaks {points:.1f} points more than cross-entropy (above {MOST_LOSS_GAP:g})")
        share = 100 * self.without_gradient / self.images
        if share > MOST_WITHOUT_GRADIENT:
            found.append(
                f"{share:.1f} % of the images have no gradient of the cross-entropy (above {MOST_WITHOUT_GRADIENT:g})"
            )
        return tuple(found)


MASKING_STEP = 0.25
"""Step as a fraction of epsilon, as in the logs that the bound comes from (2/255 of 8/255); ten shorter ones would not cross the ball."""
MOST_STEP_GAP = 3.0
MOST_LOSS_GAP = 15.0
MOST_WITHOUT_GRADIENT = 5.0


def masking(model: Classifier, split: Split, task: Task, settings: Evaluation) -> Masking:
    """Look for masked gradients on a fixed subset of `settings.masking_images` images."""
    count = min(settings.masking_images, len(split))
    if not count:
        return Masking(0, 0, 0, 0, 0)
    positions = torch.as_tensor(fixed_subset(split.labels.cpu().numpy(), count, settings.seed))
    images, labels = split.fetch(positions), split.labels[positions.to(split.labels.device)]
    starts = random_starts(images, positions, task, settings)[:1]
    step_size = MASKING_STEP * task.epsilon

    def survivors(objective: str, steps: int) -> int:
        _, attacked = predict_under_attack(
            model,
            images,
            labels,
            misclassification_margin,
            epsilon=task.epsilon,
            norm=task.norm,
            steps=steps,
            step_size=step_size,
            starts=starts,
            objective=OBJECTIVES[objective],
        )
        return int((attacked == labels).sum())

    return Masking(
        images=len(positions),
        survive_margin_10=survivors("margin", 10),
        survive_margin_50=survivors("margin", 50),
        survive_cross_entropy_50=survivors("cross_entropy", 50),
        without_gradient=_without_gradient(model, images, labels),
    )


def _without_gradient(model: Classifier, images: Tensor, labels: Tensor) -> int:
    """How many clean images have a cross-entropy whose gradient is 0 in every pixel."""
    with evaluating(model), torch.enable_grad():
        images = images.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels).sum(), images)
    return int((gradient.flatten(1) == 0).all(dim=1).sum())
