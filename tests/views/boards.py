"""What tests of TensorBoard's view share: a study's folder as the real listeners write it, from made events, and its event files read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcpr_tune.drawing import as_png
from hcpr_tune.search.history import Event, History
from hcpr_tune.search.results import StudyFolder, training_name
from hcpr_tune.search.study import Study
from hcpr_tune.training.examples import Examples, draw_examples
from hcpr_tune.training.recipe import Evaluation, Task
from hcpr_tune.views.tensorboard import TensorBoardView
from tests.search.histories import epoch

NO_LIMIT = {"images": 0, "scalars": 0, "tensors": 0}


def board(folder: Path) -> EventAccumulator:
    """A run, with all that it holds."""
    reader = EventAccumulator(str(folder), size_guidance=NO_LIMIT)
    reader.Reload()
    return reader


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """A run's curves by tag."""
    reader = board(folder)
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def tell(view: TensorBoardView, history: History, *events: Event) -> None:
    for event in events:
        if history.apply(event):
            view.on_event(event, history)


def picture(seed: int = 0, side: int = 8, channels: int = 1) -> bytes:
    """Examples of noise, which no file format makes smaller."""
    draws = np.random.default_rng(seed)
    images = draws.random((6, channels, side, side))
    attacked = (images + draws.choice([-8, 8], images.shape) / 255).clip(0, 1)
    found = Examples(images, attacked, range(6), range(6), [1, 1, 2, 0, 4, -1])
    return as_png(draw_examples(found, Task(), Evaluation(), list("abcdef"), 3))


def checkpoint_with(folder: StudyFolder, study: Study, number: int, rung: int, png: bytes) -> Path:
    """Such a rung's checkpoint as far as the view reads it; returns its picture."""
    path = folder.checkpoints / training_name(number, rung, study.restarted) / f"epoch_{rung:04d}" / "examples.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png)
    return path


def rung(number: int, at: int, robust: int, clean: int = 90, total: int = 100) -> Event:
    """A rung's report with the classes that the attack led to, all of them from class 0 to class 1."""
    return epoch(number, at, robust, total, clean=clean) | {
        "attacked_pairs_validation": [[0, 1, total - robust]] if robust < total else [],
        "class_totals_validation": [total, 0, 0],
    }
