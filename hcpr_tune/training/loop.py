"""The training loop: a generator of epochs. Stopping, pausing and saving are the caller's business."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.errors import Diverged
from hcpr_tune.seeds import derive_seed
from hcpr_tune.training.attacks import evaluating, maximise
from hcpr_tune.training.data import Data, batches
from hcpr_tune.training.evaluation import Accuracies, evaluate
from hcpr_tune.training.losses import pair_consistency, self_paced_accuracy
from hcpr_tune.training.models import build_model, project
from hcpr_tune.training.pacing import at_epoch, attack_steps, learning_rate
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.training.seeds import generator


@dataclass(frozen=True)
class Epoch:
    """What was measured in one epoch. Losses are means over the training images; times are in seconds.

    `validation` is None where the recipe's evaluation period skips the epoch.
    """

    epoch: int
    is_rung: bool
    loss: float
    accuracy_loss: float
    consistency_loss: float
    lr: float
    pace: float
    consistency_factor: float
    attack_steps: int
    images: int
    seconds_attack: float
    seconds_update: float
    seconds_evaluation: float
    validation: Accuracies | None


@dataclass
class TrainingState:
    """All that a training carries from one epoch to the next. Its random draws are derived, so no generator is here."""

    model: nn.Module
    optimiser: torch.optim.SGD
    epoch: int

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, for `torch.load(weights_only=True)`."""
        return {"epoch": self.epoch, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch = int(state["epoch"])


def initial_state(recipe: Recipe, data: Data) -> TrainingState:
    """The state before the first epoch, on the device where the data are."""
    model = build_model(recipe.model, data.channels, data.classes, derive_seed(recipe.seed, "weights"))
    model.to(data.train.images.device)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.optimiser.lr,
        momentum=recipe.optimiser.momentum,
        weight_decay=recipe.optimiser.weight_decay,
    )
    return TrainingState(model, optimiser, epoch=0)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch's threads set to `count`, and back again: another number gives other roundings, hence another model."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PhaseClock:
    """Seconds spent per phase without waiting for a GPU in between: on CUDA its events are read once, at the end."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """What follows belongs to `phase`, until the next mark."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((phase, event))
        else:
            self._marks.append((phase, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds per phase; the last mark only ends the one before it."""
        if self._cuda:
            torch.cuda.synchronize()
        totals: dict[str, float] = {}
        for (phase, began), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            spent = began.elapsed_time(ended) / 1000 if self._cuda else ended - began
            totals[phase] = totals.get(phase, 0.0) + spent
        return totals


def train(recipe: Recipe, data: Data, state: TrainingState) -> Iterator[Epoch]:
    """Train from `state.epoch` to the recipe's last epoch, one `Epoch` at a time; `state` is moved along in place.

    Raises `Diverged` where a loss or a weight is no finite number.
    """
    while state.epoch < recipe.epochs:
        with torch_threads(recipe.threads):
            measured = train_epoch(recipe, data, state, state.epoch + 1)
        yield measured


def train_epoch(recipe: Recipe, data: Data, state: TrainingState, epoch: int) -> Epoch:
    """Train `state` through one epoch and evaluate it on validation where the recipe says so."""
    device = data.train.images.device
    lr, pace = learning_rate(recipe, epoch), at_epoch(recipe, recipe.pace, epoch)
    factor, steps = at_epoch(recipe, recipe.consistency, epoch), attack_steps(recipe, epoch)
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    noise = generator(device, recipe.seed, "attack noise", epoch)
    clock, seen = PhaseClock(device), 0
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for images, labels in batches(data.train, recipe.batch_size, generator("cpu", recipe.seed, "order", epoch)):
        clock.mark("attack")
        adversarial = attack(recipe, state.model, images, steps, noise)
        clock.mark("update")
        accuracy, consistency = update(recipe, state, images, adversarial, labels, pace, factor)
        # Stays on the device: reading it here would make the host wait for every step.
        sums += torch.stack((accuracy, consistency)).detach() * len(images)
        seen += len(images)
    clock.mark("evaluation")
    weights_finite = torch.stack([parameter.isfinite().all() for parameter in state.model.parameters()]).all()
    accuracy_loss, consistency_loss = (sums / seen).tolist()
    if not (math.isfinite(accuracy_loss) and math.isfinite(consistency_loss)):
        raise Diverged(
            f"the loss is not finite in epoch {epoch} (accuracy {accuracy_loss}, consistency {consistency_loss})"
        )
    if not weights_finite:
        raise Diverged(f"a weight is not finite after epoch {epoch}")
    state.epoch = epoch
    is_rung = epoch in recipe.rung_epochs
    validation = None
    if is_rung or epoch % recipe.evaluation.period == 0:
        validation = evaluate(state.model, data.validation, recipe.task.epsilon, recipe.evaluation)
    clock.mark("end")
    seconds = clock.seconds()
    return Epoch(
        epoch=epoch,
        is_rung=is_rung,
        loss=accuracy_loss + factor * consistency_loss,
        accuracy_loss=accuracy_loss,
        consistency_loss=consistency_loss,
        lr=lr,
        pace=pace,
        consistency_factor=factor,
        attack_steps=steps,
        images=seen,
        seconds_attack=seconds["attack"],
        seconds_update=seconds["update"],
        seconds_evaluation=seconds["evaluation"],
        validation=validation,
    )


def attack(recipe: Recipe, model: nn.Module, images: Tensor, steps: int, noise: torch.Generator) -> Tensor:
    """Attacked copies of `images` that maximise the pair consistency, from a start at normal noise.

    The natural logits do not change during the attack: they are computed once, without a graph, in eval mode.
    """
    settings, hcpr = recipe.attack, recipe.hcpr
    with evaluating(model), torch.no_grad():
        natural = model(images)
    start = torch.randn(images.shape, generator=noise, device=images.device, dtype=images.dtype)
    return maximise(
        model,
        images,
        lambda logits: pair_consistency(natural, logits, hcpr.scale, hcpr.kl_weight, hcpr.square_weight),
        epsilon=settings.epsilon,
        steps=steps,
        step_size=settings.step_size,
        start=images + settings.initial_noise * start,
    )


def update(
    recipe: Recipe,
    state: TrainingState,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    pace: float,
    consistency_factor: float,
) -> tuple[Tensor, Tensor]:
    """One optimiser step on L = accuracy + factor * consistency; returns the two batch means before it.

    Two forwards in train mode, natural images first: batch normalisation sees the two batches apart, in that order.
    """
    hcpr, model = recipe.hcpr, state.model
    model.train()
    natural_logits, adversarial_logits = model(images), model(adversarial)
    accuracy = self_paced_accuracy(natural_logits, labels, hcpr.scale, hcpr.margin, pace).mean()
    consistency = pair_consistency(
        natural_logits, adversarial_logits, hcpr.scale, hcpr.kl_weight, hcpr.square_weight
    ).mean()
    state.optimiser.zero_grad(set_to_none=True)
    (accuracy + consistency_factor * consistency).backward()
    state.optimiser.step()
    project(model)
    return accuracy, consistency
