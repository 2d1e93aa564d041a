"""The cost of a recipe on this machine, measured by real training steps and a real evaluation in limited time."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hcpr_tune.training.attacks.evaluation import evaluate, scored_positions
from hcpr_tune.training.data.dataset import Data
from hcpr_tune.training.loop import (
    EpochSettings,
    attack,
    epoch_batches,
    initial_state,
    number_formats,
    torch_threads,
    update,
)
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.models.folding import fuse_conv_bn
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.training.seeds import generator
from hcpr_tune.training.session import DataShelf


@dataclass(frozen=True)
class Probe:
    """Seconds for one epoch, extrapolated from `steps` optimiser steps: per attack step, updates, one evaluation."""

    steps: int
    steps_per_epoch: int
    seconds_per_attack_step: float
    seconds_update: float
    seconds_evaluation: float
    seconds_startup: float
    checkpoint_bytes: int
    validation_images: int
    classes: int
    robust_accuracy_validation: float
    """After these steps, from 0 to 1, on as many images as time allowed."""

    def epoch_seconds(self, attack_steps: int) -> float:
        """Seconds for attack and update in one epoch."""
        return self.seconds_per_attack_step * attack_steps + self.seconds_update


MOST_EPOCHS = 2
SHARE_OF_EVALUATION = 0.25


def probe(recipe: Recipe, shelf: DataShelf, seconds: float) -> Probe:
    """Train for at most `seconds` and two epochs, but at least one step; a quarter of the time is for evaluation."""
    began = time.perf_counter()
    data = shelf.get(recipe.task)
    device = data.train.labels.device
    method, now = method_of(recipe), EpochSettings.of(recipe, 1)
    spent = [0.0, 0.0]
    steps = 0
    with torch_threads(recipe.threads), number_formats(recipe, device):
        state = initial_state(recipe, data)
        noise = generator(device, recipe.seed, "attack noise", 1)
        startup = time.perf_counter() - began
        latest = began + seconds * (1 - SHARE_OF_EVALUATION)
        for images, labels in _batches(recipe, data):
            marks = [_now(device)]
            adversarial = attack(recipe, method, state, images, labels, now.attack_steps, noise)
            marks.append(_now(device))
            update(recipe, method, state, images, adversarial, labels, now)
            marks.append(_now(device))
            # The first step includes warm-up; it counts only if it is the only one.
            if steps == 1:
                spent = [0.0, 0.0]
            spent[0] += marks[1] - marks[0]
            spent[1] += marks[2] - marks[1]
            steps += 1
            if marks[2] + (marks[2] - marks[0]) > latest:
                break
        evaluation, accuracy = _evaluated(recipe, data, state.scored_model(), began + seconds)
    counted = max(1, steps - 1)
    per_epoch = len(data.train) / recipe.batch_size
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    return Probe(
        steps=steps,
        steps_per_epoch=round(per_epoch),
        seconds_per_attack_step=spent[0] / counted / now.attack_steps * per_epoch,
        seconds_update=spent[1] / counted * per_epoch,
        seconds_evaluation=evaluation,
        seconds_startup=startup,
        checkpoint_bytes=buffer.tell(),
        validation_images=len(scored_positions(data.validation, recipe.evaluation)),
        classes=data.classes,
        robust_accuracy_validation=accuracy,
    )


def _batches(recipe: Recipe, data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in range(1, MOST_EPOCHS + 1):
        yield from epoch_batches(recipe, data, epoch)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _evaluated(recipe: Recipe, data: Data, model: torch.nn.Module, latest: float) -> tuple[float, float]:
    """Seconds to evaluate all scored images, and robust accuracy; measured on growing subsets while time allows."""
    validation = data.validation
    total = len(scored_positions(validation, recipe.evaluation))
    attacked = fuse_conv_bn(model)
    images = min(total, 32)
    while True:
        began = _now(validation.labels.device)
        found = evaluate(attacked, validation, recipe.task, replace(recipe.evaluation, images=images), data.classes)
        ended = _now(validation.labels.device)
        if images == total or ended + 4 * (ended - began) > latest:
            return (ended - began) * total / images, found.robust_correct / found.total
        images = min(total, 4 * images)
