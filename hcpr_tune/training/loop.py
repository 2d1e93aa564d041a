"""The training loop: a generator of epochs. Stopping, pausing and saving are up to the caller."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.errors import Diverged, InputError
from hcpr_tune.training.attacks.evaluation import Accuracies, Masking, evaluate, masking
from hcpr_tune.training.attacks.inner import InnerMaximisation
from hcpr_tune.training.attacks.pgd import Classifier
from hcpr_tune.training.data.dataset import Data, batches
from hcpr_tune.training.formats import convolution_choice, format_of, forward_in, number_format
from hcpr_tune.training.methods.method import Method, method_of
from hcpr_tune.training.methods.schedules import at_epoch, attack_steps, learning_rate
from hcpr_tune.training.methods.weight_perturbation import perturbed
from hcpr_tune.training.models.averaging import Averaged
from hcpr_tune.training.models.classifier import build_model, normalise_head
from hcpr_tune.training.models.folding import fuse_conv_bn
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.training.seeds import generator


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch. Losses are means over the training images; times are in seconds.

    `validation` is None in epochs that the recipe's evaluation period skips, `masking` in all but the last one.
    """

    epoch: int
    is_rung: bool
    loss: float
    classification_loss: float
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
    masking: Masking | None


@dataclass
class TrainingState:
    """Everything a training carries from one epoch to the next. Random draws are derived from the seed and the epoch,
    so there is no generator state."""

    model: nn.Module
    optimiser: torch.optim.SGD
    averaged: Averaged | None
    epoch: int
    compiled: Classifier | None = None
    """The compiled model, if the recipe asks for one; it shares the model's weights."""
    attacker: InnerMaximisation | None = None
    """Made at the first attack; it holds the CUDA graph."""
    class_names: tuple[str, ...] = ()
    """Of the model's outputs, in order: kept with the state, so that it is not trained on with other classes."""

    def scored_model(self) -> nn.Module:
        """The model that is evaluated and saved: the averaged one if averaging is on."""
        return self.model if self.averaged is None else self.averaged.model()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, for `torch.load(weights_only=True)`."""
        averaged = {} if self.averaged is None else {"averaged": self.averaged.state_dict()}
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "class_names": list(self.class_names),
            **averaged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.epoch = int(state["epoch"])


def initial_state(recipe: Recipe, data: Data) -> TrainingState:
    """The state before the first epoch, on the data's device."""
    seed = derive_seed(recipe.seed, "weights")
    model = build_model(recipe.network, data.channels, data.classes, seed, data.image_size)
    model.to(data.train.labels.device)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.optimiser.lr,
        momentum=recipe.optimiser.momentum,
        nesterov=recipe.optimiser.nesterov,
        weight_decay=recipe.optimiser.weight_decay,
    )
    averaged = None
    if recipe.averaging.half_life:
        averaged = Averaged(model, recipe.averaging.half_life, math.ceil(len(data.train) / recipe.batch_size))
    compiled = compile_model(model, recipe.threads) if recipe.compile else None
    return TrainingState(model, optimiser, averaged, epoch=0, compiled=compiled, class_names=data.class_names)


COMPILERS = ("c++", "g++", "clang++", "gcc", "clang", "cl")


