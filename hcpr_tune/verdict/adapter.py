"""The verdict's Ray Tune adapter: hands out the tasks that follow from plan and record, and records the reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal

from hcpr_tune.common.settings import to_plain
from hcpr_tune.execution.capacity import Capacity
from hcpr_tune.execution.ray_tune import Halt, RayTuneAdapter
from hcpr_tune.execution.verdict_trainable import DAMAGED
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.storage.inbox import STOP, requests_in
from hcpr_tune.search.storage.object_store import ObjectStore
from hcpr_tune.training.attacks.cascade import attacks_of
from hcpr_tune.verdict.decision.agenda import TEST, Task, next_task, stages
from hcpr_tune.verdict.decision.selection import best_epoch, masking_of
from hcpr_tune.verdict.plan import Model, Plan
from hcpr_tune.verdict.state import State

LOOK_EVERY = 0.5
"""Seconds between two checks for a stop request."""
DIED, BROKEN_OFF = "worker died", "broken off"


class VerdictAdapter(RayTuneAdapter[Task]):
    """Hands out the agenda's tasks. `open_test` is called before the first test image is attacked: it records the test
    access, or raises.
    """

    def __init__(
        self,
        plan: Plan,
        record: Record[State],
        folder: StudyFolder,
        requests: ObjectStore,
        capacity: Capacity,
        open_test: Callable[[Collection[str], str], None],
    ) -> None:
        """`folder`: the verdict's folder; `requests`: where stop requests arrive."""
        super().__init__()
        self._plan, self._record, self._folder, self._requests = plan, record, folder, requests
        self._capacity, self._open_test = capacity, open_test
        self._began, self._looked = time.monotonic(), 0.0
        self._decided: tuple[int, Task | Literal["wait", "finished"]] | None = None

    @property
    def _state(self) -> State:
        return self._record.history

    def look(self) -> None:
        workers = self._capacity.now()
        if workers != self._state.workers:
            self._write("workers", workers=workers)
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = time.monotonic()
            for key, request in requests_in(self._requests):
                # Requests of other kinds are for the search.
                if isinstance(request, dict) and request.get("kind") == STOP:
                    self._requests.delete(key)
                    self.halt = Halt(None)

    def has_room(self) -> bool:
        return len(self.jobs) < self._state.workers

    def next_work(self) -> Task | Literal["wait", "finished"]:
        seconds = time.monotonic() - self._began
        if self._decided is None or self._decided[0] != self._state.version or seconds >= self._plan.seconds:
            self._decided = self._state.version, next_task(self._plan, self._state, seconds)
        return self._decided[1]

    def hand_out(self, work: Task) -> dict[str, Any]:
        if work.split == TEST:
            models = {model.id for model in list(stages(self._plan, self._state))[-1].models}
            self._open_test(models, self._plan.scope(TEST))
        if work.model.id not in self._state.models:
            self._write_model(work.model)
        self._write("job", job=work.key)
        common = {
            "kind": work.kind,
            "study": self._folder.root.parent.name,
            "name": f"verdict on {self._folder.root.parent.name}: {work.words}",
            "values": "",
            "recipe": to_plain(work.model.recipe),
            "gpus": self._capacity.share.gpus_per_trial,
            "store": self._folder.checkpoint_store.address,
            **self._weights(work.model),
        }
        orders = {"train": self._order_to_train, "attack": self._order_to_attack, "look": self._order_to_look}
        return common | orders[work.kind](work)

    def _write_model(self, model: Model) -> None:
        self._write(
            "model",
            model=model.id,
            candidate=model.candidate,
            seed=model.seed,
            recipe=to_plain(model.recipe),
            weights=model.weights,
        )

    def _weights(self, model: Model) -> dict[str, Any]:
        known = self._state.models[model.id]
        return {"training": training_name(model.id), "epoch": best_epoch(self._plan, known)}

    def _order_to_train(self, task: Task) -> dict[str, Any]:
        known = self._state.models[task.model.id]
        return {
            "start": 0,
            "end": task.model.recipe.last_epoch,
            "reported": known.last_epoch,
            "checkpoints": self._folder.checkpoint_store.where(training_name(task.model.id)),
            "checkpoint_every": 1,
        }

    def _order_to_attack(self, task: Task) -> dict[str, Any]:
        chunk = self._state.chunks.get((task.model.id, self._plan.scope(task.split), task.chunk))
        latest = chunk.steps[-1] if chunk is not None else None
        return {
            "split": task.split,
            "images": self._images(task.split),
            "chunk_size": self._plan.chunk,
            "chunk": task.chunk,
            "cascade": task.cascade,
            "begun": None if latest is None else {"attack": latest.attack, "classes": list(latest.classes)},
        }

    def _order_to_look(self, task: Task) -> dict[str, Any]:
        chunk = self._state.chunks[task.model.id, self._plan.scope("validation"), 0]
        step = chunk.after(attacks_of("strong", self._state.classes)[-1])
        assert step is not None
        baseline = None
        if task.baseline is not None:
            baseline = {"recipe": to_plain(task.baseline.recipe), **self._weights(task.baseline)}
        return {
            "images": self._images("validation"),
            "chunk_size": self._plan.chunk,
            "survive": [one == label for one, label in zip(step.classes, chunk.labels, strict=True)],
            "baseline": baseline,
            "with_masking": self._not_counted_yet(task.model),
        }

    def _not_counted_yet(self, model: Model) -> bool:
        """Whether the attacked weights were not checked for masked gradients yet. Training checks its last epoch's."""
        known = self._state.models[model.id]
        return masking_of(self._state, model) is None or best_epoch(self._plan, known) != known.last_epoch

    def _images(self, split: str) -> int:
        return self._plan.test_images if split == TEST else self._plan.images

    def take(self, work: Task, report: dict[str, Any]) -> None:
        model = work.model.id
        if work.kind == "train" and "epoch" in report:
            kept = {name: value for name, value in report.items() if name not in NOT_KEPT}
            self._write("epoch", model=model, job=work.key, **kept)
        if "attack" in report:
            step = {name: report[name] for name in STEP_KEYS}
            scope = self._plan.scope(work.split)
            self._write("step", model=model, job=work.key, scope=scope, chunk=work.chunk, **step)
        if "look" in report:
            baseline = work.baseline.id if work.baseline is not None else ""
            self._write("look", model=model, job=work.key, baseline=baseline, **report["look"])
        if report["status"] == DAMAGED:
            self._damaged(work, report)
        elif report["status"] not in ("training", "unwritable"):
            more = {name: report[name] for name in ("model_inputs", "traceback") if name in report}
            self._end(work, report["status"], report["reason"], **more)
            if work.kind == "train" and report["status"] == "reached":
                self._drop_all_but_the_best(work.model)

    def _drop_all_but_the_best(self, model: Model) -> None:
        """Drop the checkpoints of all rungs but the one that is evaluated."""
        best = best_epoch(self._plan, self._state.models[model.id])
        for epoch in model.recipe.rung_epochs:
            if epoch != best:
                self._folder.checkpoint_store.drop(training_name(model.id), epoch)

    def _damaged(self, task: Task, report: dict[str, Any]) -> None:
        """Train the damaged model (or baseline) again from before the damage; an external model cannot be."""
        both = [task.model] if task.baseline is None else [task.model, task.baseline]
        model = next(one for one in both if training_name(one.id) == report["training"])
        known = self._state.models[model.id]
        if known.weights:
            reason = (
                f"the weights of {model.candidate} are damaged ({report['reason']}); run it again to copy them again"
            )
            self._end(replace(task, model=model), "given up", reason, job=task.key)
            return
        if not known.finished:
            # Another job has already found the damage, and the model is being trained again.
            self._end(task, BROKEN_OFF, report["reason"])
            return
        for epoch in range(report["of_epoch"], known.last_epoch + 1):
            self._folder.checkpoint_store.drop(report["training"], epoch)
        self._end(replace(task, model=model), DAMAGED, report["reason"], job=task.key)

    def died(self, work: Task) -> None:
        """Let the job continue from what is recorded, unless its workers died too often."""
        deaths = self._state.deaths.get(work.key, 0) + 1
        if deaths > self._plan.worker_deaths:
            reason = (
                f"its worker process died {deaths} times; resources.worker_deaths allows {self._plan.worker_deaths}"
            )
            self._end(work, "failed", reason)
        else:
            self._end(work, DIED, "its worker process died")

    def broken_off(self, work: Task) -> bool:
        spent = self._state.worker_seconds >= self._plan.worker_seconds
        if time.monotonic() - self._began < self._plan.seconds and not spent:
            return False
        self._end(work, BROKEN_OFF, "the time for the verdict is spent")
        return True

    def _end(self, task: Task, status: str, reason: str, **more: Any) -> None:
        ended = {"model": task.model.id, "job": task.key, "kind": task.kind, "status": status, "reason": reason}
        self._write("job_end", **ended | more)

    def _write(self, what: str, **more: Any) -> None:
        self._record.append({"event": what, "time": self._record.clock(), **more})


STEP_KEYS = ("attack", "classes", "warnings", "labels", "total", "of_classes", "worker")
NOT_KEPT = ("status", "reason", "splits", "model_inputs", "losses", "recipe", "attacked_pairs_validation")
"""Keys of an epoch's report that a verdict does not record."""


def training_name(model: str) -> str:
    """The name of a model's training among the checkpoints of a verdict."""
    return f"model_{model}"
