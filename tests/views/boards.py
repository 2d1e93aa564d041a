"""Shared by tests of TensorBoard's view: a study's folder as the listeners write it, and its event files read back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcpr_tune.common.drawing import as_png
from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.results import StudyFolder, training_name
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.attacks.examples import Examples, draw_examples
from hcpr_tune.training.recipe import Evaluation, Task
from hcpr_tune.views.tensorboard.writer import TensorBoardView
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


def checkpoint_with(folder: StudyFolder, study: StudySpec, number: int, rung: int, png: bytes) -> Path:
    """Such a rung's checkpoint as far as the view reads it; returns its picture."""
    path = folder.checkpoints / training_name(Trial(number, {}, "tpe"), rung, study.restarted) / f"epoch_{rung:04d}"
    path /= "examples.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png)
    return path


def rung(number: int, at: int, robust: int, clean: int = 90, total: int = 100) -> Event:
    """A rung's report with the classes that the attack led to, all of them from class 0 to class 1."""
    return epoch(number, at, robust, total, clean=clean) | {
        "attacked_pairs_validation": [[0, 1, total - robust]] if robust < total else [],
        "class_totals_validation": [total, 0, 0],
    }


class Served:
    """A real TensorBoard over a folder, and what it answers."""

    def __init__(self, folder: Path, *more: str) -> None:
        options = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", "0", "--reload_interval", "2", *more]
        command = [sys.executable, "-m", "tensorboard.main", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                self.url = found[0]
                break
        else:
            raise AssertionError("".join(said))
        # Nobody reads on: a full pipe would stop it.
        self._rest = threading.Thread(target=self._process.stderr.read)
        self._rest.start()

    def bytes(self, path: str, question: object = None) -> bytes:
        """What it answers to a GET, or to a POST of `question`."""
        data = None if question is None else json.dumps(question).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=30) as answer:
            return bytes(answer.read())

    def ask(self, path: str, question: object = None) -> Any:
        return json.loads(self.bytes(path, question))

    def until(self, path: str, holds: Callable[[Any], bool], question: object = None) -> Any:
        """Its first answer that is as it should be. The limit is for a machine that is busy with other things."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self.ask(path, question)
            except urllib.error.HTTPError:  # it has not seen the run yet
                answer = None
            if answer is not None and holds(answer):
                return answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)

    def curve(self, trial: int, tag: str, count: int) -> list[tuple[int, float]]:
        """A curve once it has so many points: step and value."""
        path = f"data/plugin/scalars/scalars?run=trials/trial_{trial:04d}&tag={tag}"
        return [(step, value) for _, step, value in self.until(path, lambda points: len(points) >= count)]

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._rest.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def served(folder: Path, *more: str) -> Iterator[Served]:
    """TensorBoard with `more` options."""
    board = Served(folder, *more)
    try:
        yield board
    finally:
        board.end()
