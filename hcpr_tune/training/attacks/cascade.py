"""A cascade of strong attacks, each on the images that survived the previous ones: the attacks of AutoAttack (Croce and
Hein, ICML 2020), run by pyautoattack.

Images are attacked in chunks. The result for a chunk depends only on the model, the chunk and the seed, so chunks can
be spread over any number of processes, and stopped and resumed between any two attacks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.attacks.pgd import Classifier, evaluating, predict_under_attack, uniform_noise
from hcpr_tune.training.formats import number_format
from hcpr_tune.training.recipe import FLOAT32
from hcpr_tune.training.seeds import generator

CLEAN = "clean"
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
CASCADES = {"first": AUTOATTACK[:1], "strong": AUTOATTACK[:2], "gradient": AUTOATTACK[:3], "autoattack": AUTOATTACK}
"""The attacks, in order. "strong" has AutoAttack's first two: APGD on cross-entropy and on the targeted DLR loss.
"gradient" has all that need gradients.
"""
FEWEST_CLASSES_FOR_TARGETS = 4
"""The targeted DLR loss compares the true class's logit with three others."""
IN_PLACE_OF = {"apgd-t": "margin", "fab-t": "fab"}
"""Replacements for fewer classes: 100 steps on the margin (also scale-free) from five starts, and untargeted FAB."""
MOST_TARGETS = 9
MARGIN_STEPS, MARGIN_STARTS = 100, 5
STEPS_OF_ATTACK, QUERIES_OF_SQUARE, FORWARD = 100, 5000, 1 / 3
"""Gradient steps of APGD and FAB for each target, queries of Square, and what a query takes of a gradient step."""
ZERO_GRADIENTS = re.compile(r"there are (\d+) points with zero gradient")


