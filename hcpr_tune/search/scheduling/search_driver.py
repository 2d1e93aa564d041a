"""What a search does when a worker is free, reports or dies, decided from the history alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

from hcpr_tune.errors import Interrupted
from hcpr_tune.search.record.history import PUBLISHED, REPLICATE, WORKER_DIED, History, Job, Source
from hcpr_tune.search.scheduling.asha import Decision, NewTrial, first_job, hopeless, next_decision, over_budget
from hcpr_tune.search.scheduling.driver import ENQUEUE, KILL, Surroundings
from hcpr_tune.search.scheduling.orders import Report, TrainOrder, job_result
from hcpr_tune.search.selection.replication import Replicate, answer, next_replicate
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec

FAILED_START_SECONDS = 1.0
"""A new process takes longer than this to start a job; one that fails sooner was already dead."""


class Suggests(Protocol):
    """The source of new trials' points, such as `sampler.Suggester`."""

    def suggest(self, number: int, history: History) -> tuple[Params, Source]: ...


class SearchDriver:
    """The `Driver` of a search. Decisions are recorded before they take effect."""

    def __init__(
        self,
        study: StudySpec,
        history: History,
        suggester: Suggests,
        surroundings: Surroundings,
        order_of: Callable[[Job, int], TrainOrder],
    ) -> None:
        """`order_of` makes the order of a job from the job and the latest epoch that is recorded of it."""
        self._study, self._asha_config, self._history = study, study.asha_config, history
        self._suggester, self._around, self._order_of = suggester, surroundings, order_of
        self._single = study.single_schedule
        self._decided: tuple[int, Decision | Replicate] | None = None

    @property
    def workers(self) -> int:
        return self._history.workers

    def poll(self) -> None:
        for request, name in self._around.requests():
            if request["kind"] == "stop":
                raise Interrupted("stopped on request")
            if request["kind"] == "enqueue":
                self._write(ENQUEUE, params=request["params"], request=name)
            else:
                self._write(KILL, trial=request["trial"], request=name)
        workers = self._around.workers()
        if workers != self._history.workers:
            self._write("workers", workers=workers)

    def next_job(self) -> Job | Literal["wait", "finished"]:
        """What a free worker does next; a new trial is recorded first, and the answer once there is nothing left."""
        decision = self._decide()
        if isinstance(decision, NewTrial):
            return self._open(decision)
        if isinstance(decision, Replicate):
            return self._repeat(decision)
        if decision == "finished":
            if self._history.running_jobs:
                return "wait"  # their last scores count for the answer
            self._choose()
        return decision

    def _decide(self) -> Decision | Replicate:
        """Ray asks continually while workers are free; without new events the answer is the same."""
        if self._decided is None or self._decided[0] != self._history.version:
            self._decided = self._history.version, self._next_decision()
        return self._decided[1]

    def _next_decision(self) -> Decision | Replicate:
        decision = next_decision(self._history, self._asha_config)
        spent = over_budget(self._history, self._asha_config) or hopeless(self._history)
        if decision not in ("wait", "finished") or spent:
            return decision
        return next_replicate(self._study, self._history, exploring=decision == "wait")

    def _open(self, new: NewTrial) -> Job:
        """Record a new trial and return its first job."""
        params, source = self._suggester.suggest(new.number, self._history)
        # The published recipe is trained as it and the finalists will be in the end; without finalists, as all others.
        single = source == PUBLISHED and self._study.replicates and self._study.recipe != self._single
        how = {"single_schedule": True} if single else {}
        self._write("trial", trial=new.number, params=params, source=source, **how)
        return first_job(self._history.trials[new.number], self._asha_config)

    def _repeat(self, replicate: Replicate) -> Job:
        """Record a replicate and return its job."""
        number, params = len(self._history.trials), self._history.trials[replicate.of].params
        how = {"single_schedule": True, "replicate_of": replicate.of, "seed": replicate.seed}
        self._write("trial", trial=number, params=params, source=REPLICATE, **how)
        return first_job(self._history.trials[number], self._asha_config)

    def _choose(self) -> None:
        """Record the answer, unless it is recorded."""
        if self._history.choice is None:
            found = answer(self._study, self._history)
            if found is not None:
                self._write("choice", trial=found[0], estimates=found[1])

    def started(self, job: Job) -> TrainOrder:
        self._write("job", trial=job.trial, start=job.start, end=job.end)
        return self._order_of(job, max(job.start, self._history.trials[job.trial].last_epoch))

    def reported(self, job: Job, report: Report) -> bool:
        for what in report.get("losses", []):
            self._write("loss", trial=job.trial, what=what)
        if "epoch" in report:
            self._write("epoch", trial=job.trial, **report["epoch"])
        if "end" in report:
            self._end(job, **job_result(report["end"]))
        return "end" in report

    def died(self, job: Job) -> None:
        """Record that the job's worker died; the job is run again unless that happened too often."""
        trial = self._history.trials[job.trial]
        failed_start = trial.fresh and self._around.clock() - trial.last_heartbeat < FAILED_START_SECONDS
        # Up to one failed start per worker is not the job's fault: the worker may have been dead already.
        counted = trial.deaths + (not failed_start) + max(0, trial.failed_starts + failed_start - self._history.workers)
        allowed = self._study.settings.resources.worker_deaths
        if counted > allowed:
            self._end(
                job,
                status="failed",
                reason=f"its worker process died {counted} times; resources.worker_deaths allows {allowed}",
            )
        else:
            self._end(job, status=WORKER_DIED, reason="its worker process died", failed_start=failed_start)

    def should_end(self, job: Job) -> bool:
        """Whether the job's trial was killed on request, the budget is spent, or the search is given up."""
        if self._history.trials[job.trial].kill_requested:
            self._end(job, status="killed", reason="killed on request")
        elif over_budget(self._history, self._asha_config):
            self._end(job, status="broken off", reason="the budget is spent")
        elif reason := hopeless(self._history):
            self._end(job, status="broken off", reason=f"the search was given up: {reason}")
        else:
            return False
        return True

    def seconds_left(self) -> float:
        return math.inf

    def _end(self, job: Job, **result: Any) -> None:
        self._write("job_end", trial=job.trial, start=job.start, end=job.end, **result)

    def _write(self, kind: str, **values: Any) -> None:
        """Append an event with the time of the clock."""
        self._around.write({"event": kind, "time": self._around.clock(), **values})
