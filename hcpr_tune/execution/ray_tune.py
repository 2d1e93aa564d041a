"""The bridge to Ray Tune: a Searcher that hands out jobs of any kind and takes their reports.

Each job runs as a separate Ray trial on a reused process, and no trial is paused. Ray's ids are not used elsewhere.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar

from ray.tune import Stopper
from ray.tune.search import Searcher

from hcpr_tune.errors import ClusterLost, StorageError
from hcpr_tune.execution.trainable import REPORT, UNWRITABLE
from hcpr_tune.search.storage.object_store import storage_error
from hcpr_tune.training.plugins import PluginError

Work = TypeVar("Work")
"""A job, hashable or not."""


class Halt(BaseException):
    """Ends the search and its running jobs at once. Not an `Exception`, so that Ray does not first wait for jobs."""

    def __init__(self, cause: StorageError | ClusterLost | PluginError | None) -> None:
        """`cause`: the error of the storage, the cluster or the user's sampler; None if a stop was requested."""
        super().__init__(str(cause or "asked to stop"))
        self.cause = cause


class RayTuneAdapter(Searcher, Generic[Work]):  # type: ignore[misc]  # Ray is untyped
    """Asks its subclass for a free worker's next job, and passes on what workers report.

    The subclass records its decisions before the worker starts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Work] = {}
        self.halt: Halt | None = None
        self._absorbed: dict[str, str] = {}

    @abstractmethod
    def look(self) -> None:
        """Check for requests, and for nodes that joined or left."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether a worker is free."""

    @abstractmethod
    def next_work(self) -> Work | Literal["wait", "finished"]:
        """The next job for a free worker; `wait` if it depends on running jobs."""

    @abstractmethod
    def hand_out(self, work: Work) -> dict[str, Any]:
        """Record that the job begins, and return its order for the worker, with a `name`."""

    @abstractmethod
    def take(self, work: Work, report: dict[str, Any]) -> None:
        """Record what a worker reported; any status but `training` ends the job."""

    @abstractmethod
    def died(self, work: Work) -> None:
        """Record that the job's worker died."""

    @abstractmethod
    def broken_off(self, work: Work) -> bool:
        """Whether to stop the job after this report; if so, that is recorded."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job for Ray's trial `trial_id`; None while all workers are busy or the next job must wait."""
        with self._halting():
            self.look()
            work = self.next_work() if self.has_room() else "wait"
            if work == "finished":
                finished: str = Searcher.FINISHED
                return finished
            if work != "wait":
                order = self.hand_out(work)
                self.jobs[trial_id] = work
                return {"job": json.dumps(order), "name": order["name"]}
        return None

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Errors of the storage, the cluster and the user's sampler end the search through `check`.

        Ray would blame an exception raised here on the trial.
        """
        try:
            yield
        except (StorageError, ClusterLost, PluginError) as error:
            self.halt = self.halt or Halt(error)
        except OSError as error:
            self.halt = self.halt or Halt(storage_error("the results cannot be written", error))

    def check(self) -> None:
        """Raises `Halt` if the search cannot go on, or a stop was requested."""
        if self.halt is not None:
            raise self.halt

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a worker's report: a step of its job or, with the last one, its end."""
        with self._halting():
            self._absorb(trial_id, result)

    def _absorb(self, trial_id: str, result: dict[str, Any]) -> None:
        work = self.jobs.get(trial_id)
        if work is None or REPORT not in result or self._absorbed.get(trial_id) == result[REPORT]:
            return
        self._absorbed[trial_id] = result[REPORT]
        report = json.loads(result[REPORT])
        if report["status"] not in ("training", UNWRITABLE):
            self._forget(trial_id)
        self.take(work, report)
        if report["status"] == UNWRITABLE:
            raise StorageError(report["reason"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray passes a job's last report only to this method; without one, the job's worker died.

        Ray's retries are off, since it does not retry if a process kept for reuse has died.
        """
        with self._halting():
            if not error:
                self._absorb(trial_id, result or {})
            work = self._forget(trial_id)
            if work is not None:
                self.died(work)

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop the job after this report. Ray calls this before `on_trial_result`."""
        with self._halting():
            self._absorb(trial_id, result)
            self.look()
            work = self.jobs.get(trial_id)
            if work is None or not self.broken_off(work):
                return False
            self._forget(trial_id)
        return True

    def _forget(self, trial_id: str) -> Work | None:
        self._absorbed.pop(trial_id, None)
        return self.jobs.pop(trial_id, None)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Ray pickles its searchers, but the record is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: a resumed search is rebuilt from the record."""


class Ends(Stopper):  # type: ignore[misc]  # Ray is untyped
    """Asks the searcher after each report whether to stop the job, and in between whether to stop everything."""

    def __init__(self, searcher: RayTuneAdapter[Any]) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        self._searcher.check()
        return False
