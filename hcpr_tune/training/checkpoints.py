"""Checkpoints: a training's state at the end of an epoch, written atomically.

A checkpoint is a folder `epoch_0009` with
- `state.pt`: weights, optimiser, averages, epoch, class names; plain tensors and texts, read with weights_only;
- `report.json`: the reports of the segment's epochs so far, so that unsent or lost reports can be sent again;
- `model.safetensors` at the end of a segment: the weights for export;
- `manifest.json`: size and SHA-256 of each of these files;
- `examples.png`: a picture that resuming does not need, so it is optional and not in the manifest.

Random draws are derived from the seed and the epoch, so there is no generator state to save.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from hcpr_tune.common.files import draft_of
from hcpr_tune.common.text import first_line, listed
from hcpr_tune.errors import InputError
from hcpr_tune.training import manifest
from hcpr_tune.training.loop import TrainingState
from hcpr_tune.training.models.classifier import save_weights

STATE, REPORT, WEIGHTS, EXAMPLES = "state.pt", "report.json", "model.safetensors", "examples.png"


def folder_of(root: Path, epoch: int) -> Path:
    """The folder of the checkpoint of `epoch`, below a training's folder."""
    return root / f"epoch_{epoch:04d}"


def saved_epochs(root: Path) -> list[int]:
    """The epochs that have a checkpoint below `root`, in ascending order."""
    return sorted(int(path.name.removeprefix("epoch_")) for path in root.glob("epoch_*") if path.name[6:].isdigit())


def save(
    root: Path, state: TrainingState, reports: list[dict[str, Any]], with_weights: bool, examples: bytes = b""
) -> Path:
    """Write the checkpoint of `state.epoch` atomically, with the reports up to it (latest epoch last) and the picture
    `examples`. On `OSError` nothing is left behind.
    """
    target = folder_of(root, state.epoch)
    temporary = draft_of(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # Through memory: torch's own writer does not report a full disk.
        buffer = io.BytesIO()
        torch.save(state.state_dict(), buffer)
        (temporary / STATE).write_bytes(buffer.getbuffer())
        (temporary / REPORT).write_text(json.dumps(reports, allow_nan=False), encoding="utf-8")
        if with_weights:
            save_weights(state.scored_model(), temporary / WEIGHTS)
        manifest.write(temporary)
        if examples:
            (temporary / EXAMPLES).write_bytes(examples)
        for path in temporary.iterdir():
            _flush(path)
        if target.exists():  # this epoch ran again because an earlier checkpoint was damaged
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def load(root: Path, epoch: int, state: TrainingState) -> list[dict[str, Any]]:
    """Restore `state` as it was at the end of `epoch`; returns the reports up to it.

    Raises `InputError` if the checkpoint is of another model, or of other classes.
    """
    path = folder_of(root, epoch) / STATE
    device = next(state.model.parameters()).device
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        _check_classes(path, saved.get("class_names"), state.class_names)
        state.load_state_dict(saved)
        reports: list[dict[str, Any]] = json.loads((folder_of(root, epoch) / REPORT).read_text(encoding="utf-8"))
        return reports
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"cannot resume from {path}: {reason}; it belongs to another recipe: "
            "delete its folder to resume from the previous checkpoint"
        ) from error


def _check_classes(path: Path, saved: Sequence[str] | None, now: Sequence[str]) -> None:
    """Raise `InputError` if a checkpoint was trained on other classes. Those of earlier versions do not say."""
    if saved and list(saved) != list(now):
        raise InputError(
            f"cannot resume from {path}: it was trained on the classes {listed(saved)}, and the data now have "
            f"{listed(now)}; give the class folders their earlier names, or start anew"
        )


def load_latest(
    root: Path, latest: int, state: TrainingState, recipe: str = ""
) -> tuple[list[dict[str, Any]], list[str]]:
    """Restore `state` from the latest undamaged checkpoint up to the epoch `latest`.

    Returns the reports up to it (none without a checkpoint) and a message for each lost checkpoint: damaged ones, and
    those of another `recipe`, are deleted. Raises `InputError` as `load` does.
    """
    losses: list[str] = []
    for leftover in root.glob(".epoch_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for epoch in reversed(saved_epochs(root)):
        if epoch > latest:
            continue
        wrong = manifest.damage(folder_of(root, epoch)) or _foreign(folder_of(root, epoch), recipe)
        if not wrong:
            return load(root, epoch, state), losses
        losses.append(
            f"the checkpoint {folder_of(root, epoch)} was damaged ({wrong}); training continues from an earlier state"
        )
        drop(root, [epoch])
    return [], losses


def _foreign(folder: Path, recipe: str) -> str:
    latest = json.loads((folder / REPORT).read_text(encoding="utf-8"))[-1]
    return "" if latest.get("recipe", recipe) == recipe else "it belongs to another recipe"


def drop(root: Path, epochs: Iterable[int]) -> None:
    """Delete the checkpoints of these epochs."""
    for epoch in epochs:
        shutil.rmtree(folder_of(root, epoch), ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
