"""The training of one trial for the arms that are not this service: it says what each scored epoch had, and logs it."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared import Plain, epoch_score, epoch_seconds, single_thread

from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.training.recipe import Recipe, Task


@functools.lru_cache(maxsize=1)
def data_of(task: Task) -> Any:
    """The task's data, read once per process."""
    from hcpr_tune.training.data.dataset import load_data

    return load_data(task)


def reports(recipe: Recipe, params: Params, trial: str, log_file: Path) -> Iterator[tuple[int, float]]:
    """Train; yields (epoch, score on validation) wherever the recipe evaluates. A training that diverges scores 0 then.

    Every epoch is a line of the log: `{"time", "trial", "epoch", "score", "seconds", "params"}`.
    """
    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.loop import initial_state, train

    single_thread()
    recipe = with_params(recipe, params)
    data, reached = data_of(recipe.task), 0
    try:
        for epoch in train(recipe, data, initial_state(recipe, data)):
            reached, score = epoch.epoch, epoch_score(epoch)
            event = {"trial": trial, "epoch": reached, "score": score, "seconds": epoch_seconds(epoch)}
            append(log_file, event | {"params": params})
            if score is not None:
                yield reached, score
    except Diverged:
        append(log_file, {"trial": trial, "epoch": reached + 1, "score": 0.0, "seconds": 0.0, "params": params})
        yield recipe.epochs, 0.0


def append(log_file: Path, event: Plain) -> None:
    """One event as a line, in one write: several processes share the file."""
    with log_file.open("a") as file:
        file.write(json.dumps({"time": time.time(), **event}) + "\n")
