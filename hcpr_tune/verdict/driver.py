"""The driver of a verdict: hands out the jobs that follow from its plan and record, and records the reports."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal, Protocol

from hcpr_tune.common.schema import Wrong
from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import Interrupted
from hcpr_tune.search.record.history import WORKER_DIED
from hcpr_tune.search.scheduling.driver import STOP, Surroundings
from hcpr_tune.search.scheduling.orders import (
    DAMAGED,
    FAILED,
    REACHED,
    AttackOrder,
    Baseline,
    ChecksOrder,
    Common,
    JobEnd,
    Order,
    Report,
    TrainOrder,
    Weights,
    refused,
)
from hcpr_tune.training.attacks.cascade import attacks_of
from hcpr_tune.verdict.decision.agenda import TEST, Task, next_task, stages
from hcpr_tune.verdict.decision.selection import best_epoch, masking_of
from hcpr_tune.verdict.plan import Model, Plan
from hcpr_tune.verdict.state import State

BROKEN_OFF = "broken off"
NOT_KEPT = ("recipe", "attacked_pairs_validation", "survived_validation", "survivors_validation")
"""Fields of an epoch that a verdict does not record."""


class Checkpoints(Protocol):
    """What a driver needs of a `CheckpointStore`."""

    @property
    def address(self) -> str: ...

    def where(self, training: str) -> str: ...

    def drop(self, training: str, epoch: int) -> None: ...


class VerdictDriver:
    """The `Driver` of a verdict. `open_test` is called before the first test image is attacked: it records the test
    access, or raises.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        surroundings: Surroundings,
        study: str,
        store: Checkpoints,
        open_test: Callable[[Collection[str], str], None],
        gpus: float = 0.0,
    ) -> None:
        """`store`: the verdict's checkpoints; `gpus`: the GPUs, or the share of one, of each worker."""
        self._plan, self._state, self._around = plan, state, surroundings
        self._study, self._store, self._open_test, self._gpus = study, store, open_test, gpus
        self._began = surroundings.clock()
        self._decided: tuple[int, Task | Literal["wait", "finished"]] | None = None

    @property
    def workers(self) -> int:
        return self._state.workers

    def poll(self) -> None:
        workers = self._around.workers()
        if workers != self._state.workers:
            self._write("workers", workers=workers)
        if any(request["kind"] == STOP for request, _ in self._around.requests()):
            raise Interrupted("stopped on request")

    def next_job(self) -> Task | Literal["wait", "finished"]:
        seconds = self._around.clock() - self._began
        if self._decided is None or self._decided[0] != self._state.version or seconds >= self._plan.seconds:
            self._decided = self._state.version, next_task(self._plan, self._state, seconds)
        return self._decided[1]

    def started(self, job: Task) -> Order:
        if job.split == TEST:
            models = {model.id for model in list(stages(self._plan, self._state))[-1].models}
            self._open_test(models, self._plan.scope(TEST))
        if job.model.id not in self._state.models:
            self._write_model(job.model)
        self._write("job", job=job.key)
        if job.kind == "train":
            return self._order_to_train(job)
        return self._order_to_attack(job) if job.kind == "attack" else self._order_to_check(job)

    def _write_model(self, model: Model) -> None:
        self._write(
            "model",
            model=model.id,
            candidate=model.candidate,
            seed=model.seed,
            recipe=to_plain(model.recipe),
            weights=model.weights,
        )

    def _common(self, task: Task) -> Common:
        name = f"verdict on {self._study}: {task.words}"
        recipe = to_plain(task.model.recipe)
        return {"study": self._study, "name": name, "values": "", "recipe": recipe, "gpus": self._gpus}

    def _weights(self, model: Model) -> Weights:
        known = self._state.models[model.id]
        return {"training": training_name(model.id), "epoch": best_epoch(self._plan, known)}

    def _order_to_train(self, task: Task) -> TrainOrder:
        return {
            "kind": "train",
            **self._common(task),
            "start": 0,
            "end": task.model.recipe.last_epoch,
            "reported": self._state.models[task.model.id].last_epoch,
            "checkpoints": self._store.where(training_name(task.model.id)),
            "checkpoint_every": 1,
        }

    def _order_to_attack(self, task: Task) -> AttackOrder:
        chunk = self._state.chunks.get((task.model.id, self._plan.scope(task.split), task.chunk))
        latest = chunk.steps[-1] if chunk is not None else None
        return {
            "kind": "attack",
            **self._common(task),
            "store": self._store.address,
            "weights": self._weights(task.model),
            "split": task.split,
            "images": self._plan.test_images if task.split == TEST else self._plan.images,
            "chunk_size": self._plan.chunk,
            "chunk": task.chunk,
            "cascade": task.cascade,
            "begun": None if latest is None else {"attack": latest.attack, "classes": list(latest.classes)},
        }

    def _order_to_check(self, task: Task) -> ChecksOrder:
        chunk = self._state.chunks[task.model.id, self._plan.scope("validation"), 0]
        step = chunk.after(attacks_of("strong", self._state.classes)[-1])
        assert step is not None
        baseline: Baseline | None = None
        if task.baseline is not None:
            baseline = {"recipe": to_plain(task.baseline.recipe), "weights": self._weights(task.baseline)}
        return {
            "kind": "checks",
            **self._common(task),
            "store": self._store.address,
            "weights": self._weights(task.model),
            "images": self._plan.images,
            "chunk_size": self._plan.chunk,
            "survive": [one == label for one, label in zip(step.classes, chunk.labels, strict=True)],
            "baseline": baseline,
            "with_masking": self._not_counted_yet(task.model),
        }

    def _not_counted_yet(self, model: Model) -> bool:
        """Whether the attacked weights were not checked for masked gradients yet. Training checks its last epoch's."""
        known = self._state.models[model.id]
        return masking_of(self._state, model) is None or best_epoch(self._plan, known) != known.last_epoch

    def reported(self, job: Task, report: Report) -> bool:
        """Record what the job's worker reported; a report that does not fit what is known fails the job."""
        try:
            self._record_results(job, report)
            end = report.get("end")
            if end is None:
                return False
            self._record_end(job, end)
        except Wrong as error:
            self._record_end(job, refused(error)["end"])
        return True

    def _record_results(self, job: Task, report: Report) -> None:
        of = {"model": job.model.id, "job": job.key}
        if "epoch" in report:
            kept = {name: value for name, value in report["epoch"].items() if name not in NOT_KEPT}
            self._write("epoch", **of, **kept)
        if "attack" in report:
            self._write("step", **of, scope=self._plan.scope(job.split), chunk=job.chunk, **report["attack"])
        if "checks" in report:
            baseline = job.baseline.id if job.baseline is not None else ""
            self._write("checks", **of, baseline=baseline, **report["checks"])

    def _record_end(self, job: Task, end: JobEnd) -> None:
        if end["status"] == DAMAGED:
            self._damaged(job, end["damaged"], end["reason"])
            return
        more = {name: end[name] for name in ("model_inputs", "traceback") if name in end}
        self._end(job, end["status"], end["reason"], **more)
        if job.kind == "train" and end["status"] == REACHED:
            self._drop_all_but_the_best(job.model)

    def _drop_all_but_the_best(self, model: Model) -> None:
        """Drop the checkpoints of all rungs but the one that is evaluated."""
        best = best_epoch(self._plan, self._state.models[model.id])
        for epoch in model.recipe.rung_epochs:
            if epoch != best:
                self._store.drop(training_name(model.id), epoch)

    def _damaged(self, task: Task, weights: Weights, reason: str) -> None:
        """Train the damaged model (or baseline) again from before the damage; an external model cannot be."""
        both = [task.model] if task.baseline is None else [task.model, task.baseline]
        model = next(one for one in both if training_name(one.id) == weights["training"])
        known = self._state.models[model.id]
        if known.weights:
            words = f"the weights of {model.candidate} are damaged ({reason}); run it again to copy them again"
            self._end(replace(task, model=model), "given up", words, job=task.key)
            return
        if not known.finished:
            # Another job has already found the damage, and the model is being trained again.
            self._end(task, BROKEN_OFF, reason)
            return
        for epoch in range(weights["epoch"], known.last_epoch + 1):
            self._store.drop(weights["training"], epoch)
        self._end(replace(task, model=model), DAMAGED, reason, job=task.key)

    def died(self, job: Task) -> None:
        """Let the job continue from what is recorded, unless its workers died too often."""
        deaths = self._state.deaths.get(job.key, 0) + 1
        if deaths > self._plan.worker_deaths:
            allowed = f"resources.worker_deaths allows {self._plan.worker_deaths}"
            self._end(job, FAILED, f"its worker process died {deaths} times; {allowed}")
        else:
            self._end(job, WORKER_DIED, "its worker process died")

    def should_end(self, job: Task) -> bool:
        spent = self._state.worker_seconds >= self._plan.worker_seconds
        if self.seconds_left() > 0 and not spent:
            return False
        self._end(job, BROKEN_OFF, "the time for the verdict is spent")
        return True

    def seconds_left(self) -> float:
        return self._began + self._plan.seconds - self._around.clock()

    def _end(self, task: Task, status: str, reason: str, **more: Any) -> None:
        ended = {"model": task.model.id, "job": task.key, "kind": task.kind, "status": status, "reason": reason}
        self._write("job_end", **ended | more)

    def _write(self, what: str, **values: Any) -> None:
        """Raises `Wrong` for an event that cannot follow what is recorded; nothing is written then."""
        event = {"event": what, "time": self._around.clock(), **values}
        self._state.check(event)
        self._around.write(event)


def training_name(model: str) -> str:
    """The name of a model's training among the checkpoints of a verdict."""
    return f"model_{model}"
