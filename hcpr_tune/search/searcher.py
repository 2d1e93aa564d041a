"""A search's end of the bridge to Ray Tune: decides from the record alone what a free worker does, and writes what comes back into it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Literal

from hcpr_tune.errors import StorageError
from hcpr_tune.search.bridge import Bridge, Halt
from hcpr_tune.search.capacity import Capacity
from hcpr_tune.search.halving import Decision, NewTrial, first_job, hopeless, next_decision, over_budget
from hcpr_tune.search.history import WORKER_DIED, Event, History, Job
from hcpr_tune.search.inbox import STOP, Inbox
from hcpr_tune.search.record import Record
from hcpr_tune.search.results import StudyFolder, recipe_of_job, training_name
from hcpr_tune.search.sampler import Suggester
from hcpr_tune.search.space import Params
from hcpr_tune.search.study import Study
from hcpr_tune.search.trainable import UNWRITABLE
from hcpr_tune.settings import to_plain

JOB_KEYS = ("status", "reason", "traceback", "splits", "model_inputs", "losses")
"""Keys of a report that belong to the job, not to the epoch."""


STILLBORN_SECONDS = 1.0
"""A new process takes longer than this to begin with a job; one that fails sooner was dead."""


class JobSearcher(Bridge[Job]):
    """Decides from the record alone what a free worker does, and records it before the worker starts."""

    def __init__(self, study: Study, record: Record[History], folder: StudyFolder, capacity: Capacity) -> None:
        super().__init__()
        self._study, self._rules, self._record, self._folder = study, study.rules, record, folder
        self._capacity = capacity
        self._suggester, self._inbox = Suggester(study), Inbox(folder.place)
        self._decided: tuple[int, Decision] | None = None

    def look(self) -> None:
        self._read_inbox()
        self._follow_capacity()

    def has_room(self) -> bool:
        return len(self.jobs) < self._record.history.workers

    def next_work(self) -> Job | Literal["wait", "finished"]:
        decision = self._decide()
        return self._open(decision) if isinstance(decision, NewTrial) else decision

    def hand_out(self, work: Job) -> dict[str, Any]:
        self._write("job", trial=work.trial, start=work.start, end=work.end)
        return self._order(work)

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

    def take(self, work: Job, report: dict[str, Any]) -> None:
        """An epoch, and with the last one the job's end."""
        for what in report.get("losses", []):
            self._write("loss", trial=work.trial, what=what)
        if "epoch" in report:
            epoch = {name: value for name, value in report.items() if name not in JOB_KEYS}
            self._write("epoch", trial=work.trial, **epoch)
        if report["status"] not in ("training", UNWRITABLE):
            self._end(work, **{name: report[name] for name in JOB_KEYS if name in report and name != "losses"})

    def died(self, work: Job) -> None:
        """The job is handed out again, unless that happened too often."""
        trial = self._record.history.trials[work.trial]
        stillborn = trial.fresh and time.time() - trial.seen < STILLBORN_SECONDS
        # Each worker may have been dead before this job came to it; that says nothing of the job.
        counted = trial.deaths + (not stillborn) + max(0, trial.stillborn + stillborn - self._record.history.workers)
        allowed = self._study.settings.resources.worker_deaths
        if counted > allowed:
            self._end(
                work,
                status="failed",
                reason=f"its worker process died {counted} times; resources.worker_deaths allows {allowed}",
            )
        else:
            self._end(work, status=WORKER_DIED, reason="its worker process died", stillborn=stillborn)

    def broken_off(self, work: Job) -> bool:
        """End the job where somebody killed its trial, the budget is spent, or there is no hope."""
        history = self._record.history
        if history.trials[work.trial].unwanted:
            self._end(work, status="killed", reason="killed on request")
        elif over_budget(history, self._rules):
            self._end(work, status="broken off", reason="the budget is spent")
        elif reason := hopeless(history):
            self._end(work, status="broken off", reason=f"the search was given up: {reason}")
        else:
            return False
        return True

    def _read_inbox(self) -> None:
        for request in self._inbox.take(self._study, self._record.history):
            kind = request.pop("kind")
            if kind == STOP:
                self.halt = Halt(None)
            else:
                self._write(kind, **request)

    def _end(self, job: Job, **result: Any) -> None:
        self._write("job_end", trial=job.trial, start=job.start, end=job.end, **result)

    def _write(self, kind: str, **more: Any) -> None:
        if self.halt is not None:
            raise StorageError("the search has ended")
        event: Event = {"event": kind, "time": time.time(), **more}
        self._record.append(event)


def values_words(params: Params) -> str:
    """A trial's values in one line, each by the last part of its name where no other one ends so."""
    last = Counter(name.rpartition(".")[2] for name in params)
    short = {name: name.rpartition(".")[2] for name in params}
    named = {name if last[short[name]] > 1 else short[name]: value for name, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in named.items()
    )