def compile_model(model: nn.Module, threads: int) -> Classifier:
    """The compiled model, which is compiled when it is first called, by as many processes as it has threads.

    Raises `InputError` if there is no C++ compiler, which torch would say in pages, and not before the first batch.
    """
    named = [name for name in (os.environ.get("CXX"), os.environ.get("CC")) if name]
    if not any(shutil.which(name) for name in (*named, *COMPILERS)):
        raise InputError(
            f"compile = true needs a C++ compiler, and {platform.node()} has none of {', '.join(COMPILERS)}; install"
            " one, name it in CXX, or set compile = false"
        )
    from torch._inductor import config

    config.compile_threads = threads  # by default up to 32 processes for each worker
    compiled: Classifier = torch.compile(model, dynamic=False)
    return compiled


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set Torch's thread count inside the block: another count rounds differently and gives another model."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PhaseClock:
    """Seconds per phase, measured without synchronising in between: CUDA events are read once, at the end."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """Begin `phase`; it lasts until the next mark."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((phase, event))
        else:
            self._marks.append((phase, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds per phase; the last mark only ends the previous phase."""
        if self._cuda:
            torch.cuda.synchronize()
        totals: dict[str, float] = {}
        for (phase, began), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            spent = began.elapsed_time(ended) / 1000 if self._cuda else ended - began
            totals[phase] = totals.get(phase, 0.0) + spent
        return totals


def train(recipe: Recipe, data: Data, state: TrainingState) -> Iterator[Epoch]:
    """Train from `state.epoch` to the recipe's last or stop epoch, in place; yields an `Epoch` after each epoch.

    Raises `Diverged` if a loss or a weight is not finite.
    """
    while state.epoch < recipe.last_epoch:
        with torch_threads(recipe.threads), number_formats(recipe, data.train.labels.device):
            measured = train_epoch(recipe, data, state, state.epoch + 1)
        yield measured


@contextmanager
def number_formats(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Torch's switches for the recipe's training on a device, inside the block."""
    with number_format(format_of(recipe.precision, device), device), convolution_choice(recipe.deterministic):
        yield


@dataclass(frozen=True)
class EpochSettings:
    """The recipe's schedules at one epoch."""

    lr: float
    pace: float
    consistency_factor: float
    attack_steps: int
    perturbation: float

    @classmethod
    def of(cls, recipe: Recipe, epoch: int) -> EpochSettings:
        perturbation = recipe.weight_perturbation
        return cls(
            lr=learning_rate(recipe, epoch),
            pace=at_epoch(recipe, recipe.pace, epoch),
            consistency_factor=at_epoch(recipe, recipe.consistency, epoch),
            attack_steps=attack_steps(recipe, epoch),
            perturbation=perturbation.gamma if epoch >= perturbation.from_epoch else 0.0,
        )


def train_epoch(recipe: Recipe, data: Data, state: TrainingState, epoch: int) -> Epoch:
    """Train `state` for one epoch and evaluate it on validation if the recipe says so."""
    device = data.train.labels.device
    now, method = EpochSettings.of(recipe, epoch), method_of(recipe)
    for group in state.optimiser.param_groups:
        group["lr"] = now.lr
    if recipe.returns_at(epoch):
        return_to_full_rate(recipe, state)
    noise = generator(device, recipe.seed, "attack noise", epoch)
    clock, seen = PhaseClock(device), 0
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    clock.mark("data")
    for images, labels in epoch_batches(recipe, data, epoch):
        clock.mark("attack")
        adversarial = attack(recipe, method, state, images, labels, now.attack_steps, noise)
        clock.mark("update")
        # Stays on the device: reading it here would make the host wait for every step.
        sums += update(recipe, method, state, images, adversarial, labels, now) * len(images)
        seen += len(images)
        clock.mark("data")
    clock.mark("evaluation")
    weights_finite = torch.stack([parameter.isfinite().all() for parameter in state.model.parameters()]).all()
    classification_loss, consistency_loss = (sums / seen).tolist()
    if not (math.isfinite(classification_loss) and math.isfinite(consistency_loss)):
        raise Diverged(
            f"the loss is not finite in epoch {epoch} (accuracy {classification_loss}, consistency {consistency_loss})"
        )
    if not weights_finite:
        raise Diverged(f"a weight is not finite after epoch {epoch}")
    state.epoch = epoch
    validation, alarm = measure(recipe, data, state)
    clock.mark("end")
    seconds = clock.seconds()
    return Epoch(
        epoch=epoch,
        is_rung=epoch in recipe.rung_epochs,
        loss=classification_loss + now.consistency_factor * consistency_loss,
        classification_loss=classification_loss,
        consistency_loss=consistency_loss,
        lr=now.lr,
        pace=now.pace,
        consistency_factor=now.consistency_factor,
        attack_steps=now.attack_steps,
        images=seen,
        seconds_attack=seconds["attack"],
        seconds_update=seconds["update"] + seconds["data"],
        seconds_evaluation=seconds["evaluation"],
        validation=validation,
        masking=alarm,
    )


def return_to_full_rate(recipe: Recipe, state: TrainingState) -> None:
    """Reset momentum and averaged weights, if the recipe says so, when an annealed learning rate returns to full."""
    if recipe.lr_schedule.momentum_at_return == "reset":
        state.optimiser.state.clear()
    if recipe.averaging.at_return == "reset" and state.averaged is not None:
        state.averaged.restart()


def epoch_batches(recipe: Recipe, data: Data, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training images, in the order and with the augmentation of `epoch`."""
    order = generator("cpu", recipe.seed, "order", epoch)
    drawn = generator("cpu", recipe.seed, "augmentation", epoch)
    return batches(data.train, recipe.batch_size, order, recipe.augmentation, drawn)


def measure(recipe: Recipe, data: Data, state: TrainingState) -> tuple[Accuracies | None, Masking | None]:
    """Evaluate the scored model on validation; check for masked gradients after the last epoch."""
    if state.epoch not in recipe.rung_epochs and state.epoch % recipe.evaluation.period:
        return None, None
    model = fuse_conv_bn(state.scored_model())
    settings = recipe.evaluation if state.epoch == recipe.epochs else replace(recipe.evaluation, targets=0, radii=())
    validation = evaluate(model, data.validation, recipe.task, settings, data.classes)
    last = state.epoch == recipe.last_epoch
    return validation, masking(model, data.validation, recipe.task, recipe.evaluation) if last else None


def attack(
    recipe: Recipe,
    method: Method,
    state: TrainingState,
    images: Tensor,
    labels: Tensor,
    steps: int,
    noise: torch.Generator,
) -> Tensor:
    """Adversarial copies of `images` (see `InnerMaximisation`)."""
    if state.attacker is None or state.attacker.recipe is not recipe:
        state.attacker = InnerMaximisation(recipe, method, state.model, state.compiled)
    return state.attacker(images, labels, steps, noise)


def update(
    recipe: Recipe,
    method: Method,
    state: TrainingState,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    now: EpochSettings,
) -> Tensor:
    """One optimiser step on L = accuracy + factor * consistency; returns the two batch means before it, (2,).

    Two forward passes in train mode, natural images first: batch normalisation sees the two batches separately, in that
    order.
    """
    model = state.model
    model.train()
    # A last, shorter batch would be compiled once more.
    compiled = state.compiled if len(images) == recipe.batch_size else None
    forward = forward_in(format_of(recipe.precision, images.device), model if compiled is None else compiled)

    def means() -> tuple[Tensor, Tensor]:
        natural = forward(images) if method.spec.uses_natural else None
        terms = method.terms(natural, forward(adversarial), labels, now.pace)
        return terms.classification.mean(), terms.consistency.mean()

    def loss() -> Tensor:
        accuracy, consistency = means()
        return accuracy + now.consistency_factor * consistency

    state.optimiser.zero_grad(set_to_none=True)
    with perturbed(model, loss, now.perturbation) if now.perturbation else nullcontext():
        accuracy, consistency = means()
        (accuracy + now.consistency_factor * consistency).backward()
    if recipe.optimiser.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
    state.optimiser.step()
    normalise_head(model)
    if state.averaged is not None:
        state.averaged.update(model)
    return torch.stack((accuracy, consistency)).detach()
