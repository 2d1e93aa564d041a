"""One training's state at an epoch's end, written whole or not at all.

A checkpoint is a folder `epoch_0009` with `state.pt` (weights, optimiser, epoch: plain tensors, read with weights_only),
`report.json` (what was measured in that epoch, so that a kill between saving and reporting loses nothing) and, where a stretch
ends, `model.safetensors` to take away.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training.loop import TrainingState
from hcpr_tune.training.models import save_weights

STATE, REPORT, WEIGHTS = "state.pt", "report.json", "model.safetensors"


def folder_of(root: Path, epoch: int) -> Path:
    """Where the checkpoint of `epoch` lies below a training's folder."""
    return root / f"epoch_{epoch:04d}"


def saved_epochs(root: Path) -> list[int]:
    """The epochs that have a whole checkpoint below `root`, rising."""
    return sorted(int(path.name.removeprefix("epoch_")) for path in root.glob("epoch_*") if path.name[6:].isdigit())


def save(root: Path, state: TrainingState, report: dict[str, Any], with_weights: bool) -> Path:
    """Write the checkpoint of `state.epoch` and what was measured in it; a reader sees all of it or nothing."""
    target = folder_of(root, state.epoch)
    temporary = root / f".{target.name}.{os.getpid()}"
    temporary.mkdir(parents=True)
    torch.save(state.state_dict(), temporary / STATE)
    (temporary / REPORT).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    if with_weights:
        save_weights(state.scored_model(), temporary / WEIGHTS)
    for path in temporary.iterdir():
        _flush(path)
    if target.exists():  # an older checkpoint was damaged, so that this epoch ran again
        shutil.rmtree(target)
    temporary.rename(target)
    return target


def load(root: Path, epoch: int, state: TrainingState) -> dict[str, Any]:
    """Bring `state` to where it was at the end of `epoch`; returns what was measured then. Raises `InputError` where the file is damaged or of another model."""
    path = folder_of(root, epoch) / STATE
    device = next(state.model.parameters()).device
    try:
        state.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        report: dict[str, Any] = json.loads((folder_of(root, epoch) / REPORT).read_text(encoding="utf-8"))
        return report
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be continued from: {reason}; delete its folder to go on from the one before"
        ) from error


def drop(root: Path, epochs: Iterable[int]) -> None:
    """Delete the checkpoints of these epochs."""
    for epoch in epochs:
        shutil.rmtree(folder_of(root, epoch), ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
