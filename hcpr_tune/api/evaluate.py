"""Attack a trained model and count the images that survive, on validation or, on request, on the test images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.api.finding import find_model
from hcpr_tune.api.trust import Trust, trust_model
from hcpr_tune.common.intervals import Proportion
from hcpr_tune.common.paths import is_file
from hcpr_tune.common.text import listed
from hcpr_tune.errors import InputError
from hcpr_tune.training.attacks import evaluation
from hcpr_tune.training.attacks.cascade import CascadeConfig, replaced_attacks, run_cascade
from hcpr_tune.training.data.dataset import Split, load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.loop import torch_threads
from hcpr_tune.training.models.export import FILES, class_names, load_model
from hcpr_tune.training.plugins import guarded, only_vouched
from hcpr_tune.training.recipe import Recipe, load_recipe

ATTACKS, SPLITS = ("margin", "pgd", "autoattack"), ("validation", "test")


@dataclass(frozen=True)
class HardPair:
    """Images of the class `true` that the attack turned into `other`, out of all images of that class."""

    true: str
    other: str
    images: Proportion


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an attack on `split`: counts, the hard pairs of classes, worst first, and the attack's warnings."""

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


def evaluate(
    model: str | Path | nn.Module,
    *,
    recipe: Recipe | None = None,
    attack: str = "margin",
    split: str = "validation",
    images: int = 0,
    trust: bool = False,
) -> EvaluationResult:
    """Attack a trained model and count the images that survive.

    Args:
        model: a study by name or path, a folder with a model such as results/NAME/best, or a network from images
            (B, C, H, W) in [0, 1] to logits (B, K).
        recipe: for a network: whose task, threat model and settings for evaluation are used.
        attack: "margin" (that of the search), "pgd" (on cross-entropy) or "autoattack".
        split: "validation" or "test"; an access to the test images of a study's model is recorded in the study.
        images: only a fixed subset of so many, in equal shares per class; 0: all.
        trust: import the code that somebody else's recipe names.

    Raises `InputError` if there is no model, and for code that is not trusted.
    """
    if isinstance(model, nn.Module):
        if recipe is None:
            raise InputError("evaluate() of a network needs a recipe for its task: recipe=Recipe.load(PATH)")
        training = model.training
        try:
            return evaluate_model(model, recipe, attack, split, images)
        finally:
            model.train(training)
    with only_vouched():
        return evaluate_recorded(find_model(model), attack, split, images, Trust(trust), "evaluate()")


def evaluate_recorded(
    folder: Path, attack: str, split: str, images: int, trust: Trust, command: str
) -> EvaluationResult:
    """Evaluate the model in a folder; an access to the test images is recorded in its study, with the `command`."""
    from hcpr_tune.verdict.test_access import opened

    check_model(folder)
    trust_model(trust, folder, with_data=True)
    with opened(folder, command) if split == "test" else nullcontext() as seen:
        with guarded():  # the model may be anybody's
            result = evaluate_folder(folder, attack, split, images)
        if seen is not None:
            seen({f"{folder.name}, {result.attack}": result.robust.share})
    return result


def evaluate_folder(folder: Path, attack: str, split_name: str, images: int = 0) -> EvaluationResult:
    """Attack the model in `folder` (recipe.toml, model.safetensors, metrics.json), as `evaluate_model` does.

    Raises `InputError` if the folder holds no model, or one that was trained on other classes.
    """
    check_model(folder)
    recipe = load_recipe(folder / "recipe.toml")
    data = load_data(recipe.task)
    known = class_names(folder)
    if known and known != tuple(data.class_names):
        raise InputError(
            f"--model {folder} was trained on the classes {listed(known)}, and {recipe.task.dataset} has"
            f" {listed(data.class_names)}: its numbers would be of other classes; use the data that it was trained on,"
            f" with the same class names"
        )
    return evaluate_model(load_model(folder), recipe, attack, split_name, images)


def evaluate_model(model: nn.Module, recipe: Recipe, attack: str, split_name: str, images: int = 0) -> EvaluationResult:
    """Attack a model that maps images (B, C, H, W) in [0, 1] to logits (B, K), in the ball of the recipe's task.

    `attack`: margin, pgd or autoattack, with the recipe's settings for evaluation. `images` limits it to a fixed subset
    in equal shares per class; 0: all of the split.
    """
    if attack not in ATTACKS or split_name not in SPLITS:
        raise InputError(
            f"attack must be one of {', '.join(ATTACKS)} and split one of {', '.join(SPLITS)}, got {attack} and"
            f" {split_name}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    data = load_data(recipe.task, device=device)
    split = open_test(recipe.task, device) if split_name == "test" else data.validation
    settings = replace(recipe.evaluation, images=images)
    with torch_threads(recipe.threads):
        if attack == "autoattack":
            return auto_attack(
                model, recipe, split, split_name, evaluation.scored_positions(split, settings), data.class_names
            )
        objective = {"margin": "margin", "pgd": "cross_entropy"}[attack]
        found = evaluation.evaluate(model, split, recipe.task, settings, data.classes, objective)
    pairs = hard_pairs(found.pairs, found.class_totals, data.class_names)
    clean, robust = Proportion(found.clean_correct, found.total), Proportion(found.robust_correct, found.total)
    return EvaluationResult(split_name, f"{attack}-{settings.steps}", clean, robust, pairs, ())


def check_model(folder: Path) -> None:
    """Raises `InputError` if the folder holds no model."""
    for name in FILES:
        if not is_file(folder / name, f"--model {folder}"):
            raise InputError(f"--model {folder} holds no {name}; give a folder such as results/NAME/best")


def auto_attack(
    model: nn.Module, recipe: Recipe, split: Split, split_name: str, positions: Tensor, names: tuple[str, ...]
) -> EvaluationResult:
    """Standard AutoAttack (Croce and Hein, ICML 2020): APGD on cross-entropy and targeted DLR, targeted FAB, Square."""
    classes, total = len(names), len(positions)
    labels, clean, attacked, heard = [], [], [], dict.fromkeys(filter(None, [replaced_attacks(classes)]))
    config = CascadeConfig(classes, recipe.evaluation.seed, precision=recipe.evaluation.precision)
    for chosen in positions.split(recipe.evaluation.batch_size):
        images, of = split.fetch(chosen), split.labels[chosen.to(split.labels.device)]
        steps = list(run_cascade(model, images, of, recipe.task.threat, config))
        labels.append(of.cpu())
        clean.append(torch.tensor(steps[0].classes))
        attacked.append(torch.tensor(steps[-1].classes))
        heard |= dict.fromkeys(words for step in steps for words in step.warnings)
    right, found, broken = torch.cat(labels), torch.cat(clean), torch.cat(attacked)
    return EvaluationResult(
        split_name,
        "autoattack",
        Proportion(int((found == right).sum()), total),
        Proportion(int((broken == right).sum()), total),
        hard_pairs(count_pairs(right, broken), right.bincount(minlength=classes).tolist(), names),
        tuple(heard),
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
