"""How large a small verdict can be, from the speed that the machine showed in the search: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.record.history import History
from hcpr_tune.training.recipe import Recipe

TRAINING_SHARE, MORE_SEEDS_SHARE = 0.75, 0.5
"""Shares of the time: the most that training one seed may take, and the most that training several may."""
FIRST_SHARE = 0.5
"""The share of the time after the trainings in which the first chunk is attacked on all models. An error of a factor of
two in the speed then costs images, not attacks.
"""
FEWEST_IMAGES = {"autoattack": 50, "gradient": 50, "strong": 10, "first": 10}
"""The fewest images on which each cascade is begun. More images are worth more than FAB and Square, which seldom break
what the first two attacks have not.
"""
ENOUGH_IMAGES = 100
"""A further seed is worth more than images beyond these."""


@dataclass(frozen=True)
class Speed:
    """What one worker took in the search, in seconds.

    start: until a new process begins its first job; training: a recipe from its first epoch to its last; step: a step
    of an attack, whatever the batch, and `image` in addition for each image of the batch.
    """

    start: float
    training: float
    step: float
    image: float


@dataclass(frozen=True)
class Work:
    """What there is to do. images: the most that can be attacked; batch: the most at once; seeds: the most for each
    candidate; clean, robust: the shares of images that the attacks begin with and that survive; trained: whether all
    of these models exist, so that none is left out.
    """

    candidates: int
    images: float
    batch: int
    seeds: int
    classes: int
    clean: float = 1.0
    robust: float = 1.0
    trained: bool = False


@dataclass(frozen=True)
class Size:
    """Seeds for each candidate, images in a chunk, and the cascade, a name in `CASCADES`."""

    seeds: int
    chunk: int
    cascade: str


def size_verdict(speed: Speed, work: Work, workers: int, seconds: float) -> Size | str:
    """The size of a verdict that fits into `seconds`, or why there is none, in words.

    As many seeds as leave time for all attacks on enough images, else one; then the longest cascade for which there is
    time on a few images, and as many images as there is time for, in chunks.
    """
    fewer = range(work.seeds, 1, -1)
    seeds = next((count for count in fewer if work.trained or _affordable(speed, work, workers, seconds, count)), 1)
    trained = _training_seconds(speed, work, workers, seeds)
    if trained > TRAINING_SHARE * seconds:
        what = "starting its workers" if work.trained else "training again"
        return f"{what} would take about {trained:.0f} of its {seconds:.0f} seconds, and leave too few for the attacks"
    for cascade, fewest in FEWEST_IMAGES.items():
        chunk = _chunk(speed, work, workers, seconds - trained, seeds, cascade)
        if chunk >= min(fewest, work.images, work.batch):
            # Where there are more workers than models, several chunks are attacked at once.
            lanes = max(1, workers // (seeds * work.candidates))
            share = max(fewest, math.ceil(work.images / lanes)) if lanes > 1 and work.images < math.inf else chunk
            return Size(seeds, min(chunk, share), cascade)
    return (
        f"even its first attack would take more than the {seconds - trained:.0f} of its {seconds:.0f} seconds that"
        " training leaves"
    )


def _affordable(speed: Speed, work: Work, workers: int, seconds: float, seeds: int) -> bool:
    trained = _training_seconds(speed, work, workers, seeds)
    if trained > MORE_SEEDS_SHARE * seconds:
        return False
    enough = min(ENOUGH_IMAGES, work.images, work.batch)
    return _chunk(speed, work, workers, seconds - trained, seeds, "autoattack") >= enough


def _training_seconds(speed: Speed, work: Work, workers: int, seeds: int) -> float:
    each = 0.0 if work.trained else speed.training
    return speed.start + math.ceil(seeds * work.candidates / workers) * each


def _chunk(speed: Speed, work: Work, workers: int, seconds: float, seeds: int, cascade: str) -> int:
    """Images that can be attacked on every model in the first share of `seconds`, in one chunk; 0 for none."""
    from hcpr_tune.training.attacks.cascade import attacks_of, gradient_steps

    models = seeds * work.candidates
    each = FIRST_SHARE * seconds / math.ceil(models / workers)
    steps = gradient_steps(work.classes)
    fixed = growing = 0.0
    for place, attack in enumerate(attacks_of(cascade, work.classes)):
        fixed += steps[attack] * speed.step
        growing += steps[attack] * speed.image * (work.robust if place else work.clean)
    most = min(work.batch, work.images)
    if each < fixed:
        return 0
    return math.floor(most if growing == 0 else min(most, (each - fixed) / growing))


def measured_speed(recipe: Recipe, history: History) -> Speed | None:
    """The speed that a search's record shows; None without an evaluated epoch of a trial that was trained to its end.

    A step of an attack takes a fixed time and some for each image: the training's attack has measured it on batches of
    the training, the evaluation on larger ones.
    """
    done = [trial for trial in history.trials.values() if trial.status == "completed"]
    epochs = [event for trial in done for event in trial.epochs.values()]
    evaluated = [event for event in epochs if "total_validation" in event]
    if not evaluated:
        return None
    start = max(trial.startup for trial in done)
    step, image = step_cost(_training_step(recipe, epochs), _evaluation_step(recipe, evaluated))
    return Speed(start, max(trial.seconds for trial in done), step, image)


def step_cost(small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """Seconds of a step whatever its batch, and in addition for each image, from two (images in a batch, seconds).

    Neither is negative; where noise says otherwise, the slower of the two decides.
    """
    (few, short), (many, long) = small, large
    if few <= 0 or many <= 0 or few == many:
        return 0.0, max(seconds / images for images, seconds in (small, large) if images > 0)
    image = (long - short) / (many - few)
    step = short - image * few
    if image < 0:
        return max(short, long), 0.0
    return (step, image) if step >= 0 else (0.0, max(short / few, long / many))


def _training_step(recipe: Recipe, epochs: Sequence[EpochEvent]) -> tuple[float, float]:
    """Images and seconds of a step of the training's attack; no images if nothing is known."""
    steps = sum(one["attack_steps"] * math.ceil(one.get("images", 0) / recipe.batch_size) for one in epochs)
    return (float(recipe.batch_size), sum(one["seconds_attack"] for one in epochs) / steps) if steps else (0.0, 0.0)


def _evaluation_step(recipe: Recipe, evaluated: Sequence[EpochEvent]) -> tuple[float, float]:
    """The same of the evaluation, in which broken images are dropped. The last epoch's has a check more."""
    plain = [one for one in evaluated if not one.get("masking_validation")] or evaluated
    batches = math.ceil(plain[0]["total_validation"] / recipe.evaluation.batch_size)
    steps = batches * (recipe.evaluation.restarts * recipe.evaluation.steps + 1)
    left = fmean((one["clean_correct_validation"] + one["robust_correct_validation"]) / 2 for one in plain)
    return max(1.0, left / batches), fmean(one["seconds_evaluation"] for one in plain) / steps
