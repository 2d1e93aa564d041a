"""The recipe: every setting that affects the trained model, in one frozen dataclass.

The defaults are the published recipe of self-paced hard-class pair reweighting (SPAT, AAAI-23) for CIFAR-10; a search
space overrides what its task needs. A recipe written to a file and read back trains the same model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from hcpr_tune.common.settings import (
    Plain,
    Settings,
    dotted_names,
    exists,
    is_text,
    read,
    read_toml,
    set_dotted,
    setting,
    show,
    to_plain,
)
from hcpr_tune.errors import InputError
from hcpr_tune.training.attacks.config import PGDConfig, Threat
from hcpr_tune.training.data.registry import DATASETS, FOLDER
from hcpr_tune.training.methods.registry import METHODS, Hcpr, Hypersphere, Mart, MethodSpec, Trades
from hcpr_tune.training.models.registry import ARCHITECTURES

HEADS = ("cosine", "linear", "auto")
NORMS = ("linf", "l2")
STARTS = ("normal", "uniform")
SHAPES = ("constant", "linear", "cosine")
SPANS = ("trial", "segment")
LR_MODES = ("single", "annealed", "restarted")
RETURNS = ("keep", "reset")
LR_SHAPES = ("steps", "cosine", "cyclic")
FLOAT32, TF32, BFLOAT16, AUTO = "float32", "tf32", "bfloat16", "auto"
PRECISIONS = (FLOAT32, TF32, BFLOAT16, AUTO)
SCORING_PRECISIONS = (FLOAT32, TF32)
"""In bfloat16 many logits are equal, and an attack's margin is often exactly 0."""

