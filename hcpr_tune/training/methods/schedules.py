"""Schedules, evaluated once per epoch. Epochs are counted from 1."""

from __future__ import annotations

import math

from hcpr_tune.training.recipe import LrSchedule, Recipe, Schedule


def span(recipe: Recipe, epoch: int, over: str) -> tuple[int, int]:
    """Position of `epoch` in its span (from 1) and the span's length: the trial, or the segment that contains it."""
    if over == "trial":
        return epoch, recipe.span_epochs
    before = 0
    for end in recipe.rung_epochs:
        if epoch <= end:
            return epoch - before, end - before
        before = end
    raise ValueError(f"epoch {epoch} lies beyond the recipe's {recipe.epochs}")


def value(schedule: Schedule, position: int, length: int) -> float:
    """The schedule's value at `position` (from 1) of `length` epochs.

    The ramp takes round(ramp * length) epochs, from `start` in its first to `end` in its last. With a ramp of at most
    one epoch the value is `end` throughout.
    """
    ramp_epochs = math.floor(schedule.ramp * length + 0.5)
    if schedule.shape == "constant" or position >= ramp_epochs or ramp_epochs <= 1:
        return schedule.end
    progress = (position - 1) / (ramp_epochs - 1)
    if schedule.shape == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return schedule.start + (schedule.end - schedule.start) * progress


def at_epoch(recipe: Recipe, schedule: Schedule, epoch: int) -> float:
    """The value of one of the recipe's schedules at `epoch`."""
    return value(schedule, *span(recipe, epoch, schedule.over))


def lr_factor(schedule: LrSchedule, position: int, length: int) -> float:
    """Factor of the learning rate at `position` (from 1) of `length` epochs.

    Steps: the published code drops the rate from epoch 75 and from epoch 90 of 100 on, hence `position >= fraction *
    length`; the first epoch has the full rate however short the span is. Cosine: half a period, full at the first epoch
    and above 0 at the last. Cyclic: a linear rise to the full rate at `peak` and a linear fall to 0, evaluated at the
    middle of the epoch.
    """
    if schedule.shape == "cyclic":
        middle = (position - 0.5) / length
        return min(middle / schedule.peak, (1 - middle) / (1 - schedule.peak))
    if schedule.shape == "cosine":
        return (1 + math.cos(math.pi * (position - 1) / length)) / 2
    # The tolerance keeps 0.55 * 100 (55.00000000000001 in binary) at 55.
    passed = sum(position > 1 and position >= fraction * length - 1e-9 for fraction in schedule.milestones)
    return float(schedule.factor**passed)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate of `epoch`."""
    over = "segment" if recipe.lr_schedule.mode == "annealed" else "trial"
    return recipe.optimiser.lr * lr_factor(recipe.lr_schedule, *span(recipe, epoch, over))


def attack_steps(recipe: Recipe, epoch: int) -> int:
    """The number of steps of the inner maximisation in `epoch`."""
    return max(1, math.floor(at_epoch(recipe, recipe.attack.steps, epoch) + 0.5))
