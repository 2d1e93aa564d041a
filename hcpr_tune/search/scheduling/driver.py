"""The port between what decides and what runs the jobs.

A driver decides which job runs next and records what happens. It is implemented for searches (`SearchDriver`) and for
verdicts (`verdict.driver.VerdictDriver`), and knows neither Ray nor a clock of its own: `execution.ray_tune` runs its
jobs on Ray Tune, `simulation.simulation` under a virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypedDict, TypeVar

from hcpr_tune.search.scheduling.orders import Order, Report
from hcpr_tune.search.spec.dimensions import Params

ENQUEUE: Final = "enqueue"
KILL: Final = "kill"
STOP: Final = "stop"
"""The kinds of requests; a request to stop is the only one that leaves no event."""
Work = TypeVar("Work")
"""A job of a search (`record.history.Job`) or a verdict (`verdict.decision.agenda.Task`)."""


class EnqueueRequest(TypedDict):
    """Try this point next; values that are left out are those of the published recipe."""

    kind: Literal["enqueue"]
    params: Params


class KillRequest(TypedDict):
    """End this trial."""

    kind: Literal["kill"]
    trial: int


class StopRequest(TypedDict):
    """End the session after the running epochs."""

    kind: Literal["stop"]


UserRequest = EnqueueRequest | KillRequest | StopRequest


class Taken(NamedTuple):
    """A valid request, and its name, which its event has."""

    request: UserRequest
    name: str


class Driver(Protocol[Work]):
    """Decides and records. Each method returns once what it says has been recorded."""

    @property
    def workers(self) -> int:
        """How many jobs may run at once."""

    def poll(self) -> None:
        """Take the users' requests, and record how many jobs fit now. Raises `Interrupted` on a request to stop."""

    def next_job(self) -> Work | Literal["wait", "finished"]:
        """The job for a free worker; `wait` if it depends on running jobs."""

    def started(self, job: Work) -> Order:
        """Record that a worker begins the job; returns the worker's order."""

    def reported(self, job: Work, report: Report) -> bool:
        """Record what the job's worker reported; returns whether that ended the job."""

    def died(self, job: Work) -> None:
        """Record that the job's worker died."""

    def should_end(self, job: Work) -> bool:
        """Whether to stop the job after its latest report; if so, its end is recorded."""

    def seconds_left(self) -> float:
        """After so many seconds all that runs is abandoned, whatever it is doing; infinite if never."""


@dataclass(frozen=True)
class Surroundings:
    """What a driver is given of the world it runs in."""

    write: Callable[[Mapping[str, object]], object]
    """Appends an event to the record and folds it into the state that the driver decides from."""
    clock: Callable[[], float]
    """Seconds since any fixed time."""
    workers: Callable[[], int]
    """How many jobs fit now."""
    requests: Callable[[], Iterable[Taken]] = tuple
    """The users' new requests."""
