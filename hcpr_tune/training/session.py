"""Training of one segment with checkpoints: what a worker runs for a job, and `hcpr_tune train` for a recipe."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hcpr_tune.common.settings import to_plain
from hcpr_tune.common.text import listed, named
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.training import checkpoints
from hcpr_tune.training.attacks.examples import examples_png
from hcpr_tune.training.cuda_context import broken
from hcpr_tune.training.data.dataset import Data, load_data
from hcpr_tune.training.data.node_cache import NodeCache
from hcpr_tune.training.data.sources import check_test_part
from hcpr_tune.training.formats import format_of
from hcpr_tune.training.loop import Epoch, TrainingState, initial_state, torch_threads, train
from hcpr_tune.training.methods.method import method_of
from hcpr_tune.training.plugins import guarded
from hcpr_tune.training.recipe import Recipe, Task

Report = dict[str, Any]
"""One epoch as plain values: the fields of `Epoch`, counts on validation, times and the device."""


class DataShelf:
    """Keeps the data of the last task on the device, so that the next training in a reused process starts at once."""

    def __init__(self, on_gpu: bool = True, cache: Path | None = None) -> None:
        """`on_gpu`: use a GPU if there is one. `cache`: a local folder where processes share data sets."""
        self.device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
        self._kept: tuple[Task, Data] | None = None
        # On a GPU the images leave host memory at once, so a shared file would only cost disk space.
        self._cache = None if cache is None or self.device.type != "cpu" else NodeCache(cache)

    def get(self, task: Task) -> Data:
        if self._kept is None or self._kept[0] != task:
            self._kept = None
            self._kept = task, load_data(task, self._cache, device=self.device)
        return self._kept[1]


def check_trainable(recipe: Recipe, shelf: DataShelf, class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Read the data and build the model, to find problems before any work starts. Raises `InputError`.

    `class_names`: those that models were trained on before, which the data must still have; empty if none is known.
    Returns notes about the data: what was skipped in a folder, and how unusual images are handled.
    """
    method_of(recipe)
    data = shelf.get(recipe.task)
    if class_names and list(class_names) != list(data.class_names):
        raise InputError(
            f"task.dataset {recipe.task.dataset} has the classes {listed(data.class_names)}, and what was trained"
            f" before has {listed(class_names)}; give the classes their earlier names, or begin a new study"
        )
    check_test_part(recipe.task, data.class_names, data.train.shape)
    initial_state(recipe, data)
    return data.notes


def train_segment(
    recipe: Recipe, shelf: DataShelf, folder: Path, start: int, end: int, reported: int = 0, checkpoint_every: int = 1
) -> Iterator[Report]:
    """Train from the end of epoch `start` to the end of epoch `end`, saving a checkpoint below `folder` every
    `checkpoint_every` epochs, at every rung and at the end.

    Resumes from the latest undamaged checkpoint in between. First come the saved reports of epochs after `reported`: a
    killed process may have saved them without reporting them. Epochs between the latest checkpoint and `reported` are
    trained and reported again; so are those before `start` if its checkpoint is gone. Damaged checkpoints are named in
    the first report's `losses`. Between rungs the latest two checkpoints are kept.

    Raises `Diverged`, `StorageError` if a checkpoint cannot be read or written, and `InputError` for one of another
    model.
    """
    began = time.perf_counter()
    data = shelf.get(recipe.task)
    with torch_threads(recipe.threads):
        state = initial_state(recipe, data)
    recipe_name = identity(recipe)
    with _storing(f"the checkpoints in {folder} cannot be read"):
        reports, losses = checkpoints.load_latest(folder, end, state, recipe_name)
    reports = [report for report in reports if report["epoch"] > start]
    for report in reports:
        # The report of `end` is always repeated: it ends the segment.
        if report["epoch"] > reported or report["epoch"] == end:
            yield report | {"losses": losses}
            losses = []
    if state.epoch == end:
        return
    startup = time.perf_counter() - began
    for epoch in train(recipe, data, state):
        saving = time.perf_counter()
        report = _report(epoch, shelf.device, startup) | {"recipe": recipe_name}
        report |= {"precision": format_of(recipe.precision, shelf.device)}
        reports.append(report)
        examples, trouble = _examples(recipe, data, state) if epoch.is_rung else (b"", "")
        # Recorded, so that the reason for a missing picture can be found.
        report |= {"picture_failed": trouble} if trouble else {}
        saved = epoch.is_rung or epoch.epoch == end or epoch.epoch % checkpoint_every == 0
        if saved:
            with _storing(f"a checkpoint cannot be written to {folder}"):
                checkpoints.save(folder, state, reports, with_weights=epoch.is_rung, examples=examples)
            _drop_between_rungs(recipe, folder, epoch)
        yield report | {"seconds_checkpoint": time.perf_counter() - saving if saved else 0.0, "losses": losses}
        if epoch.epoch == end:
            return
        startup, losses = 0.0, []


