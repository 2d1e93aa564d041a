"""What several tests of the science share: the published figures, digits, and one small training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hcpr_tune.training.data.dataset import Data, load_data
from hcpr_tune.training.loop import Epoch, TrainingState, initial_state, train
from hcpr_tune.training.recipe import (
    Attack,
    Evaluation,
    LrSchedule,
    Model,
    Recipe,
    Schedule,
    Task,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "spat_reference.npz"


@dataclass(frozen=True)
class Training:
    """A finished training; tests must leave the model as they found it."""

    recipe: Recipe
    state: TrainingState
    epochs: list[Epoch]


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """Figures of the published code in float64."""
    with np.load(REFERENCE) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data(Task())


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Four epochs on digits in about a second, with ramps on everything that a schedule can move."""
    return Recipe(
        task=Task(epsilon=0.1),
        model=Model(width=4),
        epochs=4,
        segment_ends=(2,),
        batch_size=64,
        pace=Schedule(0.2, 1.0, ramp=1.0, shape="linear"),
        consistency=Schedule(0.5, 1.0, ramp=1.0, shape="cosine"),
        attack=Attack(epsilon=0.1, steps=Schedule(2, 2), step_size=0.05),
        lr_schedule=LrSchedule(shape="cosine"),
        evaluation=Evaluation(steps=5, relative_step_size=0.25),
    )


@pytest.fixture(scope="session")
def trained(tiny_recipe: Recipe, digits: Data) -> Training:
    state = initial_state(tiny_recipe, digits)
    return Training(tiny_recipe, state, list(train(tiny_recipe, digits, state)))
