"""The state of a verdict, folded from its record: trained models, and which images of each chunk survived each attack.

The record holds only facts, keyed by what they are about (a recipe with its seed, the images of a chunk), so that a
larger verdict, or one that was interrupted, can reuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hcpr_tune.common.schema import ModelInputs, Number, Row, Text, Wrong
from hcpr_tune.search.record.events.check import verdict_event
from hcpr_tune.search.record.events.fields import Tables, WholeMasking, accuracies
from hcpr_tune.search.record.events.search import EndEvent, WorkersEvent
from hcpr_tune.search.record.events.verdict import (
    ChecksEvent,
    ModelEvent,
    StepEvent,
    TestAccessEndEvent,
    VerdictBeginEvent,
    VerdictEpochEvent,
    VerdictEvent,
    VerdictJobEndEvent,
    VerdictJobEvent,
    VerdictTestAccessEvent,
)
from hcpr_tune.search.record.lines import read_lines
from hcpr_tune.search.record.record import fold
from hcpr_tune.training.attacks.cascade import CLEAN, Step, attacks_of
from hcpr_tune.training.recipe import recipe_from_plain

FORMAT = 1
"""Version of the record's format. Increase it when older records can no longer be read."""
ChunkKey = tuple[str, str, int]
"""Model, scope, number of the chunk."""


class VerdictTestAccess(VerdictTestAccessEvent):
    """An access to the test images."""

    ended: bool


@dataclass
class Trained:
    """A model in training or trained. `scores`: its accuracies on validation by rung, as in a search."""

    candidate: str
    seed: int
    recipe: Tables
    weights: str = ""
    epochs: dict[int, VerdictEpochEvent] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    finished: bool = False
    lost: str = ""
    """Why the model cannot be had; empty otherwise."""
    seconds: float = 0.0

    @property
    def last_epoch(self) -> int:
        return max(self.epochs, default=0)

    @cached_property
    def rung_epochs(self) -> tuple[int, ...]:
        """The rungs of its recipe."""
        return recipe_from_plain(self.recipe, "the model's recipe").rung_epochs

    @property
    def masking(self) -> WholeMasking | None:
        """The counts of the masking alarm after the last epoch."""
        found = (event.get("masking_validation") for event in reversed(self.epochs.values()))
        return next((one for one in found if one), None)


@dataclass
class Chunk:
    """A chunk of attacked images: labels, and a step for each attack so far."""

    labels: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)

    def after(self, attack: str) -> Step | None:
        """The step of this attack; None if it was not run yet."""
        for step in reversed(self.steps):  # a plain loop, since this is asked for each chunk at each decision
            if step.attack == attack:
                return step
        return None


