"""TensorBoard events per trial, written by the driver as soon as an epoch is recorded.

Uses TensorBoard's own record writer and protocol buffers, so that the driver need not import torch.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event as BoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from hcpr_tune.search.history import Event, History
from hcpr_tune.search.results import StudyFolder

CURVES = {
    "loss": "loss/total",
    "accuracy_loss": "loss/accuracy",
    "consistency_loss": "loss/consistency",
    "lr": "schedule/lr",
    "pace": "schedule/pace",
    "consistency_factor": "schedule/consistency_factor",
    "attack_steps": "schedule/attack_steps",
    "seconds_attack": "seconds/attack",
    "seconds_update": "seconds/update",
    "seconds_evaluation": "seconds/evaluation",
}
"""Tag of each reported number."""


def curve_values(event: Event) -> dict[str, float]:
    """What an epoch adds to the curves, by tag."""
    values = {tag: float(event[name]) for name, tag in CURVES.items()}
    for kind in ("robust", "clean"):
        if f"{kind}_correct_validation" in event:
            values[f"accuracy_validation/{kind}"] = event[f"{kind}_correct_validation"] / event["total_validation"]
    return values


class Curves:
    """The one event file of a training in `folder`, opened again where it was closed.

    A second file would be read in the order of the names, which are equal to the second. Each epoch is flushed, so that it is there to
    see and a kill loses nothing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        existing = sorted(folder.glob("events.out.tfevents.*"))
        path = existing[-1] if existing else folder / f"events.out.tfevents.{int(time.time())}.{platform.node()}"
        self._writer = RecordWriter(path.open("ab"))
        if not existing:
            self._write(BoardEvent(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, event: Event, step: int) -> None:
        """An epoch at `step`: its number, or where each rung is a training of its own, the number of epochs trained so far."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curve_values(event).items()]
        self._write(BoardEvent(wall_time=event["time"], step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class TensorBoardView:
    """A listener: one run per trial in its folder, `trials/trial_0003`.

    The files are rebuilt from the record when a search is resumed, so that no step is missing or doubled. A trial's file is closed with
    its job, so that open files do not grow with the number of trials.
    """

    def __init__(self, folder: StudyFolder, history: History) -> None:
        self._folder = folder
        self._open: dict[int, Curves] = {}
        for trial in history.trials.values():
            for path in folder.trial(trial.number).glob("events.out.tfevents.*"):
                path.unlink()
            for step in sorted(trial.epochs):
                self._add(trial.epochs[step], step)
            self._close(trial.number)

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] == "epoch":
            self._add(event, history.trials[event["trial"]].before + event["epoch"])
        elif event["event"] == "job_end":
            self._close(event["trial"])

    def _add(self, event: Event, step: int) -> None:
        number = event["trial"]
        if number not in self._open:
            self._open[number] = Curves(self._folder.trial(number))
        self._open[number].add(event, step)

    def _close(self, number: int) -> None:
        if number in self._open:
            self._open.pop(number).close()

    def close(self) -> None:
        for number in list(self._open):
            self._close(number)