MOST_EPOCHS = 1_000_000
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""package.module:function"""


@dataclass(frozen=True)
class Task(Settings):
    """The dataset and the threat model; recipes with the same task are comparable."""

    dataset: str = setting(
        "digits",
        f"The images: {', '.join(DATASETS)}, folder:PATH, or package.module:function, called with root and train.",
        choices=(*DATASETS, ("folder:PATH", rf"{FOLDER}[\s\S]+"), ("package.module:function", FUNCTION.pattern)),
    )
    root: str = setting(
        "data", "Folder with the files of the dataset; `hcpr_tune data` fills it for those of torchvision."
    )
    images: int = setting(
        0, "Number of images of the training part to use, in equal shares per class; 0: all.", at_least=0
    )
    image_size: int = setting(
        0,
        "Side in pixels to which a folder's images are resized; 0: they must all have the same size.",
        at_least=0,
        at_most=4096,
    )
    split_seed: int = setting(
        0, "Seed of the validation split (and of the test split, where the data have none).", at_least=0
    )
    validation_fraction: float = setting(
        0.2,
        "Share of the training part held out for validation, unless a folder has its own val/.",
        above=0,
        below=1,
    )
    test_fraction: float = setting(
        0.2, "Share held out for the test, where the data have no test part.", above=0, below=1
    )
    norm: str = setting("linf", "Norm of the perturbation ball, in training and evaluation.", choices=NORMS)
    epsilon: float = setting(8 / 255, "Radius used in evaluation, for images in [0, 1].", above=0, at_most=1)

    def check_together(self) -> None:
        held_out = self.validation_fraction + self.test_fraction
        if held_out >= 1:
            raise InputError(
                f"validation_fraction plus test_fraction must be below 1, got {held_out:g}; "
                "lower one to leave images to train on"
            )

    @property
    def threat(self) -> Threat:
        """The ball of every evaluation."""
        return Threat(self.norm, self.epsilon)


@dataclass(frozen=True)
class Augmentation(Settings):
    """Random changes to the training images, drawn anew in each epoch."""

    crop_padding: int = setting(
        0,
        "Black pixels padded on each side before a random crop; the published CIFAR recipe has 4.",
        at_least=0,
        at_most=64,
    )
    flip: bool = setting(False, "Random horizontal flip; the published CIFAR recipe has it.")


@dataclass(frozen=True)
class Model(Settings):
    """The network. It takes images in [0, 1] and normalises them itself."""

    name: str = setting(
        "small_cnn",
        f"The network: {', '.join(ARCHITECTURES)}, torchvision:NAME, or package.module:name, an ArchitectureSpec or a"
        " factory, called with classes and channels.",
        choices=(
            *ARCHITECTURES,
            ("torchvision:NAME", r"torchvision:\w+"),
            ("package.module:factory", FUNCTION.pattern),
        ),
    )
    width: int = setting(
        16, "Channels of the first convolution of small_cnn; later ones are multiples of it.", at_least=1, at_most=1024
    )
    head: str = setting(
        "cosine",
        "Cosine logits with unit rows (hcpr and the hypersphere methods need them), linear logits, "
        "or auto: the head that the method was published with.",
        choices=HEADS,
    )
    head_bias: bool = setting(True, "Whether the head adds a bias per class, as the published code does.")
    mean: tuple[float, ...] = setting(
        (), "Per-channel mean, subtracted inside the model; empty: none, as published.", at_least=0, at_most=1
    )
    std: tuple[float, ...] = setting(
        (), "Per-channel standard deviation, divided by inside the model; empty: none.", above=0, at_most=1
    )

    def check_together(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std must have one value per channel each, got {len(self.mean)} and {len(self.std)}; "
                "give both or none"
            )


@dataclass(frozen=True)
class Schedule(Settings):
    """A value that moves from `start` to `end` over the first `ramp` fraction of its span."""

    start: float = setting(1.0, "Value at the first epoch.", at_least=0)
    end: float = setting(1.0, "Value from the last epoch of the ramp on.", at_least=0)
    ramp: float = setting(0.0, "Fraction of the span's epochs that the ramp takes.", at_least=0, at_most=1)
    shape: str = setting("constant", "How it moves; constant means `end` from the first epoch on.", choices=SHAPES)
    over: str = setting("trial", "The span: the whole trial, or each segment between two rungs.", choices=SPANS)

    @classmethod
    def from_plain(cls, value: float) -> Schedule:
        """A bare number in a file stands for that constant."""
        return cls(start=value, end=value)


@dataclass(frozen=True)
class Coefficients(Settings):
    """Coefficients of an own method, by name, as they are written: reading a recipe imports none of the user's code.

    Types and bounds are those of the method's `MethodSpec.coefficients`, checked when the method is imported.
    """

    values: tuple[tuple[str, Plain], ...] = setting((), "The values by name.")

    def __post_init__(self) -> None:
        """The bounds are the method's: only what no file can hold is refused here."""
        self.check_together()

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Coefficients:
        """Raises `InputError`, whose message begins with the name below the table, unless all are plain values."""
        for name, value in table.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise InputError(f"{show(name)} must be the name of a field; use letters, digits and underscores")
            if not isinstance(value, bool | int | float | str):
                raise InputError(f"{name} must be a number, a string, true or false, got {show(value)}")
        return cls(tuple(sorted(table.items())))

    def check_together(self) -> None:
        for name, value in self.values:
            if not (is_text(value) if isinstance(value, str) else exists(value)):
                raise InputError(f"{name} must be a finite number or text without null bytes, got {show(value)}")

    def plain(self) -> dict[str, Any]:
        """The values as a table."""
        return dict(self.values)


@dataclass(frozen=True)
class Attack(Settings):
    """The inner maximisation of training: PGD in a ball of the task's norm."""

    epsilon: float = setting(0.031, "Radius of the ball in training.", above=0, at_most=1)
    steps: Schedule = setting(Schedule(10.0, 10.0), "Steps per attack, rounded to a whole number of at least 1.")
    step_size: float = setting(0.007, "Step size: per pixel (L-inf), or of the whole image (L2).", above=0, at_most=1)
    start: str = setting(
        "normal",
        "Random start: normal noise (hcpr, TRADES, MART), or uniform in the ball (PGD-AT).",
        choices=STARTS,
    )
    initial_noise: float = setting(0.001, "Standard deviation of the normal noise.", at_least=0)

    def check_together(self) -> None:
        for steps in (self.steps.start, self.steps.end):
            if not 1 <= steps <= 1000:
                raise InputError(
                    f"steps must be at least 1 and at most 1000, got {steps:g}; 10 is the published number"
                )

    def pgd(self, steps: int) -> PGDConfig:
        """The attack with the schedule's number of steps."""
        return PGDConfig(steps, self.step_size, start=self.start, initial_noise=self.initial_noise)


