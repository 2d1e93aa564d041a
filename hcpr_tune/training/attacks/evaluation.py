"""Clean and robust accuracy of a split as counts, confusions under attack, and a check for masked gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.attacks.pgd import (
    Classifier,
    evaluating,
    predict_under_attack,
    predict_under_targeted_attack,
    uniform_noise,
)
from hcpr_tune.training.data.dataset import Split, fixed_subset
from hcpr_tune.training.formats import number_format
from hcpr_tune.training.methods.losses import cross_entropy
from hcpr_tune.training.recipe import Evaluation, Task
from hcpr_tune.training.seeds import generator


@dataclass(frozen=True)
class Accuracies:
    """Numbers of correctly classified images of one split: clean, and under the margin attack.

    `pairs`: (true class, class under attack, number of images) for every confusion that occurred; class -1 stands for
    NaN logits. `class_totals`: the number of images per class.
    """

    clean_correct: int
    robust_correct: int
    total: int
    pairs: tuple[tuple[int, int, int], ...] = ()
    class_totals: tuple[int, ...] = ()
    survived: tuple[bool, ...] = ()
    """Which images are classified correctly under attack, in the order of `scored_positions`."""
    survivors: tuple[tuple[float, int], ...] = ()
    """(radius as a multiple of epsilon, images correctly classified under attack there), epsilon among them, rising;
    empty without `Evaluation.radii`."""


def scored_positions(split: Split, settings: Evaluation) -> Tensor:
    """Positions (N,) of the images to score: all, or a fixed subset in equal shares per class."""
    if not settings.images or settings.images >= len(split):
        return torch.arange(len(split))
    return torch.as_tensor(fixed_subset(split.labels.cpu().numpy(), settings.images, settings.seed))


def chunk_of(positions: Tensor, size: int, number: int) -> Tensor:
    """The positions of a chunk of at most `size` images, spread evenly over all.

    So a chunk has images of every class even where the images of a folder are in the order of their classes, and what
    was found on the first chunks speaks for all.
    """
    apart = -(-len(positions) // size)
    spread = torch.cat([positions[first::apart] for first in range(apart)])
    return spread[number * size : (number + 1) * size]


START_BLOCK = 64
"""Number of images whose starts share a generator."""


def scoring_attack(task: Task, settings: Evaluation, objective: str = "margin") -> PGDConfig:
    """The attack of every evaluation."""
    step_size = settings.relative_step_size * task.epsilon
    return PGDConfig(settings.steps, step_size, settings.restarts, objective=objective)


def random_starts(images: Tensor, positions: Tensor, threat: Threat, config: PGDConfig, seed: int) -> list[Tensor]:
    """One start in the ball per image and restart, (B, C, H, W) each, the same in every evaluation and on every device.

    An image's start depends only on its position in the split, not on batch size or subset: positions are drawn in
    blocks, each with its own generator.
    """
    starts = []
    blocks, places = positions // START_BLOCK, positions % START_BLOCK
    for restart in range(config.restarts):
        noise = torch.empty(images.shape)
        for block in blocks.unique().tolist():
            seeded = generator("cpu", seed, "start", restart, block)
            drawn = uniform_noise((START_BLOCK, *images.shape[1:]), threat, seeded)
            noise[blocks == block] = drawn[places[blocks == block]]
        starts.append(images + noise.to(images.device))
    return starts


def evaluate(
    model: Classifier, split: Split, task: Task, settings: Evaluation, classes: int, objective: str = "margin"
) -> Accuracies:
    """Clean and robust accuracy of `model` on `split`, under PGD on `objective` in the task's ball.

    With `settings.targets`, the margin is also raised to single classes, on the images that survive; with
    `settings.radii`, survivors are counted at these radii too. Runs in the format
    `settings.precision`, whatever the training's is.
    """
    with number_format(settings.precision, split.labels.device):
        return _evaluate(model, split, task, settings, classes, objective)


def _evaluate(
    model: Classifier, split: Split, task: Task, settings: Evaluation, classes: int, objective: str
) -> Accuracies:
    totals = torch.zeros(2, dtype=torch.int64, device=split.labels.device)
    # The extra column counts NaN logits.
    confusion = torch.zeros(classes, classes + 1, dtype=torch.int64, device=split.labels.device)
    positions, config = scored_positions(split, settings), scoring_attack(task, settings, objective)
    survived: list[Tensor] = []
    by_radius: dict[float, Tensor] = dict.fromkeys(settings.radii, totals.new_zeros(()))
    for chosen in positions.split(settings.batch_size):
        images, labels = split.fetch(chosen), split.labels[chosen.to(split.labels.device)]
        starts = random_starts(images, chosen, task.threat, config, settings.seed)
        targets = settings.targets if objective == "margin" else 0
        clean, attacked = predict_under_targeted_attack(model, images, labels, task.threat, config, starts, targets)
        survived.append(attacked == labels)
        totals += torch.stack((clean.sum(), survived[-1].sum()))
        for radius, left in _at_radii(model, images, labels, chosen, (clean, survived[-1]), task, settings, objective):
            by_radius[radius] = by_radius[radius] + left
        ones = torch.ones_like(labels)
        confusion.index_put_((labels, torch.where(attacked < 0, classes, attacked)), ones, accumulate=True)
    clean_correct, robust_correct = totals.tolist()
    return Accuracies(
        clean_correct,
        robust_correct,
        len(positions),
        _pairs(confusion.tolist()),
        tuple(confusion.sum(dim=1).tolist()),
        tuple(torch.cat(survived).tolist()),
        _rising(by_radius, robust_correct),
    )


def _at_radii(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    positions: Tensor,
    at_epsilon: tuple[Tensor, Tensor],
    task: Task,
    settings: Evaluation,
    objective: str,
) -> Iterator[tuple[float, Tensor]]:
    """Each further radius and how many images survive there. `at_epsilon`: which are correct clean, and survive.

    An image that survives at one radius survives at all smaller ones, so each is attacked only where that is open.
    """
    clean, robust = at_epsilon
    for radii, inwards in ((settings.radii[::-1], True), (settings.radii, False)):
        left = clean & ~robust if inwards else robust
        for radius in (one for one in radii if (one < 1) == inwards):
            threat = replace(task.threat, epsilon=radius * task.epsilon)
            config = scoring_attack(replace(task, epsilon=threat.epsilon), settings, objective)
            here, surviving = left.nonzero()[:, 0], torch.zeros_like(left)
            if len(here):
                starts = random_starts(images[here], positions[here.cpu()], threat, config, settings.seed)
                _, classes = predict_under_attack(model, images[here], labels[here], threat, config, starts)
                surviving[here] = classes == labels[here]
            yield radius, (clean & ~left | surviving).sum() if inwards else surviving.sum()
            left = left & ~surviving if inwards else surviving


def _rising(by_radius: dict[float, Tensor], at_epsilon: int) -> tuple[tuple[float, int], ...]:
    if not by_radius:
        return ()
    return tuple(sorted({**{radius: int(count) for radius, count in by_radius.items()}, 1.0: at_epsilon}.items()))


def _pairs(confusion: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    """The non-zero cells off the diagonal, with the last column as class -1."""
    last = len(confusion)
    return tuple(
        (true, -1 if attacked == last else attacked, count)
        for true, row in enumerate(confusion)
        for attacked, count in enumerate(row)
        if count and attacked != true
    )


@dataclass(frozen=True)
class Masking:
    """Signs of gradient masking, which inflates robust accuracy. Counts are of surviving images.

    The bound on 10 against 50 steps separates the masked runs in public logs of fast adversarial training exactly, but
    it was fitted to them, and so were the other bounds.
    """

    images: int
    survive_margin_10: int
    survive_margin_50: int
    survive_cross_entropy_50: int
    without_gradient: int

    @property
    def alarms(self) -> tuple[str, ...]:
        """What looks wrong, in words; empty if nothing does."""
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
"""Step size as a fraction of epsilon, as in the logs behind the bound (2/255 of 8/255): ten steps cross the ball."""
MOST_STEP_GAP = 3.0
MOST_LOSS_GAP = 15.0
MOST_WITHOUT_GRADIENT = 5.0


def masking(model: Classifier, split: Split, task: Task, settings: Evaluation) -> Masking:
    """Look for masked gradients on a fixed subset of `settings.masking_images` images, in `settings.precision`."""
    with number_format(settings.precision, split.labels.device):
        return _masking(model, split, task, settings)


def _masking(model: Classifier, split: Split, task: Task, settings: Evaluation) -> Masking:
    count = min(settings.masking_images, len(split))
    if not count:
        return Masking(0, 0, 0, 0, 0)
    positions = torch.as_tensor(fixed_subset(split.labels.cpu().numpy(), count, settings.seed))
    images, labels = split.fetch(positions), split.labels[positions.to(split.labels.device)]
    step_size = MASKING_STEP * task.epsilon
    starts = random_starts(images, positions, task.threat, PGDConfig(1, step_size), settings.seed)

    def survivors(objective: str, steps: int) -> int:
        config = PGDConfig(steps, step_size, objective=objective)
        _, attacked = predict_under_attack(model, images, labels, task.threat, config, starts)
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
