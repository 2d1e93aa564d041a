"""The recipe: every number that changes a trained model, in one frozen record.

The defaults are the published recipe of self-paced hard-class pair reweighting (SPAT, AAAI-23) for CIFAR-10; a search space
states what its task changes. A recipe written to a file and read back trains the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hcpr_tune.errors import InputError
from hcpr_tune.settings import Settings, read, read_toml, setting, to_plain

DATASETS = ("digits",)
MODELS = ("small_cnn",)
SHAPES = ("constant", "linear", "cosine")
SPANS = ("trial", "stretch")
LR_MODES = ("single", "annealed")
LR_SHAPES = ("steps", "cosine")


@dataclass(frozen=True)
class Task(Settings):
    """What is classified and which attacks must be survived; recipes of one task can be compared."""

    dataset: str = setting("digits", "The images.", choices=DATASETS)
    split_seed: int = setting(
        0, "Draws the train, validation and test split; apart from the training seed.", at_least=0
    )
    validation_fraction: float = setting(0.2, "Share of all images held out for validation.", above=0, below=1)
    test_fraction: float = setting(0.2, "Share of all images held out for the test.", above=0, below=1)
    epsilon: float = setting(8 / 255, "L-inf radius that is judged, for images in [0, 1].", above=0, at_most=1)

    def check_together(self) -> None:
        held_out = self.validation_fraction + self.test_fraction
        if held_out >= 1:
            raise InputError(
                f"validation_fraction plus test_fraction must be below 1, got {held_out:g}; lower one to leave images to train on"
            )


@dataclass(frozen=True)
class Model(Settings):
    """The network. It takes images in [0, 1] and gives cosine logits."""

    name: str = setting("small_cnn", "The architecture.", choices=MODELS)
    width: int = setting(
        16, "Channels of the first convolution; later ones are multiples of it.", at_least=1, at_most=1024
    )
    head_bias: bool = setting(True, "Whether the cosine head adds a bias per class, as the published code does.")


@dataclass(frozen=True)
class Schedule(Settings):
    """A value that moves from `start` to `end` over the first `ramp` fraction of the epochs that it spans."""

    start: float = setting(1.0, "Value at the first epoch.", at_least=0)
    end: float = setting(1.0, "Value from the last epoch of the ramp on.", at_least=0)
    ramp: float = setting(0.0, "Fraction of the span's epochs that the ramp takes.", at_least=0, at_most=1)
    shape: str = setting("constant", "How it moves; constant means `end` from the first epoch on.", choices=SHAPES)
    over: str = setting("trial", "The span: the whole trial, or each stretch between two rungs anew.", choices=SPANS)

    @classmethod
    def from_plain(cls, value: float) -> Schedule:
        """A bare number in a file stands for that constant."""
        return cls(start=value, end=value)


@dataclass(frozen=True)
class Hcpr(Settings):
    """Coefficients of the HCPR losses (notation of the paper: s, m, beta * n, beta)."""

    scale: float = setting(8.0, "Scale s of the cosine logits.", above=0, at_most=1000)
    margin: float = setting(0.2, "Margin m of the pair factors.", at_least=0, at_most=2)
    kl_weight: float = setting(1.2, "Weight of KL(natural || adversarial); beta * n in the paper.", at_least=0)
    square_weight: float = setting(6.0, "Weight of the sum of squared KL terms; beta in the paper.", at_least=0)

    def check_together(self) -> None:
        if self.kl_weight == 0 and self.square_weight == 0:
            raise InputError(
                "kl_weight and square_weight must not both be 0: the attack would have no loss; raise one of them"
            )


@dataclass(frozen=True)
class Attack(Settings):
    """The inner maximisation of training: signed gradient ascent in an L-inf ball."""

    epsilon: float = setting(0.031, "Radius of the ball in training.", above=0, at_most=1)
    steps: Schedule = setting(Schedule(10.0, 10.0), "Steps per attack, rounded to a whole number of at least 1.")
    step_size: float = setting(0.007, "Length of one step per pixel.", above=0, at_most=1)
    initial_noise: float = setting(
        0.001, "Standard deviation of the normal noise that the ascent starts from.", at_least=0
    )

    def check_together(self) -> None:
        for steps in (self.steps.start, self.steps.end):
            if not 1 <= steps <= 1000:
                raise InputError(
                    f"steps must be at least 1 and at most 1000, got {steps:g}; 10 is the published number"
                )


@dataclass(frozen=True)
class Optimiser(Settings):
    """Stochastic gradient descent."""

    lr: float = setting(0.1, "Learning rate at the start of its schedule.", above=0, at_most=100)
    momentum: float = setting(0.9, "Momentum.", at_least=0, below=1)
    weight_decay: float = setting(2e-4, "Weight decay, on every parameter.", at_least=0, at_most=1)


@dataclass(frozen=True)
class LrSchedule(Settings):
    """How the learning rate falls. `annealed` falls within each stretch between rungs and then returns to the full rate."""

    mode: str = setting("single", "One schedule over the trial, or one over each stretch.", choices=LR_MODES)
    shape: str = setting("steps", "Steps at `milestones`, or a half cosine.", choices=LR_SHAPES)
    milestones: tuple[float, ...] = setting(
        (0.75, 0.9), "Fractions of the span at which the steps fall.", above=0, at_most=1
    )
    factor: float = setting(0.1, "What a step multiplies the rate by.", above=0, at_most=1)


@dataclass(frozen=True)
class Evaluation(Settings):
    """Robust accuracy on validation: ascent on the margin from a random start, `task.epsilon` as radius."""

    steps: int = setting(20, "Steps of the margin attack.", at_least=1, at_most=10000)
    relative_step_size: float = setting(0.125, "Length of one step as a fraction of task.epsilon.", above=0, at_most=2)
    seed: int = setting(0, "Draws the random starts, one fixed start per image.", at_least=0)
    period: int = setting(1, "Evaluate after every so many epochs, and always where a stretch ends.", at_least=1)
    batch_size: int = setting(512, "Images per batch.", at_least=1)


@dataclass(frozen=True)
class Recipe(Settings):
    """Everything that decides what model a training gives."""

    task: Task = setting(Task(), "The images and the threat.")
    model: Model = setting(Model(), "The network.")
    seed: int = setting(0, "Draws the initial weights, the order of the images and the attack's noise.", at_least=0)
    threads: int = setting(1, "Torch threads on the CPU: they are part of the result.", at_least=1, at_most=1024)
    epochs: int = setting(100, "Length of the training.", at_least=1)
    stretch_ends: tuple[int, ...] = setting(
        (), "Epochs at which stretches end before the last one: the rungs.", at_least=1
    )
    batch_size: int = setting(128, "Images per optimiser step.", at_least=2)
    hcpr: Hcpr = setting(Hcpr(), "The losses.")
    pace: Schedule = setting(Schedule(), "The self-paced schedule: how much of the reweighting is on, 0 to 1.")
    consistency: Schedule = setting(Schedule(), "Factor on both consistency weights.")
    attack: Attack = setting(Attack(), "The inner maximisation.")
    optimiser: Optimiser = setting(Optimiser(), "The optimiser.")
    lr_schedule: LrSchedule = setting(LrSchedule(), "The learning rate's schedule.")
    evaluation: Evaluation = setting(Evaluation(), "How robust accuracy is measured.")

    def check_together(self) -> None:
        if max(self.pace.start, self.pace.end) > 1:
            raise InputError(
                f"pace must be at most 1, got {max(self.pace.start, self.pace.end):g}; 1 is the published reweighting, 0 is none of it"
            )
        ends = self.stretch_ends
        if list(ends) != sorted(set(ends)) or (ends and ends[-1] > self.epochs):
            raise InputError(
                f"stretch_ends must rise and end at most at epochs = {self.epochs}, got {list(ends)}; drop the ones beyond it"
            )

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """The epochs at which a stretch ends, the last epoch included."""
        return self.stretch_ends if self.epochs in self.stretch_ends else (*self.stretch_ends, self.epochs)


def recipe_from_plain(values: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested plain values; `where` is the file that an error names."""
    return read(Recipe, values, where)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises `InputError` that names what is wrong in it."""
    return recipe_from_plain(read_toml(path), str(path))


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every field written out."""
    return tomli_w.dumps(to_plain(recipe))
