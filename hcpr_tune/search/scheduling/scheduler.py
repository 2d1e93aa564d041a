"""What a search does when a worker is free, reports or dies, decided from the history alone.

Decisions are recorded before they take effect. Independent of Ray and of the clock: the same code runs real searches
and, under a virtual clock, simulated ones (`hcpr_tune.simulation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast

from hcpr_tune.search.record.events.search import EpochEvent, JobEndEvent
from hcpr_tune.search.record.history import WORKER_DIED, Event, History, Job, Source
from hcpr_tune.search.scheduling.asha import Decision, NewTrial, first_job, hopeless, next_decision, over_budget
from hcpr_tune.search.spec.space import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.inbox import EnqueueRequest, KillRequest

JOB_KEYS = ("status", "reason", "traceback", "splits", "model_inputs", "losses")
"""Keys of a report that belong to the job, not to the epoch."""
FAILED_START_SECONDS = 1.0
"""A new process takes longer than this to start a job; one that fails sooner was already dead."""


class Suggests(Protocol):
    """The source of new trials' points, such as `sampler.Suggester`."""

    def suggest(self, number: int, history: History) -> tuple[Params, Source]: ...


class Scheduler:
    """Records what happened and decides what comes next.

    `write` appends an event to the record and folds it into `history`.
    """

    def __init__(
        self,
        study: StudySpec,
        history: History,
        suggester: Suggests,
        write: Callable[[Event], object],
        clock: Callable[[], float],
    ) -> None:
        self._study, self._asha_config, self._history = study, study.asha_config, history
        self._suggester, self._append, self._clock = suggester, write, clock
        self._decided: tuple[int, Decision] | None = None

    def next_work(self) -> Job | Literal["wait", "finished"]:
        """What a free worker does next; a new trial is recorded first."""
        decision = self._decide()
        return self._open(decision) if isinstance(decision, NewTrial) else decision

    def _decide(self) -> Decision:
        """Ray asks continually while workers are free; without new events the answer is the same."""
        if self._decided is None or self._decided[0] != self._history.version:
            self._decided = self._history.version, next_decision(self._history, self._asha_config)
        return self._decided[1]

    def _open(self, new: NewTrial) -> Job:
        """Record a new trial and return its first job."""
        params, source = self._suggester.suggest(new.number, self._history)
        self.write({"event": "trial", "time": self._clock(), "trial": new.number, "params": params, "source": source})
        return first_job(self._history.trials[new.number], self._asha_config)

    def begin(self, work: Job) -> int:
        """Record that a worker starts a job; returns the latest epoch already recorded."""
        self.write({"event": "job", "time": self._clock(), "trial": work.trial, "start": work.start, "end": work.end})
        return max(work.start, self._history.trials[work.trial].last_epoch)

    def take(self, work: Job, report: Mapping[str, Any], ends: bool) -> None:
        """Record a report of a job and, if it `ends` the job, the end."""
        for what in report.get("losses", []):
            self.write({"event": "loss", "time": self._clock(), "trial": work.trial, "what": what})
        if "epoch" in report:
            epoch = {name: value for name, value in report.items() if name not in JOB_KEYS}
            event = {"event": "epoch", "time": self._clock(), "trial": work.trial, **epoch}
            # What a worker says is checked by the record, before it is written.
            self.write(cast(EpochEvent, event))
        if ends:
            self._end(work, **{name: report[name] for name in JOB_KEYS if name in report and name != "losses"})

    def died(self, work: Job) -> None:
        """Record that the job's worker died; the job is run again unless that happened too often."""
        trial = self._history.trials[work.trial]
        failed_start = trial.fresh and self._clock() - trial.last_heartbeat < FAILED_START_SECONDS
        # Up to one failed start per worker is not the job's fault: the worker may have been dead already.
        counted = trial.deaths + (not failed_start) + max(0, trial.failed_starts + failed_start - self._history.workers)
        allowed = self._study.settings.resources.worker_deaths
        if counted > allowed:
            self._end(
                work,
                status="failed",
                reason=f"its worker process died {counted} times; resources.worker_deaths allows {allowed}",
            )
        else:
            self._end(work, status=WORKER_DIED, reason="its worker process died", failed_start=failed_start)

    def broken_off(self, work: Job) -> bool:
        """End the job if its trial was killed on request, the budget is spent, or the search is given up."""
        if self._history.trials[work.trial].kill_requested:
            self._end(work, status="killed", reason="killed on request")
        elif over_budget(self._history, self._asha_config):
            self._end(work, status="broken off", reason="the budget is spent")
        elif reason := hopeless(self._history):
            self._end(work, status="broken off", reason=f"the search was given up: {reason}")
        else:
            return False
        return True

    def has(self, workers: int) -> None:
        """Record the number of trials that fit now, after nodes joined or left."""
        if workers != self._history.workers:
            self.write({"event": "workers", "time": self._clock(), "workers": workers})

    def _end(self, job: Job, **result: Any) -> None:
        ended = {"event": "job_end", "time": self._clock(), "trial": job.trial, "start": job.start, "end": job.end}
        self.write(cast(JobEndEvent, ended | result))

    def request(self, request: EnqueueRequest | KillRequest, name: str) -> None:
        """Record a request called `name` in the inbox."""
        if request["kind"] == "enqueue":
            self.write({"event": "enqueue", "time": self._clock(), "params": request["params"], "request": name})
        else:
            self.write({"event": "kill", "time": self._clock(), "trial": request["trial"], "request": name})

    def write(self, event: Event) -> None:
        """Append an event."""
        self._append(event)