def _drop_between_rungs(recipe: Recipe, folder: Path, epoch: Epoch) -> None:
    """Delete checkpoints that this epoch's replaces: between rungs the latest two stay, in case the last is damaged."""
    between = [one for one in checkpoints.saved_epochs(folder) if one <= epoch.epoch and one not in recipe.rung_epochs]
    checkpoints.drop(folder, between if epoch.is_rung else between[:-2])


def identity(recipe: Recipe) -> str:
    """A hash of everything that determines a training's states; its length does not."""
    plain = to_plain(recipe)
    for name in ("epochs", "segment_ends", "stop_epoch"):
        del plain[name]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _examples(recipe: Recipe, data: Data, state: TrainingState) -> tuple[bytes, str]:
    """The picture for a rung, or why it could not be drawn: a failed picture must not end a training."""
    try:
        with guarded():
            return examples_png(recipe, data, state), ""
    except Exception as error:
        if broken(error):
            raise
        return b"", named(error)


@contextmanager
def _storing(what: str) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError`: a disk error is not the training's fault."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{what}: {error.strerror or error}; make space or fix the error, then continue with --resume"
        ) from error


def _report(epoch: Epoch, device: torch.device, startup: float) -> Report:
    plain = {name: value for name, value in asdict(epoch).items() if name not in ("validation", "masking")}
    measured: Report = {}
    if epoch.validation is not None:
        measured = {
            "clean_correct_validation": epoch.validation.clean_correct,
            "robust_correct_validation": epoch.validation.robust_correct,
            "total_validation": epoch.validation.total,
        }
        if epoch.is_rung:
            measured["attacked_pairs_validation"] = [list(pair) for pair in epoch.validation.pairs]
            measured["class_totals_validation"] = list(epoch.validation.class_totals)
    if epoch.masking is not None:
        # After the last epoch only: what pairs two trainings image by image.
        if epoch.validation is not None:
            measured["survived_validation"] = packed(epoch.validation.survived)
            if epoch.validation.survivors:
                measured["survivors_validation"] = [list(pair) for pair in epoch.validation.survivors]
        measured["masking_validation"] = asdict(epoch.masking) | {"alarms": list(epoch.masking.alarms)}
    return (
        plain
        | measured
        | {
            "seconds_startup": startup,
            "seconds_checkpoint": 0.0,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        }
    )


def packed(survived: Sequence[bool]) -> str:
    """One bit per image, the first one highest, in hexadecimal."""
    return np.packbits(np.array(survived, dtype=bool)).tobytes().hex()


def model_inputs(data: Data) -> dict[str, Any]:
    """Input and output sizes of a model for these data, needed to rebuild it from its recipe."""
    return {
        "channels": data.channels,
        "classes": data.classes,
        "image_size": list(data.image_size),
        "class_names": list(data.class_names),
    }


def split_hashes(data: Data) -> dict[str, str]:
    """Which images were trained and validated on, as hashes of their indices."""
    return {"train": data.train.index_hash, "validation": data.validation.index_hash}
