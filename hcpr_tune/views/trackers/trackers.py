"""`--log-to`: copy a search to an experiment tracker in a separate thread, so that it does not wait for a server."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from hcpr_tune.common.settings import show
from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.search import EndEvent
from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.views.trackers.mlflow_tracker import MlflowTracker
from hcpr_tune.views.trackers.optuna_journal import OptunaJournal
from hcpr_tune.views.trackers.tracked import Point, Run, Runs, StudyCurve, Tracker, point_of, points_of
from hcpr_tune.views.trackers.wandb_tracker import WandbTracker, check_wandb

Task = Callable[[Tracker], None]


@dataclass(frozen=True)
class Service:
    """A tracker that can be chosen: `make` creates it from a folder and the study's run, `check` runs beforehand."""

    make: Callable[[Path, Run], Tracker]
    check: Callable[[], None] = lambda: None


TRACKERS = {"mlflow": Service(MlflowTracker), "wandb": Service(WandbTracker, check_wandb)}
OPTUNA = "optuna"
LOG_TO = (*TRACKERS, OPTUNA)
"""What `--log-to` accepts: servers, and a journal of Optuna beside the results."""
FINISHED_SECONDS, INTERRUPTED_SECONDS = 60.0, 5.0
"""How long the end of a search waits for the copy to complete."""
SECRET, SHORT = re.compile("KEY|TOKEN|PASSWORD|SECRET"), 5


def check_tracker(name: str) -> None:
    """Raises `InputError` if a search cannot be copied to this tracker."""
    if name not in LOG_TO:
        raise InputError(f"--log-to must be one of {', '.join(LOG_TO)}, got {show(name)}")
    if name == OPTUNA:
        return  # the search itself needs it
    found = importlib.util.find_spec(name)
    # W&B keeps its runs in a folder `wandb`, which Python takes for a namespace package.
    if found is None or found.origin is None:
        raise InputError(f"--log-to {name} needs the package {name}; pip install 'hcpr_tune[{name}]'")
    TRACKERS[name].check()


def tracker_of(name: str, stored: StoredStudy) -> TrackerView | OptunaJournal:
    """The listener that copies a search to this tracker."""
    return OptunaJournal(stored) if name == OPTUNA else TrackerView(name, stored)


class TrackerView:
    """A listener. If the copy fails, the search continues, `trouble` says why, and the next session completes it."""

    def __init__(self, name: str, stored: StoredStudy) -> None:
        folder, study, history = stored
        self.name, self.trouble = name, ""
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._patience = INTERRUPTED_SECONDS
        self._runs, self._curve = Runs(folder, study), StudyCurve(history)
        self._ends: dict[int, str] = {}
        """The state in which each trial's run was closed."""
        self._study = self._runs.of_study(min((trial.began for trial in history.trials.values()), default=time.time()))
        points = self._curve.so_far(history)
        self._tasks.put(lambda tracker: tracker.open(self._study, points))
        for trial in history.trials.values():
            self._bring(history, trial)
        self._thread = threading.Thread(target=self._copy, args=(folder.root,), daemon=True)
        self._thread.start()

    def on_event(self, event: Event, history: History) -> None:
        if not self.trouble:
            with self._noting():
                self._follow(event, history)

    def close(self) -> None:
        """Wait for the copy to complete, but not for long."""
        self._tasks.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive() and not self.trouble:
            self.trouble = self._words(f"it does not keep up: {self._tasks.qsize()} entries are missing there")

    def _follow(self, event: Event, history: History) -> None:
        if event["event"] == "end":
            self._finish(event, history)
        if event["event"] not in ("job", "epoch", "job_end"):
            return
        trial = history.trials[event["trial"]]
        run = self._runs.of_trial(trial)
        if event["event"] == "job":
            points = points_of(history, trial)
            self._ends.pop(trial.number, None)
            self._tasks.put(lambda tracker: tracker.open(run, points))
        elif event["event"] == "epoch":
            self._add(run, point_of(history, trial, trial.epoch_offset + event["epoch"]))
            for point in self._curve.add(event, history):
                self._add(self._study, point)
        else:
            state = self._ends[trial.number] = trial.state
            self._end(run, state, event["time"])

    def _add(self, run: Run, point: Point) -> None:
        self._tasks.put(lambda tracker: tracker.add(run, point))

    def _end(self, run: Run, state: str, time: float) -> None:
        self._tasks.put(lambda tracker: tracker.end(run, state, time))

    def _bring(self, history: History, trial: Trial) -> None:
        """Copy a trial that is not running, unless that was done."""
        run, points = self._runs.of_trial(trial), points_of(history, trial)
        steps, state, ended = max(trial.epochs, default=0), trial.state, trial.last_heartbeat or trial.began

        def bring(tracker: Tracker) -> None:
            if not tracker.has(run, steps, state):
                tracker.open(run, points)
                tracker.end(run, state, ended)

        self._ends[trial.number] = state
        self._tasks.put(bring)

    def _finish(self, event: EndEvent, history: History) -> None:
        """Close the runs of trials without a job end: still running ones, and those killed while waiting."""
        for trial in history.trials.values():
            if trial.job is not None:
                self._end(self._runs.of_trial(trial), "interrupted", event["time"])
            elif self._ends.get(trial.number) != trial.state:
                self._bring(history, trial)
        self._patience = FINISHED_SECONDS if event["reason"] == "finished" else INTERRUPTED_SECONDS
        self._end(self._study, event["reason"], event["time"])

    def _copy(self, folder: Path) -> None:
        """Run by the thread, which also imports the packages, as that takes seconds."""
        with self._noting():
            tracker = TRACKERS[self.name].make(folder, self._study)
            with self._noting():
                while (task := self._tasks.get()) is not None:
                    task(tracker)
            tracker.close()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the first error as the trouble."""
        try:
            yield
        except Exception as error:
            self.trouble = self.trouble or self._words(f"it stopped: {harmless(error)}")

    def _words(self, what: str) -> str:
        return f"the copy in {self.name}: {what}; --resume with --log-to {self.name} completes it"


def harmless(error: Exception) -> str:
    """The first line of an error without secrets, as servers' addresses may contain passwords."""
    words = clean(f"{type(error).__name__}: {error}".splitlines()[0])
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > SHORT:
            words = words.replace(value, "...")
    return re.sub(r"://[^/\s@]*@", "://...@", words)
