"""The bridge to Ray Tune: a Searcher that hands out jobs and writes what comes back into the record.

Each job runs as a Ray trial of its own on a reused process, and nothing is paused. Ray's ids mean nothing outside this file.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from hcpr_tune.search.halving import Decision, NewTrial, next_decision
from hcpr_tune.search.record import Event, Job, Record
from hcpr_tune.search.sampler import suggest
from hcpr_tune.search.space import published_params, with_params
from hcpr_tune.search.study import Study
from hcpr_tune.search.trainable import REPORT
from hcpr_tune.settings import to_plain

JOB_KEYS = ("status", "reason", "traceback", "splits", "model_inputs")
"""Keys of a report that belong to the job, not to the epoch."""


class JobSearcher(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Decides from the record alone what a free worker does, and records it before the worker starts."""

    def __init__(self, study: Study, record: Record, checkpoints: Path, on_gpu: bool) -> None:
        super().__init__()
        self._study, self._record, self._checkpoints = study, record, checkpoints
        self._on_gpu = on_gpu
        self._jobs: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job for Ray's trial `trial_id`; None while only running jobs can bring something new."""
        decision = self._decide()
        if decision == "finished":
            finished: str = Searcher.FINISHED
            return finished
        if decision == "wait":
            return None
        job = self._open(decision) if isinstance(decision, NewTrial) else decision
        self._write("job", trial=job.trial, start=job.start, end=job.end)
        self._jobs[trial_id] = job
        return {"job": json.dumps(self._order(job)), "name": job.name}

    def _decide(self) -> Decision:
        settings = self._study.settings
        reduction_factor = settings.early_stopping.reduction_factor
        return next_decision(self._record.history, self._study.rungs, reduction_factor, settings.budget.trials)

    def _open(self, new: NewTrial) -> Job:
        """Record a new trial and return its first job."""
        if new.number == 0:
            params, source = published_params(self._study.recipe, self._study.space), "published"
        else:
            params, source = suggest(self._study, new.number, self._record.history), self._study.settings.sampler.name
        self._write("trial", trial=new.number, params=params, source=source)
        return Job(new.number, 0, self._study.rungs[0])

    def _order(self, job: Job) -> dict[str, Any]:
        """What the worker needs to know."""
        recipe = with_params(self._study.recipe, self._record.history.trials[job.trial].params)
        return {
            "recipe": to_plain(recipe),
            "start": job.start,
            "end": job.end,
            "checkpoints": str(self._checkpoints / f"trial_{job.trial:04d}"),
            "on_gpu": self._on_gpu,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record what a worker reported: an epoch, and with the last one the job's end."""
        job = self._jobs.get(trial_id)
        if job is None or REPORT not in result:
            return
        report = json.loads(result[REPORT])
        if "epoch" in report:
            epoch = {name: value for name, value in report.items() if name not in JOB_KEYS}
            self._write("epoch", trial=job.trial, **epoch)
        if report["status"] != "training":
            del self._jobs[trial_id]
            self._end(job, **{name: report[name] for name in JOB_KEYS if name in report})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray hands a job's last report only to this method. Without one, its worker died more often than Ray retries."""
        if not error:
            self.on_trial_result(trial_id, result or {})
        job = self._jobs.pop(trial_id, None)
        if job is not None:
            self._end(job, status="failed", reason="its worker process died again and again")

    def _end(self, job: Job, **result: Any) -> None:
        self._write("job_end", trial=job.trial, start=job.start, end=job.end, **result)

    def _write(self, kind: str, **more: Any) -> None:
        event: Event = {"event": kind, "time": time.time(), **more}
        self._record.append(event)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers, but the record is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search is built anew from the record."""