@dataclass
class State:
    """All facts so far. `failed`: why a job cannot be done; `deaths`: how often its workers died."""

    models: dict[str, Trained] = field(default_factory=dict)
    chunks: dict[ChunkKey, Chunk] = field(default_factory=dict)
    labels: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    """Labels by (scope, chunk), known once a model was attacked on the chunk."""
    totals: dict[str, int] = field(default_factory=dict)
    """Number of images by scope, known once a worker has reported it."""
    checks: dict[tuple[str, str], ChecksEvent] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    """Time of the last event of each running job, by key."""
    failed: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    test_accesses: list[VerdictTestAccess] = field(default_factory=list)
    """Accesses to the test images for this verdict; `ended` once everything the access was for has been attacked."""
    model_inputs: ModelInputs | None = None
    versions: dict[str, str] = field(default_factory=dict)
    classes: int = 10
    """Number of classes of the task; a guess until a worker has reported it."""
    workers: int = 0
    seconds: float = 0.0
    """Wall-clock seconds of the current session."""
    worker_seconds: float = 0.0
    """Seconds that jobs held workers, over all sessions."""
    ended: str = ""
    version: int = 0
    """Number of events folded."""
    choice_version: int = 0
    """Number of those that can change which candidate wins."""
    choice: Any = field(default=None, repr=False, compare=False)
    """The latest `Selection`, with its plan and `choice_version`, kept by `selection.select`."""
    bytes_read: int = 0
    _began: float = 0.0

    def check(self, plain: Mapping[str, object]) -> VerdictEvent:
        """The event of a line. Raises `Wrong` if it is malformed, or cannot follow what is recorded."""
        event = verdict_event(plain)
        if event["event"] == "begin" and event["format"] != FORMAT:
            raise Wrong(f"it is of format {event['format']}, this version reads {FORMAT}")
        if event["event"] in ("epoch", "step", "look", "job_end") and event["model"] not in self.models:
            raise Wrong("model must be one of those that are recorded before it")
        if event["event"] == "test_access_end" and not self.test_accesses:
            raise Wrong("event must not be test_access_end without a test_access before it")
        if event["event"] == "step":
            self._check_step(event)
        elif event["event"] == "job_end" and "model_inputs" in event and self.totals:
            classes = event["model_inputs"]["classes"]
            Number(self.classes, self.classes, integer=True).check(classes, "model_inputs.classes")
        return event

    def _check_step(self, event: StepEvent) -> None:
        """Check that attacks follow the order of the cascade, on the same images for every model."""
        scope = event["scope"]
        labels = self.labels.get((scope, event["chunk"]), tuple(event["labels"]))
        if labels != tuple(event["labels"]):
            raise Wrong("labels must be those of the chunk's earlier attacks")
        if self.totals:
            Number(self.classes, self.classes, integer=True).check(event["of_classes"], "of_classes")
        if scope in self.totals:
            Number(self.totals[scope], self.totals[scope], integer=True).check(event["total"], "total")
        Row(Number(0, event["of_classes"] - 1, integer=True)).check(event["labels"], "labels")
        Row(Number(-1, event["of_classes"] - 1, integer=True)).check(event["classes"], "classes")
        chunk = self.chunks.get((event["model"], scope, event["chunk"]))
        known = 0 if chunk is None else len(chunk.steps)
        # An attack that is already known may be repeated.
        Text((CLEAN, *attacks_of("autoattack", event["of_classes"]))[: known + 1]).check(event["attack"], "attack")

    def apply(self, event: VerdictEvent) -> bool:
        """Fold one event in."""
        getattr(self, f"_on_{event['event']}")(event)
        self.seconds = max(self.seconds, event["time"] - self._began)
        self.version += 1
        self.choice_version += _can_change_the_choice(event)
        return True

    def _on_begin(self, event: VerdictBeginEvent) -> None:
        self._began, self.seconds, self.ended = event["time"], 0.0, ""
        self.workers, self.versions = event["workers"], event["versions"]
        # Failed jobs may be possible now; running ones died with their session.
        self.running, self.failed, self.deaths = {}, {}, {}
        for model in self.models.values():
            model.lost = ""

    def _on_end(self, event: EndEvent) -> None:
        self.ended = event["reason"]
        self.running = {}

    def _on_workers(self, event: WorkersEvent) -> None:
        self.workers = event["workers"]

    def _on_model(self, event: ModelEvent) -> None:
        model = Trained(event["candidate"], event["seed"], event["recipe"], event["weights"])
        model.finished = bool(model.weights)
        self.models.setdefault(event["model"], model)

    def _on_job(self, event: VerdictJobEvent) -> None:
        self.running[event["job"]] = event["time"]

    def _on_epoch(self, event: VerdictEpochEvent) -> None:
        model = self.models[event["model"]]
        self._hold(event)
        if event["epoch"] in model.epochs:
            return
        model.epochs[event["epoch"]] = event
        model.seconds += event["seconds_attack"] + event["seconds_update"] + event["seconds_evaluation"]
        if event["is_rung"]:
            model.scores[event["epoch"]] = accuracies(event)

    def _on_step(self, event: StepEvent) -> None:
        self._hold(event)
        self.totals[event["scope"]], self.classes = event["total"], event["of_classes"]
        key = event["model"], event["scope"], event["chunk"]
        labels = self.labels.setdefault((event["scope"], event["chunk"]), tuple(event["labels"]))
        chunk = self.chunks.setdefault(key, Chunk(labels))
        if chunk.after(event["attack"]) is None:
            chunk.steps.append(Step(event["attack"], tuple(event["classes"]), tuple(event["warnings"])))

    def _on_checks(self, event: ChecksEvent) -> None:
        self._hold(event)
        self.checks[event["model"], event["baseline"]] = event

    def _on_job_end(self, event: VerdictJobEndEvent) -> None:
        self._hold(event)
        self.running.pop(event["job"], None)
        model = self.models[event["model"]]
        self.model_inputs = event.get("model_inputs", self.model_inputs)
        if event["status"] == "reached":
            self.deaths.pop(event["job"], None)
            model.finished = model.finished or event["kind"] == "train"
        elif event["status"] == "worker died":
            self.deaths[event["job"]] = self.deaths.get(event["job"], 0) + 1
        elif event["status"] == "weights damaged":
            # It is trained again from the latest intact checkpoint.
            model.finished, model.epochs, model.scores = False, {}, {}
        elif event["status"] != "broken off":
            self.failed[event["job"]] = event["reason"]
            # A failed attack does not rule out the model; attacks on test images must not affect who wins.
            model.lost = event["reason"] if event["kind"] == "train" or event["status"] == "given up" else model.lost

    def _on_test_access(self, event: VerdictTestAccessEvent) -> None:
        self.test_accesses.append({**event, "ended": False})

    def _on_test_access_end(self, event: TestAccessEndEvent) -> None:
        self.test_accesses[-1]["ended"] = True

    def _hold(self, event: VerdictEpochEvent | StepEvent | ChecksEvent | VerdictJobEndEvent) -> None:
        """Account for the time since the job's last event."""
        if (seen := self.running.get(event["job"])) is not None:
            self.worker_seconds += max(0.0, event["time"] - seen)
            self.running[event["job"]] = event["time"]


def _can_change_the_choice(event: VerdictEvent) -> bool:
    """False for events of which there are very many: the choice need not be made again after each of them."""
    if event["event"] == "step":
        return not event["scope"].startswith("test/")
    if event["event"] == "job_end":
        return (event["kind"], event["status"]) != ("attack", "reached")
    return event["event"] not in ("job", "workers")


def read_state(path: Path) -> State:
    """Fold the record of a verdict; an empty state if there is none. Raises `InputError` for one of another version."""
    state = State()
    if not path.is_file():
        return state
    hint = f"move the folder {path.parent} away to start a new verdict; the study itself is not touched"
    fold(path, read_lines(path).events, state, hint)
    state.bytes_read = path.stat().st_size
    return state
