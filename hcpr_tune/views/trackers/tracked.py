"""The data for experiment trackers, all from the record: a run for the study, and one for each trial."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.tensorboard.hparams import BEST_CLEAN, BEST_ROBUST
from hcpr_tune.views.tensorboard.trial_pictures import best_rung_at
from hcpr_tune.views.tensorboard.writer import CURVES, best_values, curve_values

GAIN = "best/gain_points"
STUDY = "study"
"""The key of the study's run."""


@dataclass(frozen=True)
class Point:
    """The values of a run at a step: the epoch for a trial, the epochs of all trials for the study."""

    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A run in the tracker. `identity` is unique to the study, unlike its name; `params` never change."""

    study: str
    identity: str
    key: str
    name: str
    began: float
    params: dict[str, Any] = field(hash=False)
    tags: dict[str, str] = field(hash=False)

    @property
    def always(self) -> str:
        """A value that every point of the run has."""
        return BEST_ROBUST if self.key == STUDY else CURVES["loss"]


class Tracker(Protocol):
    """A service that stores runs. Called from one thread; an exception ends only the copying."""

    def has(self, run: Run, steps: int, state: str) -> bool:
        """Whether an earlier session copied the run up to `steps`, with this final state."""

    def open(self, run: Run, points: Sequence[Point]) -> None:
        """Create a run, or find it, and add those of the `points` that it lacks."""

    def add(self, run: Run, point: Point) -> None:
        """Add the next point to an open run."""

    def end(self, run: Run, state: str, time: float) -> None:
        """Close a run in the state of its trial, or of the study; it may be reopened."""

    def close(self) -> None:
        """Called when there is nothing more to copy."""


class Runs:
    """The runs of one study."""

    def __init__(self, folder: StudyFolder, study: StudySpec) -> None:
        self._study = study
        with folder.record.open("rb") as file:
            identity = hashlib.sha256(file.readline()).hexdigest()[:12]
        self._common = {"study": folder.root.name, "identity": identity}
        self._tags = {"study": folder.root.name, "fingerprint": study.fingerprint}

    def of_study(self, began: float) -> Run:
        """The study's run."""
        settings, recipe = self._study.settings, self._study.recipe
        params = {
            "dataset": recipe.task.dataset,
            "norm": recipe.task.norm,
            "epsilon": recipe.task.epsilon,
            "method": recipe.method,
            "model": recipe.model.name,
            "rungs": ", ".join(map(str, self._study.rungs)),
            "sampler": settings.sampler.name,
            "objective": ", ".join(settings.objective),
        }
        return Run(**self._common, key=STUDY, name=self._common["study"], began=began, params=params, tags=self._tags)

    def of_trial(self, trial: Trial) -> Run:
        """A trial's run."""
        return Run(
            **self._common,
            key=f"trial_{trial.number:04d}",
            name=f"{self._common['study']} trial {trial.number}",
            began=trial.began,
            params={**trial.params, "source": trial.source},
            tags={**self._tags, "trial": str(trial.number)},
        )


def point_of(history: History, trial: Trial, step: int) -> Point:
    """An epoch's point, with the same values as in TensorBoard."""
    event = trial.epochs[step]
    values = curve_values(event)
    if event["is_rung"]:
        values |= best_values(trial, best_rung_at(history, trial, event["epoch"]))
    return Point(step, event["time"], values)


def points_of(history: History, trial: Trial) -> list[Point]:
    """All epochs of a trial."""
    return [point_of(history, trial, step) for step in sorted(trial.epochs)]


class StudyCurve:
    """The study's points: after each rung the best accuracies so far, by the total number of trained epochs."""

    def __init__(self, history: History) -> None:
        self._goal, self._epochs = history.goal, 0
        self._best: dict[str, float] | None = None
        self._published: dict[str, float] | None = None

    def so_far(self, history: History) -> list[Point]:
        """The points of the history so far."""
        events = (event for trial in history.trials.values() for event in trial.epochs.values())
        return [point for event in sorted(events, key=_when) for point in self.add(event, history)]

    def add(self, event: EpochEvent, history: History) -> Iterator[Point]:
        """The point of an epoch, if it is a rung."""
        self._epochs += 1
        if event["is_rung"]:
            scores = history.trials[event["trial"]].scores[event["epoch"]]
            self._best = self._better(self._best, scores)
            if event["trial"] == 0:
                self._published = self._better(self._published, scores)
            values = {BEST_ROBUST: self._best["robust_accuracy"], BEST_CLEAN: self._best["clean_accuracy"]}
            if self._published is not None:
                values[GAIN] = 100 * (values[BEST_ROBUST] - self._published["robust_accuracy"])
            yield Point(self._epochs, event["time"], values)

    def _better(self, one: dict[str, float] | None, other: dict[str, float]) -> dict[str, float]:
        """The better scores for the study's goal, the first in a tie."""
        if one is None:
            return other
        return min(one, other, key=self._goal.place)


def _when(event: EpochEvent) -> float:
    return event["time"]