@dataclass(frozen=True)
class Optimiser(Settings):
    """Stochastic gradient descent."""

    lr: float = setting(0.1, "Learning rate at the start of its schedule.", above=0, at_most=100)
    momentum: float = setting(0.9, "Momentum.", at_least=0, below=1)
    nesterov: bool = setting(False, "Nesterov momentum; the published code does not use it.")
    weight_decay: float = setting(2e-4, "Weight decay, on every parameter.", at_least=0, at_most=1)
    clip_norm: float = setting(0.0, "Upper bound on the gradient's L2 norm over all parameters; 0: none.", at_least=0)

    def check_together(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov needs momentum above 0, got 0.0; raise momentum or drop nesterov")


@dataclass(frozen=True)
class LrSchedule(Settings):
    """How the learning rate moves, and what a rung is.

    `single` is one schedule over the whole training, so that a rung scores a model in the middle of it. `annealed`
    anneals within each segment between rungs, and the next segment returns to the full rate. `restarted` makes each
    rung a complete training of its length: a promoted trial starts from scratch, and every schedule spans that
    training.
    """

    mode: str = setting(
        "single",
        "One schedule over the training, one over each segment between rungs, or a complete training for each rung.",
        choices=LR_MODES,
    )
    shape: str = setting(
        "steps",
        "Steps at `milestones`, a half cosine, or cyclic: a rise to the full rate and a fall to 0.",
        choices=LR_SHAPES,
    )
    milestones: tuple[float, ...] = setting(
        (0.75, 0.9), "Fractions of the span at which the steps fall.", above=0, at_most=1
    )
    factor: float = setting(0.1, "Factor that each step multiplies the rate by.", above=0, at_most=1)
    peak: float = setting(0.4, "Fraction of the span at which the cyclic rate peaks.", above=0, below=1)
    momentum_at_return: str = setting(
        "keep", "When an annealed rate returns to full: keep the momentum, or reset it.", choices=RETURNS
    )


@dataclass(frozen=True)
class Averaging(Settings):
    """Exponential moving average of the weights; if on, the averaged model is evaluated and saved."""

    half_life: float = setting(
        0.0, "Epochs after which a step's weight is halved; 0: no averaging.", at_least=0, at_most=1e6
    )
    at_return: str = setting(
        "keep", "When an annealed rate returns to full: keep the average, or reset it.", choices=RETURNS
    )


@dataclass(frozen=True)
class WeightPerturbation(Settings):
    """Adversarial weight perturbation (AWP; Wu et al., NeurIPS 2020) of all layers but a cosine head."""

    gamma: float = setting(
        0.0, "Size relative to each layer's norm; 0: none. The paper uses 0.005 with TRADES.", at_least=0, below=1
    )
    from_epoch: int = setting(1, "First epoch with perturbation.", at_least=1, at_most=MOST_EPOCHS)


@dataclass(frozen=True)
class Evaluation(Settings):
    """Robust accuracy on validation: PGD on the margin from a random start, with radius `task.epsilon`."""

    images: int = setting(
        0, "Number of validation images to use, a fixed subset in equal shares per class; 0: all.", at_least=0
    )
    steps: int = setting(20, "Steps of the margin attack.", at_least=1, at_most=10000)
    restarts: int = setting(
        1, "Random starts per image; an image is robust if it survives all.", at_least=1, at_most=1000
    )
    targets: int = setting(
        0,
        "Nearest wrong classes that the margin attack then aims at one by one, on images that survive it, after the"
        " last of `epochs` alone; 0: none. It lowers that score against those of earlier rungs.",
        at_least=0,
        at_most=1000,
    )
    radii: tuple[float, ...] = setting(
        (),
        "Further radii of the margin attack after the last of `epochs`, as multiples of task.epsilon. The mean share of"
        " survivors over these and epsilon, which has less noise than that at epsilon alone, then says which recipe is"
        " the best; robust accuracy is still that at epsilon.",
        above=0,
        at_most=10,
    )
    relative_step_size: float = setting(0.125, "Step size as a fraction of task.epsilon.", above=0, at_most=2)
    seed: int = setting(0, "Seed of the random starts: one fixed start per image and restart.", at_least=0)
    period: int = setting(1, "Epochs between evaluations; the end of a segment is always evaluated.", at_least=1)
    batch_size: int = setting(512, "Images per batch.", at_least=1, at_most=1_000_000)
    precision: str = setting(
        FLOAT32, "Number format of everything that scores a model, on a GPU.", choices=SCORING_PRECISIONS
    )
    masking_images: int = setting(
        128, "Images for the gradient masking check after the last epoch; 0: none.", at_least=0
    )

    def check_together(self) -> None:
        if list(self.radii) != sorted(set(self.radii) - {1.0}):
            raise InputError(
                f"radii must rise and leave out 1, which is epsilon itself, got {show(list(self.radii))}; for instance"
                " [0.5, 0.75, 1.25, 1.5]"
            )


@dataclass(frozen=True)
class Recipe(Settings):
    """Everything that determines the trained model."""

    task: Task = setting(Task(), "The dataset and the threat model.")
    model: Model = setting(Model(), "The network.")
    seed: int = setting(0, "Seed of the initial weights, the order of the images and the attack's noise.", at_least=0)
    threads: int = setting(1, "Torch threads on the CPU; they affect the result.", at_least=1, at_most=1024)
    epochs: int = setting(100, "Length of the training.", at_least=1, at_most=MOST_EPOCHS)
    segment_ends: tuple[int, ...] = setting(
        (), "Epochs at which segments end before the last one: the rungs.", at_least=1
    )
    stop_epoch: int = setting(
        0, "End the training at this rung, with schedules as for all epochs; 0: train to the end.", at_least=0
    )
    batch_size: int = setting(128, "Images per optimiser step.", at_least=2, at_most=1_000_000)
    label_smoothing: float = setting(
        0.0, "Share of each label spread over all classes, in every cross-entropy.", at_least=0, below=1
    )
    augmentation: Augmentation = setting(Augmentation(), "Augmentation of the training images.")
    method: str = setting(
        "hcpr",
        f"The losses of the attack and of the update: {', '.join(METHODS)}, or package.module:NAME, a MethodSpec or a"
        " loss function.",
        choices=(*METHODS, ("package.module:NAME", FUNCTION.pattern)),
    )
    coefficients: Coefficients = setting(Coefficients(), "Coefficients of your own method.")
    hcpr: Hcpr = setting(Hcpr(), "Coefficients of hcpr.")
    trades: Trades = setting(Trades(), "Coefficients of trades and hypersphere_trades.")
    mart: Mart = setting(Mart(), "Coefficients of mart.")
    hypersphere: Hypersphere = setting(Hypersphere(), "Coefficients of hypersphere_trades and hypersphere_pgd_at.")
    pace: Schedule = setting(Schedule(), "The self-paced schedule: strength of the reweighting, 0 to 1.")
    consistency: Schedule = setting(Schedule(), "Factor on both consistency weights.")
    attack: Attack = setting(Attack(), "The inner maximisation.")
    optimiser: Optimiser = setting(Optimiser(), "The optimiser.")
    lr_schedule: LrSchedule = setting(LrSchedule(), "The learning rate's schedule.")
    averaging: Averaging = setting(Averaging(), "Averaged weights.")
    weight_perturbation: WeightPerturbation = setting(WeightPerturbation(), "Adversarial weight perturbation.")
    precision: str = setting(
        AUTO,
        "Number format of the training on a GPU; on a CPU it is always float32. bfloat16: what torch's autocast runs in"
        " it, the attack's too; weights, losses, optimiser and the built-in networks' heads stay in float32. tf32:"
        " TensorFloat-32 in convolutions and matrix products. auto: bfloat16 on GPUs that have it, else float32.",
        choices=PRECISIONS,
    )
    deterministic: bool = setting(
        False,
        "On a GPU: only algorithms of cuDNN that give the same bits each time, which are slower. On a CPU all do.",
    )
    compile: bool = setting(False, "Compile the model's forward pass with torch.compile; needs a C++ compiler.")
    evaluation: Evaluation = setting(Evaluation(), "How robust accuracy is measured.")

    def check_together(self) -> None:
        if self.method in METHODS:
            self.check_head(METHODS[self.method])
        if max(self.pace.start, self.pace.end) > 1:
            raise InputError(
                f"pace must be at most 1, got {max(self.pace.start, self.pace.end):g}; "
                "1 is the published reweighting, 0 is none of it"
            )
        ends = self.segment_ends
        if list(ends) != sorted(set(ends)) or (ends and ends[-1] > self.epochs):
            raise InputError(
                f"segment_ends must rise and end at most at epochs = {self.epochs}, got {list(ends)}; "
                "drop the ones beyond it"
            )
        if self.stop_epoch and self.stop_epoch not in self.rungs:
            raise InputError(
                f"stop_epoch must be 0 or a rung, one of {list(self.rungs)}, got {self.stop_epoch}; 0 trains to the end"
            )

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file, such as results/NAME/best/recipe.toml. Raises `InputError`."""
        return load_recipe(Path(path))

    def replace(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values by dotted name, for instance {"hcpr.scale": 8, "epochs": 20}.

        Raises `InputError` for an unknown name or a value out of its bounds.
        """
        plain = to_plain(self)
        for name, value in values.items():
            set_dotted(plain, name, value)
        return recipe_from_plain(plain, "the changed recipe")

    def check_head(self, spec: MethodSpec) -> None:
        """Raises `InputError` if the recipe's method is defined on cosines and the head is linear."""
        if spec.needs_cosine_head and self.network.head == "linear":
            raise InputError(
                f'model.head must be "cosine" for method {self.method}, got {show(self.model.head)}; '
                "change one of the two"
            )

    @property
    def training_threat(self) -> Threat:
        """The ball of the attack in training, whose radius may differ from the evaluation's."""
        return Threat(self.task.norm, self.attack.epsilon)

    @property
    def last_epoch(self) -> int:
        """The epoch at which the training ends."""
        return self.stop_epoch or self.epochs

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which trials are compared, the last epoch included."""
        return self.segment_ends if self.epochs in self.segment_ends else (*self.segment_ends, self.epochs)

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """The epochs at which a segment of this training ends: its rungs, or only its end in mode `restarted`."""
        return (self.last_epoch,) if self.lr_schedule.mode == "restarted" else self.rungs

    @property
    def span_epochs(self) -> int:
        """The number of epochs that a schedule over the trial spans."""
        return self.last_epoch if self.lr_schedule.mode == "restarted" else self.epochs

    @property
    def network(self) -> Model:
        """The model with its head resolved; "auto" is linear for a method of the user's own, which is not imported."""
        if self.model.head != "auto":
            return self.model
        cosine = self.method in METHODS and METHODS[self.method].needs_cosine_head
        return replace(self.model, head="cosine" if cosine else "linear")

    def returns_at(self, epoch: int) -> bool:
        """Whether the learning rate returns to full at the start of `epoch`."""
        return self.lr_schedule.mode == "annealed" and epoch - 1 in self.rung_epochs


def recipe_from_plain(values: dict[str, Any], where: str, instead: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from nested plain values; `where` is the file to name in errors, `instead` as in `settings.read`."""
    return read(Recipe, values, where, instead=instead)


COEFFICIENT = re.compile(r"coefficients\.[A-Za-z_]\w*")
"""The dotted name of a coefficient of an own method."""


def is_field(name: str) -> bool:
    """Whether a recipe can have a field of this dotted name."""
    return name in dotted_names(Recipe) or COEFFICIENT.fullmatch(name) is not None


def fields_of(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Type and `dataclasses.Field` of all fields by dotted name; of an own method, the coefficients in the recipe."""
    own = {
        f"coefficients.{name}": (type(value), field_of_coefficient(value)) for name, value in recipe.coefficients.values
    }
    return dotted_names(Recipe) | own


def field_of_coefficient(value: Any = 0.0) -> Any:
    """What is known of a coefficient of an own method before the method is imported."""
    return setting(value, "A coefficient of your own method.")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises `InputError` naming the problem."""
    return recipe_from_plain(read_toml(path), str(path))


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every field written out."""
    return tomli_w.dumps(to_plain(recipe))
