"""The bridge to Ray Tune: a Searcher that hands out jobs and writes what comes back into the record.

Each job runs as a Ray trial of its own on a reused process, and nothing is paused. Ray's ids mean nothing outside this file.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher

from hcpr_tune.errors import StorageError
from hcpr_tune.search.capacity import Capacity
from hcpr_tune.search.halving import Decision, NewTrial, first_job, hopeless, next_decision, over_budget
from hcpr_tune.search.history import WORKER_DIED, Event, Job
from hcpr_tune.search.inbox import STOP, Inbox
from hcpr_tune.search.place import storage_error
from hcpr_tune.search.record import Record
from hcpr_tune.search.results import StudyFolder, recipe_of_job, training_name
from hcpr_tune.search.sampler import Suggester
from hcpr_tune.search.space import Params
from hcpr_tune.search.study import Study
from hcpr_tune.search.trainable import REPORT, UNWRITABLE
from hcpr_tune.settings import to_plain

JOB_KEYS = ("status", "reason", "traceback", "splits", "model_inputs", "losses")
"""Keys of a report that belong to the job, not to the epoch."""


STILLBORN_SECONDS = 1.0
"""A new process takes longer than this to begin with a job; one that fails sooner was dead."""


class Halt(BaseException):
    """Ends the search at once, running epochs and all; no `Exception`, so that Ray does not first wait for them."""

    def __init__(self, cause: StorageError | None) -> None:
        """`cause`: what went wrong with the storage; None where somebody asked for the end."""
        super().__init__(str(cause or "asked to stop"))
        self.cause = cause


class JobSearcher(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Decides from the record alone what a free worker does, and records it before the worker starts."""

    def __init__(self, study: Study, record: Record, folder: StudyFolder, capacity: Capacity) -> None:
        super().__init__()
        self._study, self._rules, self._record, self._folder = study, study.rules, record, folder
        self._capacity = capacity
        self._suggester, self._inbox = Suggester(study), Inbox(folder.place)
        self._jobs: dict[str, Job] = {}
        self._absorbed: dict[str, str] = {}
        self._decided: tuple[int, Decision] | None = None
        self._halt: Halt | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job for Ray's trial `trial_id`; None while all workers are busy, or only running jobs can bring something new."""
        with self._halting():
            self._read_inbox()
            self._follow_capacity()
            decision = self._decide() if len(self._jobs) < self._record.history.workers else "wait"
            if decision == "finished":
                finished: str = Searcher.FINISHED
                return finished
            if decision != "wait":
                job = self._open(decision) if isinstance(decision, NewTrial) else decision
                self._write("job", trial=job.trial, start=job.start, end=job.end)
                self._jobs[trial_id] = job
                return {"job": json.dumps(self._order(job)), "name": self._name(job)}
        return None

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """What the storage does not let be recorded ends the search, by `check`: Ray takes a raise here for the trial's own fault."""
        try:
            yield
        except (StorageError, OSError) as error:
            cause = error if isinstance(error, StorageError) else storage_error("the results cannot be written", error)
            self._halt = self._halt or Halt(cause)

    def check(self) -> None:
        """Raises `Halt` where the search cannot go on, or somebody asked for its end."""
        if self._halt is not None:
            raise self._halt

    def _follow_capacity(self) -> None:
        """Nodes come and go."""
        workers = self._capacity.now()
        if workers != self._record.history.workers:
            self._write("workers", workers=workers)

    def _decide(self) -> Decision:
        """Ray asks again and again while workers are free; without news the answer is the same."""
        history = self._record.history
        if self._decided is None or self._decided[0] != history.version:
            self._decided = history.version, next_decision(history, self._rules)
        return self._decided[1]

    def _open(self, new: NewTrial) -> Job:
        """Record a new trial and return its first job."""
        params, source = self._suggester.suggest(new.number, self._record.history)
        self._write("trial", trial=new.number, params=params, source=source)
        return first_job(self._record.history.trials[new.number], self._rules)

    def _order(self, job: Job) -> dict[str, Any]:
        """What the worker needs to know."""
        trial = self._record.history.trials[job.trial]
        recipe = recipe_of_job(self._study, trial, job)
        return {
            "study": self._folder.root.name,
            "name": self._name(job),
            "values": values_words(trial.params),
            "recipe": to_plain(recipe),
            "start": job.start,
            "end": job.end,
            "reported": max(job.start, trial.last_epoch),
            "checkpoints": self._folder.store.where(training_name(job.trial, job.end, self._study.restarted)),
            "gpus": self._capacity.share.gpus_per_trial,
        }

    def _name(self, job: Job) -> str:
        """What Ray calls a job, and the worker in its log: one cluster may run several studies."""
        return f"study {self._folder.root.name}: {job.name} (rung {job.end})"

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record what a worker reported: an epoch, and with the last one the job's end."""
        with self._halting():
            self._absorb(trial_id, result)

    def _absorb(self, trial_id: str, result: dict[str, Any]) -> None:
        job = self._jobs.get(trial_id)
        if job is None or REPORT not in result or self._absorbed.get(trial_id) == result[REPORT]:
            return
        self._absorbed[trial_id] = result[REPORT]
        report = json.loads(result[REPORT])
        for what in report.get("losses", []):
            self._write("loss", trial=job.trial, what=what)
        if "epoch" in report:
            epoch = {name: value for name, value in report.items() if name not in JOB_KEYS}
            self._write("epoch", trial=job.trial, **epoch)
        if report["status"] == UNWRITABLE:
            raise StorageError(report["reason"])
        if report["status"] != "training":
            self._forget(trial_id)
            self._end(job, **{name: report[name] for name in JOB_KEYS if name in report and name != "losses"})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray hands a job's last report only to this method. Without one, its worker died: the job is handed out again, unless that happened too often.

        Ray's own retries are off: it does not retry where a process that it kept for reuse has died.
        """
        with self._halting():
            if not error:
                self._absorb(trial_id, result or {})
            job = self._forget(trial_id)
            if job is not None:
                self._died(job)

    def _died(self, job: Job) -> None:
        trial = self._record.history.trials[job.trial]
        stillborn = trial.fresh and time.time() - trial.seen < STILLBORN_SECONDS
        # Each worker may have been dead before this job came to it; that says nothing of the job.
        counted = trial.deaths + (not stillborn) + max(0, trial.stillborn + stillborn - self._record.history.workers)
        allowed = self._study.settings.resources.worker_deaths
        if counted > allowed:
            self._end(
                job,
                status="failed",
                reason=f"its worker process died {counted} times; resources.worker_deaths allows {allowed}",
            )
        else:
            self._end(job, status=WORKER_DIED, reason="its worker process died", stillborn=stillborn)

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Ray asks this first at each report: whether the job ends with this epoch."""
        with self._halting():
            self._absorb(trial_id, result)
            self._read_inbox()
            return self._broken_off(trial_id)
        return True

    def _broken_off(self, trial_id: str) -> bool:
        """End the job where somebody killed its trial, the budget is spent, or there is no hope."""
        job, history = self._jobs.get(trial_id), self._record.history
        if job is None:
            return False
        if history.trials[job.trial].unwanted:
            self._end(job, status="killed", reason="killed on request")
        elif over_budget(history, self._rules):
            self._end(job, status="broken off", reason="the budget is spent")
        elif reason := hopeless(history):
            self._end(job, status="broken off", reason=f"the search was given up: {reason}")
        else:
            return False
        self._forget(trial_id)
        return True

    def _forget(self, trial_id: str) -> Job | None:
        self._absorbed.pop(trial_id, None)
        return self._jobs.pop(trial_id, None)

    def _read_inbox(self) -> None:
        for request in self._inbox.take(self._study, self._record.history):
            kind = request.pop("kind")
            if kind == STOP:
                self._halt = Halt(None)
            else:
                self._write(kind, **request)

    def _end(self, job: Job, **result: Any) -> None:
        self._write("job_end", trial=job.trial, start=job.start, end=job.end, **result)

    def _write(self, kind: str, **more: Any) -> None:
        if self._halt is not None:
            raise StorageError("the search has ended")
        event: Event = {"event": kind, "time": time.time(), **more}
        self._record.append(event)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers, but the record is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search is built anew from the record."""


def values_words(params: Params) -> str:
    """A trial's values in one line, each by the last part of its name where no other one ends so."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: name.rpartition(".")[2] for name in params}
    named = {name if last[short[name]] > 1 else short[name]: value for name, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in named.items()
    )


class Ends(Stopper):  # type: ignore[misc]  # Ray is untyped
    """Asks the searcher after each report whether the job ends with it, and in between whether all of it does."""

    def __init__(self, searcher: JobSearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        self._searcher.check()
        return False
