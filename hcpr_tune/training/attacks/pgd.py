"""PGD in an L-inf or L2 ball, for training and for evaluation.

The attacks leave the model's mode, its `requires_grad` flags and its gradients unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.methods.losses import cross_entropy, misclassification_margin

Objective = Callable[[Tensor], Tensor]
"""Logits (B, K) -> a value per image (B,), to be maximised."""


AttackStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Adversarial images and the indices that they have among all -> the next ones, and the logits of those given."""

OBJECTIVES = {"margin": misclassification_margin, "cross_entropy": cross_entropy}
"""What an evaluation attack may raise."""

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
    threat: Threat,
    step_size: float,
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One PGD step; returns the next adversarial images and the logits of the given ones, both without a graph.

    The next images are written to `into`, if it is given, which may be `adversarial`.

    x' <- x' + step_size * sign(gradient) (L-inf) or gradient / |gradient| (L2), projected to the threat's ball around
    `images`, then to [0, 1].
    """
    with torch.enable_grad():
        adversarial = adversarial.detach().requires_grad_(True)
        logits = model(adversarial)
        (gradient,) = torch.autograd.grad(objective(logits).sum(), adversarial)
    with torch.no_grad():
        moved = adversarial + step_size * DIRECTIONS[threat.norm](gradient)
        return project(moved, images, threat, into), logits.detach()


def _unit_l2(gradient: Tensor) -> Tensor:
    """Each image's gradient scaled to length 1; a zero gradient stays zero."""
    return gradient / _lengths(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _lengths(images: Tensor) -> Tensor:
    """L2 norm of each image, (B, C, H, W) -> (B, 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return lengths


DIRECTIONS: dict[str, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": _unit_l2}


def project(moved: Tensor, images: Tensor, threat: Threat, into: Tensor | None = None) -> Tensor:
    """Project to the threat's ball around `images`, then to [0, 1], which never leaves the ball. Written to `into`, if
    given.
    """
    epsilon = threat.epsilon
    if threat.norm == "linf":
        inside = torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon)
        return torch.clamp(inside, 0, 1, out=inside if into is None else into)
    change = moved - images
    shrink = (epsilon / _lengths(change).clamp_min(torch.finfo(change.dtype).tiny)).clamp_max(1.0)
    inside = images + change * shrink
    return torch.clamp(inside, 0, 1, out=inside if into is None else into)


def uniform_noise(shape: torch.Size | tuple[int, ...], threat: Threat, generator: torch.Generator) -> Tensor:
    """Noise drawn uniformly from the ball, (B, C, H, W), on the generator's device."""
    device, epsilon = generator.device, threat.epsilon
    if threat.norm == "linf":
        return epsilon * (2 * torch.rand(shape, generator=generator, device=device) - 1)
    direction = _unit_l2(torch.randn(shape, generator=generator, device=device))
    # The fraction of the ball's volume within radius r is (r / epsilon) ** dimension.
    share = torch.rand((shape[0], 1, 1, 1), generator=generator, device=device)
    return epsilon * direction * share ** (1 / math.prod(shape[1:]))


def random_start(images: Tensor, threat: Threat, config: PGDConfig, generator: torch.Generator) -> Tensor:
    """Where the inner maximisation starts: the images with the noise that `config.start` names, (B, C, H, W)."""
    if config.start == "uniform":
        return images + uniform_noise(images.shape, threat, generator).to(images.dtype)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images + config.initial_noise * noise


def pgd(
    model: Classifier, images: Tensor, objective: Objective, threat: Threat, config: PGDConfig, start: Tensor
) -> Tensor:
    """The inner maximisation: `config.steps` steps of ascent on `objective` from `start`, (B, C, H, W) -> the same.

    `start` may lie outside the ball and outside [0, 1], as in the published code; the first step projects it. If
    `model` is a module, it runs in eval mode and its parameters get no gradient.
    """
    adversarial = start
    with evaluating(model):
        for _ in range(config.steps):
            adversarial, _ = pgd_step(model, adversarial, images, objective, threat, config.step_size)
    return adversarial


def predict_under_attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    config: PGDConfig,
    starts: Sequence[Tensor],
    shown: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which clean images are classified correctly, (B,) bool, and each image's class under attack, (B,).

    The class is the label if the image survives. Runs PGD on `config.objective` from each of `starts` in turn. An image
    is broken once its margin is not below 0, clean or at any step, and is then not attacked further, to save time. Its
    class is then that of the highest wrong logit, or -1 if the margin is NaN. If `shown` (B, C, H, W) is given, it is
    filled with the images that the classes belong to: as they were when they broke, or at the end of the last attack.
    """

    def step(adversarial: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        raised = partial(OBJECTIVES[config.objective], labels=labels[chosen])
        return pgd_step(model, adversarial, images[chosen], raised, threat, config.step_size)

    begun = (project(start, images, threat) for start in starts)
    return _sifted(model, images, labels, begun, step, config.steps, shown)


def predict_under_targeted_attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    config: PGDConfig,
    starts: Sequence[Tensor],
    targets: int,
) -> tuple[Tensor, Tensor]:
    """As `predict_under_attack` and, on what survives it, PGD on the margin to each of some classes, one by one.

    These are the `targets` classes with the highest logits of the clean image but for its own. Untargeted, the nearest
    class may change from step to step, and the steps undo each other. An image counts as broken by whatever class it
    is taken for, so the result is never above that of the untargeted attack. The starts are the same.
    """
    clean, classes = predict_under_attack(model, images, labels, threat, config, starts)
    left = (classes == labels).nonzero()[:, 0]
    if not len(left) or not targets:
        return clean, classes
    with evaluating(model), torch.no_grad():
        logits = model(images[left]).scatter(1, labels[left][:, None], -torch.inf)
    for aims in logits.topk(min(targets, logits.shape[1] - 1)).indices.T:
        here = (classes[left] == labels[left]).nonzero()[:, 0]
        classes[left[here]] = _aimed(model, (images, labels, starts), left[here], aims[here], threat, config)
    return clean, classes


def _aimed(
    model: Classifier,
    attacked: tuple[Tensor, Tensor, Sequence[Tensor]],
    chosen: Tensor,
    aims: Tensor,
    threat: Threat,
    config: PGDConfig,
) -> Tensor:
    """The classes of the chosen images after PGD on the margin to one class each."""
    images, labels, starts = attacked
    images, labels = images[chosen], labels[chosen]

    def step(adversarial: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        raised = partial(margin_to, labels=labels[some], targets=aims[some])
        return pgd_step(model, adversarial, images[some], raised, threat, config.step_size)

    begun = (project(start[chosen], images, threat) for start in starts)
    return _sifted(model, images, labels, begun, step, config.steps)[1]


def margin_to(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The logit of a target class minus that of the label, (B, K), (B,), (B,) -> (B,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


@dataclass(frozen=True)
class Compaction:
    """How often images that are broken are taken out of a batch under attack.

    every: attack steps between two looks at how many are left; for each the host waits for the device. gone: the share
    of the batch that must be broken. multiple: what is left is filled up to a multiple of this, since a GPU chooses its
    algorithms anew for each size of a batch.
    """

    every: int
    gone: float
    multiple: int

    @classmethod
    def on(cls, device: torch.device) -> Compaction:
        """A CPU needs neither wait nor search, and takes each broken image out at once."""
        return cls(4, 0.25, 64) if device.type == "cuda" else cls(1, 0.0, 1)


class _Survivors:
    """The images of a batch that no attack has broken yet, and what broke the others.

    The arrays of the images under attack have M places, which `places` (M,) says the positions of; `under_attack` (M,)
    is false for broken images that are still among them, and for the filling behind the first `count`.
    """

    def __init__(self, labels: Tensor, shown: Tensor | None, compaction: Compaction) -> None:
        self.classes, self._labels, self._shown, self._compaction = labels.clone(), labels, shown, compaction
        self.places = torch.arange(len(labels), device=labels.device)
        self.under_attack = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        self.count = len(labels)
        self._found = labels

    def sift(self, logits: Tensor, attacked: Tensor) -> None:
        """Record the classes of the images that `attacked` (M, C, H, W) breaks."""
        labels = self._labels[self.places]
        values = misclassification_margin(logits, labels)
        wrong = logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
        broken = self.under_attack & ~(values < 0)
        self._found = torch.where(broken, torch.where(values.isnan(), -1, wrong), self._found)
        if self._shown is not None:
            here = self.places[: self.count]
            seen = self.under_attack[: self.count, None, None, None]
            self._shown[here] = torch.where(seen, attacked[: self.count], self._shown[here])
        self.under_attack = self.under_attack & ~broken

    def compacted(self, step: int) -> Tensor | None:
        """The places, of the M so far, that the images under attack keep; None if they all stay where they are."""
        if step % self._compaction.every:
            return None
        left = int(self.under_attack.sum())
        if left and (left == self.count or left > (1 - self._compaction.gone) * len(self.places)):
            return None
        self.settle()
        kept = self.under_attack.to(torch.int8).argsort(descending=True, stable=True)[:left]
        filling = kept[:1].expand(-left % self._compaction.multiple)
        kept = torch.cat((kept, filling))
        self.places, self._found, self.count = self.places[kept], self._found[kept], left
        self.under_attack = torch.arange(len(kept), device=kept.device) < left
        return kept

    def settle(self) -> None:
        """Write what was found to `classes`."""
        self.classes[self.places[: self.count]] = self._found[: self.count]


def _sifted(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    starts: Iterable[Tensor],
    step: AttackStep,
    steps: int,
    shown: Tensor | None = None,
    compaction: Compaction | None = None,
) -> tuple[Tensor, Tensor]:
    """The answer of `predict_under_attack`, after so many of these steps from each of `starts`."""
    left = _Survivors(labels, shown, compaction or Compaction.on(images.device))
    with evaluating(model):
        with torch.no_grad():
            left.sift(model(images), images)
        clean = left.under_attack.clone()
        left.compacted(0)
        for start in starts:
            adversarial = start[left.places]
            for number in range(steps):
                if not left.count:
                    break
                moved, logits = step(adversarial, left.places)
                left.sift(logits, adversarial)
                kept = left.compacted(number)
                adversarial = moved if kept is None else moved[kept]
            if left.count:
                with torch.no_grad():
                    left.sift(model(adversarial), adversarial)
                left.compacted(0)
        left.settle()
    return clean, left.classes