@dataclass(frozen=True)
class CascadeConfig:
    """Which cascade, for models of how many classes, the seed of its random starts, and the number format."""

    classes: int
    seed: int
    cascade: str = "autoattack"
    precision: str = FLOAT32

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks in order, after the clean images."""
        return attacks_of(self.cascade, self.classes)


@dataclass(frozen=True)
class Step:
    """The result for a chunk after `attack` and the attacks before it.

    classes: the predicted class of each image, its label if it survives, -1 if a logit is NaN. warnings: what
    AutoAttack itself reports as suspicious.
    """

    attack: str
    classes: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def attacks_of(cascade: str, classes: int) -> tuple[str, ...]:
    """The attacks of a cascade for this number of classes."""
    if classes >= FEWEST_CLASSES_FOR_TARGETS:
        return CASCADES[cascade]
    return tuple(IN_PLACE_OF.get(attack, attack) for attack in CASCADES[cascade])


def gradient_steps(classes: int) -> dict[str, float]:
    """What each attack costs for an image that survives it, in gradient steps of PGD; `clean`: predicting it."""
    targets = min(MOST_TARGETS, classes - 1)
    return {
        CLEAN: FORWARD,
        "apgd-ce": STEPS_OF_ATTACK,
        "apgd-t": STEPS_OF_ATTACK * targets,
        "fab-t": STEPS_OF_ATTACK * targets,
        "square": FORWARD * QUERIES_OF_SQUARE,
        "margin": MARGIN_STEPS * MARGIN_STARTS,
        "fab": STEPS_OF_ATTACK,
    }


def replaced_attacks(classes: int) -> str:
    """Which attacks were replaced because there are too few classes, in words; empty if all run."""
    if classes >= FEWEST_CLASSES_FOR_TARGETS:
        return ""
    ran = ", ".join(attacks_of("autoattack", classes))
    return (
        f"{classes} classes are too few for the targeted attacks of AutoAttack ({', '.join(AUTOATTACK)}); "
        f"{ran} ran instead"
    )


def run_cascade(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    config: CascadeConfig,
    begun: Step | None = None,
) -> Iterator[Step]:
    """Attack images (B, C, H, W) with labels (B,); yields a step for the clean images, then one for each attack.

    `begun`: the latest step of an earlier attempt, to resume from. Adversarial images are checked to lie in the ball;
    an image whose adversarial copy does not counts as surviving.
    """
    attacks = (CLEAN, *config.attacks)
    found = labels.clone() if begun is None else torch.tensor(begun.classes, device=labels.device)
    # An attack that this cascade lacks comes from a longer one: there is nothing left to do.
    done = 0 if begun is None else attacks.index(begun.attack) + 1 if begun.attack in attacks else len(attacks)
    for attack in attacks[done:]:
        with evaluating(model), number_format(config.precision, labels.device), _warnings() as heard:
            if attack == CLEAN:
                found = _classes(model, images)
                _look_for_tricks(model, images, labels)
            elif (left := (found == labels).nonzero()[:, 0]).numel():
                attacked = _attack(attack, model, images[left], labels[left], threat, config)
                found[left] = _in_ball_classes(model, attacked, images[left], labels[left], threat)
        yield Step(attack, tuple(found.tolist()), tuple(heard))


def _attack(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, config: CascadeConfig
) -> Tensor:
    """The attacked images, (B, C, H, W). The state of the global generators is preserved."""
    if name == "margin":
        return _margin(model, images, labels, threat, config.seed)
    from pyautoattack import AutoAttack

    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    # The standard version's parameters; only the list of attacks is ours.
    adversary = AutoAttack(
        _row_major(model), device=labels.device, eps=threat.epsilon, norm=norm, seed=config.seed, version="standard"
    )
    targets = min(MOST_TARGETS, config.classes - 1)
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = targets
    devices = [labels.device] if labels.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        return _PERTURB[name](adversary, images.clone(memory_format=torch.contiguous_format), labels.clone())


class _RowMajorGradient(torch.autograd.Function):
    """The identity, whose gradient is in row-major order, whatever the memory format of the network."""

    @staticmethod
    def forward(_: Any, images: Tensor) -> Tensor:
        return images.view_as(images)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def _row_major(model: Classifier) -> Classifier:
    """The same classifier for AutoAttack, which takes views that only row-major gradients allow.

    A network with channels-last weights, like ours, gives channels-last gradients for images with several channels.
    """

    def classify(images: Tensor) -> Tensor:
        return model(_RowMajorGradient.apply(images))

    return classify


def transfer(
    model: nn.Module, baseline: nn.Module, images: Tensor, labels: Tensor, threat: Threat, config: CascadeConfig
) -> int:
    """How many of these images `model` misclassifies when they are attacked on `baseline` (APGD on cross-entropy).

    `model` classifies all of them correctly under its own attacks.
    """
    if not len(images):
        return 0
    with evaluating(model), evaluating(baseline), number_format(config.precision, labels.device), _warnings():
        attacked = _attack("worst for cross-entropy", baseline, images, labels, threat, config)
        return int((_in_ball_classes(model, attacked, images, labels, threat) != labels).sum())


def _apgd_ce(adversary: Any, images: Tensor, labels: Tensor) -> Tensor:
    adversary.apgd.loss = "ce"
    attacked: Tensor = adversary.apgd.perturb(images, labels)
    return attacked


def _worst(adversary: Any, images: Tensor, labels: Tensor) -> Tensor:
    """The images with the highest cross-entropy, whether they fool the model or not."""
    adversary.apgd.loss = "ce"
    attacked: Tensor = adversary.apgd.perturb(images, labels, best_loss=True)
    return attacked


def _apgd_t(adversary: Any, images: Tensor, labels: Tensor) -> Tensor:
    attacked: Tensor = adversary.apgd_targeted.perturb(images, labels)
    return attacked


def _fab(adversary: Any, images: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    adversary.fab.targeted = targeted
    attacked: Tensor = adversary.fab.perturb(images, labels)
    return attacked


def _square(adversary: Any, images: Tensor, labels: Tensor) -> Tensor:
    attacked: Tensor = adversary.square.perturb(images, labels)
    return attacked


_PERTURB: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "apgd-ce": _apgd_ce,
    "worst for cross-entropy": _worst,
    "apgd-t": _apgd_t,
    "fab": partial(_fab, targeted=False),
    "fab-t": partial(_fab, targeted=True),
    "square": _square,
}


def _margin(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
    attacked = images.clone()
    drawn = generator("cpu", seed, "ladder")
    config = PGDConfig(MARGIN_STEPS, threat.epsilon / 8, MARGIN_STARTS)
    noise = [uniform_noise(images.shape, threat, drawn).to(images.device) for _ in range(config.restarts)]
    predict_under_attack(model, images, labels, threat, config, [images + one for one in noise], shown=attacked)
    return attacked


@torch.no_grad()
def _classes(model: Classifier, images: Tensor) -> Tensor:
    """The class of each image, -1 if a logit is NaN."""
    logits = model(images)
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))


def _in_ball_classes(model: Classifier, attacked: Tensor, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
    """The classes of the attacked images; the label if one is not a valid image or is outside the ball."""
    change = (attacked - images).flatten(1)
    size = change.abs().amax(dim=1) if threat.norm == "linf" else torch.linalg.vector_norm(change, dim=1)
    inside = (
        (size <= threat.epsilon * (1 + 1e-4))
        & (attacked >= 0).flatten(1).all(dim=1)
        & (attacked <= 1).flatten(1).all(dim=1)
    )
    return torch.where(inside, _classes(model, attacked), labels)


def _look_for_tricks(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Run AutoAttack's checks for randomness, outputs that are not logits, and gradients computed inside the model."""
    from pyautoattack import checks

    logger = logging.getLogger(LOGGER)
    with torch.no_grad():
        checks.check_randomized(model, images, labels, bs=len(images), logger=logger)
        checks.check_range_output(model, images, logger=logger)
        # The check counts calls in a module-level table that it never resets.
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))
        checks.check_dynamic(model, images, False, logger=logger)


LOGGER = "auto-attack"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect AutoAttack's warnings inside the block, each once and without its advice; they are not printed."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words = record.getMessage().partition(" See ")[0]
            if record.levelno >= logging.WARNING and words not in heard:
                heard.append(words)

    logger, ear = logging.getLogger(LOGGER), Ear()
    before = logger.propagate
    logger.addHandler(ear)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate = before


def points_without_gradient(warnings: tuple[str, ...]) -> int:
    """How many images had no gradient of the DLR loss according to AutoAttack, the maximum over its runs."""
    return max((int(found[1]) for words in warnings if (found := ZERO_GRADIENTS.search(words))), default=0)
