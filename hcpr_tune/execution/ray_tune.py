"""The Ray Tune adapter: a Searcher that hands out the jobs of a driver and takes their reports.

Each job runs as a separate Ray trial on a reused process, and no trial is paused. Ray's ids are not used elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic

from ray.tune import Stopper
from ray.tune.search import Searcher

from hcpr_tune.common.schema import Wrong
from hcpr_tune.errors import ClusterLost, Interrupted, StorageError
from hcpr_tune.execution.trainable import REPORT
from hcpr_tune.search.scheduling.driver import Driver, Work
from hcpr_tune.search.scheduling.orders import UNWRITABLE, Report, read_report, refused
from hcpr_tune.search.storage.object_store import storage_error
from hcpr_tune.training.plugins import PluginError


class Halt(BaseException):
    """Ends the search and its running jobs at once. Not an `Exception`, so that Ray does not first wait for jobs."""

    def __init__(self, cause: StorageError | ClusterLost | PluginError | Interrupted) -> None:
        """`cause`: the error of the storage, the cluster or the user's sampler, or a request to stop."""
        super().__init__(str(cause))
        self.cause = cause


class RayTuneAdapter(Searcher, Generic[Work]):  # type: ignore[misc]  # Ray is untyped
    """Asks its driver for a free worker's next job, and passes on what workers report.

    Once `halt` is set, the driver is not called any more: nothing is recorded after what ends the search.
    """

    def __init__(self, driver: Driver[Work]) -> None:
        super().__init__()
        self.jobs: dict[str, Work] = {}
        self.halt: Halt | None = None
        self._driver = driver
        self._latest: dict[str, str] = {}
        """The latest report by Ray trial: Ray passes some of them twice."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job for Ray's trial `trial_id`; None while all workers are busy or the next job must wait."""
        if self.halt is not None:
            return None
        with self._halting():
            self._driver.poll()
            job = self._driver.next_job() if len(self.jobs) < self._driver.workers else "wait"
            if job == "finished":
                finished: str = Searcher.FINISHED
                return finished
            if job != "wait":
                order = self._driver.started(job)
                self.jobs[trial_id] = job
                return {"job": json.dumps(order), "name": order["name"]}
        return None

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Errors of the storage, the cluster and the user's sampler, and requests to stop, end the search by `check`.

        Ray would blame an exception raised here on the trial.
        """
        try:
            yield
        except (StorageError, ClusterLost, PluginError, Interrupted) as error:
            self.halt = Halt(error)
        except OSError as error:
            self.halt = Halt(storage_error("the results cannot be written", error))

    def check(self) -> None:
        """Raises `Halt` if the search cannot go on, or a stop was requested."""
        if self.halt is not None:
            raise self.halt

    def abandon(self) -> bool:
        """Whether the driver's time is over; the end of all jobs that still run is then recorded."""
        if self.halt is None and self._driver.seconds_left() <= 0:
            with self._halting():
                for trial_id, job in list(self.jobs.items()):
                    if self._driver.should_end(job):
                        self._forget(trial_id)
            self.check()
            return True
        return False

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a worker's report: a step of its job or, with the last one, its end."""
        if self.halt is None:
            with self._halting():
                self._take(trial_id, result)

    def _take(self, trial_id: str, result: dict[str, Any]) -> None:
        job = self.jobs.get(trial_id)
        if job is None or REPORT not in result or self._latest.get(trial_id) == result[REPORT]:
            return
        self._latest[trial_id] = result[REPORT]
        report = _read(result[REPORT])
        if "end" in report and report["end"]["status"] == UNWRITABLE:
            raise StorageError(report["end"]["reason"])
        if self._driver.reported(job, report):
            self._forget(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray passes a job's last report only to this method; without one, the job's worker died.

        Ray's retries are off, since it does not retry if a process kept for reuse has died.
        """
        if self.halt is not None:
            return
        with self._halting():
            if not error:
                self._take(trial_id, result or {})
            job = self._forget(trial_id)
            if job is not None:
                self._driver.died(job)

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop the job after this report. Ray calls this before `on_trial_result`."""
        if self.halt is not None:
            return True
        with self._halting():
            self._take(trial_id, result)
            self._driver.poll()
            job = self.jobs.get(trial_id)
            if job is not None:
                if not self._driver.should_end(job):
                    return False
                self._forget(trial_id)
        return True

    def _forget(self, trial_id: str) -> Work | None:
        self._latest.pop(trial_id, None)
        return self.jobs.pop(trial_id, None)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Ray pickles its searchers, but the record is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: a resumed search is rebuilt from the record."""


def _read(text: str) -> Report:
    """A report; if it cannot be recorded, that its job failed."""
    try:
        return read_report(text)
    except Wrong as error:
        return refused(error)


class Ends(Stopper):  # type: ignore[misc]  # Ray is untyped
    """Asks the searcher after each report whether to stop the job, and in between whether to stop everything."""

    def __init__(self, searcher: RayTuneAdapter[Any]) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        self._searcher.check()
        return self._searcher.abandon()
