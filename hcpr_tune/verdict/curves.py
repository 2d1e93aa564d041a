"""The trainings of a verdict in TensorBoard, next to those of the search."""

from __future__ import annotations

import re
from pathlib import Path

from hcpr_tune.search.record.events.verdict import VerdictEvent
from hcpr_tune.verdict.state import State
from hcpr_tune.views.tensorboard.event_file import EventFile, scalars
from hcpr_tune.views.tensorboard.writer import curve_values


class Curves:
    """A listener that writes a run such as `verdict/curves/trial-7-seed-2` for each training, also across restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "curves"
        self._files: dict[str, EventFile] = {}

    def on_event(self, event: VerdictEvent, history: State) -> None:
        if event["event"] == "epoch":
            self._file(event["model"], history).write(event["time"], event["epoch"], scalars(curve_values(event)))
        elif event["event"] == "job_end" and event["model"] in self._files:
            self._files.pop(event["model"]).close()

    def _file(self, model: str, state: State) -> EventFile:
        if model not in self._files:
            known = state.models[model]
            name = re.sub(r"[^A-Za-z0-9]+", "-", f"{known.candidate}-seed-{known.seed}").strip("-")
            self._files[model] = EventFile(self._folder / name)
        return self._files[model]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
