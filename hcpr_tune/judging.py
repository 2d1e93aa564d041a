"""Attack a trained model and count what survives, on validation or, when asked for, on the test images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.errors import InputError
from hcpr_tune.proportions import Proportion
from hcpr_tune.training.data import Split, load_data
from hcpr_tune.training.evaluation import evaluate, scored_positions
from hcpr_tune.training.export import load_model
from hcpr_tune.training.heldout import open_test
from hcpr_tune.training.loop import torch_threads
from hcpr_tune.training.recipe import Recipe, load_recipe

ATTACKS = ("margin", "pgd", "autoattack")
SPLITS = ("validation", "test")
FEWEST_CLASSES_FOR_TARGETS = 4
"""The targeted DLR loss compares the right logit with three others."""


@dataclass(frozen=True)
class HardPair:
    """Images of the class `true` that the attack turned into `other`, out of all images of that class."""

    true: str
    other: str
    images: Proportion


@dataclass(frozen=True)
class Judgement:
    """What survived: counts of `split`, the pairs that the attack turned into each other, worst first, and its warnings."""

    split: str
    attack: str
    clean: Proportion
    robust: Proportion
    pairs: tuple[HardPair, ...]
    warnings: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "attack": self.attack,
            f"clean_accuracy_{self.split}": self.clean.to_plain(),
            f"robust_accuracy_{self.split}": self.robust.to_plain(),
            "hard_pairs": [{"true": one.true, "taken_for": one.other, **one.images.to_plain()} for one in self.pairs],
            "warnings": list(self.warnings),
        }


def judge(folder: Path, attack: str, split_name: str, images: int = 0) -> Judgement:
    """Attack the model in `folder` (recipe.toml, model.safetensors, metrics.json) in its task's ball.

    `images` limits the attack to a fixed subset in equal shares per class; 0: all of the split. Raises `InputError` where the folder
    holds no model.
    """
    recipe_file = folder / "recipe.toml"
    if not recipe_file.is_file():
        raise InputError(f"--model {folder} holds no recipe.toml; give a folder such as results/NAME/best")
    recipe = load_recipe(recipe_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(folder, str(device))
    data = load_data(recipe.task)
    split = (open_test(recipe.task) if split_name == "test" else data.validation).to(device)
    settings = replace(recipe.evaluation, images=images)
    with torch_threads(recipe.threads):
        if attack == "autoattack":
            return auto_attack(model, recipe, split, split_name, scored_positions(split, settings), data.class_names)
        objective = {"margin": "margin", "pgd": "cross_entropy"}[attack]
        found = evaluate(model, split, recipe.task, settings, data.classes, objective)
    pairs = hard_pairs(found.pairs, found.class_totals, data.class_names)
    clean, robust = Proportion(found.clean_correct, found.total), Proportion(found.robust_correct, found.total)
    return Judgement(split_name, f"{attack}-{settings.steps}", clean, robust, pairs, ())


def auto_attack(
    model: nn.Module, recipe: Recipe, split: Split, split_name: str, positions: Tensor, names: tuple[str, ...]
) -> Judgement:
    """Standard AutoAttack (Croce and Hein, ICML 2020): APGD on cross-entropy and targeted DLR, targeted FAB, Square."""
    from pyautoattack import AutoAttack

    task, notes, classes = recipe.task, [], len(names)
    images, labels = split.fetch(positions), split.labels[positions.to(split.labels.device)]
    norm = {"linf": "Linf", "l2": "L2"}[task.norm]
    common = {"device": str(labels.device), "eps": task.epsilon, "norm": norm, "seed": recipe.evaluation.seed}
    if classes < FEWEST_CLASSES_FOR_TARGETS:
        notes.append(
            f"{classes} classes are too few for the targeted attacks; untargeted APGD on cross-entropy, FAB and Square ran"
        )
        adversary = AutoAttack(model, attacks=["apgd-ce", "fab", "square"], version="custom", **common)
    else:
        adversary = AutoAttack(model, version="standard", **common)
    with warnings_of("auto-attack") as heard:
        attacked, _ = adversary.run_standard_evaluation(images, labels, batch_size=recipe.evaluation.batch_size)
    with torch.no_grad():
        clean, classes_under_attack = model(images).argmax(dim=1), model(attacked).argmax(dim=1)
    total = len(labels)
    return Judgement(
        split_name,
        "autoattack",
        Proportion(int((clean == labels).sum()), total),
        Proportion(int((classes_under_attack == labels).sum()), total),
        hard_pairs(count_pairs(labels, classes_under_attack), labels.bincount(minlength=classes).tolist(), names),
        (*notes, *heard),
    )


def hard_pairs(
    counts: Iterable[tuple[int, int, int]], totals: Sequence[int], names: Sequence[str]
) -> tuple[HardPair, ...]:
    """Counted pairs by name, the one with the largest share of its class first."""
    pairs = [
        HardPair(names[true], names[other] if other >= 0 else "no number", Proportion(count, totals[true]))
        for true, other, count in counts
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.images.share))


def count_pairs(labels: Tensor, attacked: Tensor) -> tuple[tuple[int, int, int], ...]:
    """(true class, class under attack, number of images) for each pair that occurs and differs."""
    wrong = labels != attacked
    pairs, counts = torch.stack((labels[wrong], attacked[wrong]), dim=1).unique(dim=0, return_counts=True)
    return tuple(
        (int(true), int(other), int(count))
        for (true, other), count in zip(pairs.tolist(), counts.tolist(), strict=True)
    )


@contextmanager
def warnings_of(logger_name: str) -> Iterator[list[str]]:
    """The warnings that a logger gives inside the block, which then do not reach the terminal."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(record.getMessage())

    logger, ear = logging.getLogger(logger_name), Ear()
    before = logger.propagate, logger.level
    logger.addHandler(ear)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate, logger.level = before
