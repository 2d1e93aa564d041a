"""Simulation of jobs under a virtual clock: real decisions of a driver, simulated workers, no training.

As in Ray Tune, the driver answers one report after the other, and a worker's next step begins when its last report has
been answered. So a plan shows when more workers would only wait longer for the driver.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from hcpr_tune.search.scheduling.driver import Driver, Surroundings, Taken, UserRequest, Work
from hcpr_tune.search.scheduling.orders import Order, Report
from hcpr_tune.simulation.worker_pool import FailureModel, Idle, WorkerPool

Job = TypeVar("Job", contravariant=True)
Plain = Mapping[str, Any]
"""An event of the record, of whichever driver."""


class DriverTiming(Protocol):
    """How long the driver takes, in seconds of the virtual clock."""

    def asking(self) -> float:
        """From the time a worker is free until the driver decides what it does."""

    def handing_out(self) -> float:
        """How long handing out a job occupies the driver."""

    def answering(self) -> float:
        """How long a report occupies the driver."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a worker does until its next report: an epoch, an attack on a chunk of images, a check."""

    seconds: float
    """From the driver's last answer until the report arrives."""
    work: float
    """How much of that is work."""
    report: Report
    again: bool = False
    """Whether an earlier worker has reported the same."""
    checkpoints: int = 0
    """Number of checkpoints written."""


class Workload(Protocol[Job]):
    """What jobs are made of, and how long that takes."""

    def steps(self, job: Job, order: Order, speed: float, fresh: bool) -> Iterator[Step]:
        """The steps of a job on a worker of `speed`, each asked for when it begins; `fresh`: in a new process."""

    def death(self, job: Job) -> float:
        """From handing out the job until its process dies, as recorded; infinite if it does not."""


class Folded(Protocol):
    """The state that a driver decides from: a search's `History` or a verdict's `State`."""

    def apply(self, event: Any) -> bool: ...


State = TypeVar("State", bound=Folded)


@dataclass
class Worker(Generic[Work]):
    """A slot for a job, with the process that currently fills it."""

    speed: float
    life: int = 0
    """Counts its processes, so that pending events of an earlier one are dropped."""
    fresh: bool = True
    job: Work | None = None
    steps: Iterator[Step] | None = None
    step: Step | None = None
    since: float = 0.0
    """When that step began."""


Kind = Literal["ask", "report", "death", "join", "outside", "time is over"]


@dataclass
class Simulation(Generic[Work, State]):
    """One simulated search or verdict. After `run`, `state` is what a real one would have recorded."""

    state: State
    make_driver: Callable[[Surroundings], Driver[Work]]
    workload: Workload[Work]
    timing: DriverTiming
    worker_pool: WorkerPool
    lives: FailureModel | None = None
    """Draws how long workers live; None: deaths come from the workload."""
    outside: Sequence[Plain] = ()
    """Timed events from outside: requests, nodes that come and go."""
    begin: Plain = field(default_factory=dict)
    """Fields of the session's first event."""
    listener: Callable[[Plain], object] = lambda event: None
    """Called with every event."""
    useful_seconds: float = 0.0
    """Spent on training, evaluation, attacks and checkpoints that counted."""
    lost_seconds: float = 0.0
    """Spent on steps that were lost with their worker or done again."""
    driver_seconds: float = 0.0
    """Time for which the driver was busy."""
    deaths: int = 0
    checkpoints: int = 0
    """Number of checkpoints written."""
    jobs: int = 0
    """Number of jobs handed out."""
    busy: list[tuple[float, int]] = field(default_factory=list)
    """(time, number of running jobs) at each change."""

    def __post_init__(self) -> None:
        self._now = self._driver_free = 0.0
        self._workers = [Worker[Work](self.worker_pool.speed(number)) for number in range(self.worker_pool.workers)]
        self._queue: list[tuple[float, int, Kind, Any, int]] = []
        self._order = itertools.count()
        self._idle, self._there, self._running = Idle(), 0, 0
        self._asking = self._finished = False
        self._fitting, self._requests = 0, list[Taken]()
        surroundings = Surroundings(self._write, lambda: self._now, lambda: self._fitting, self._taken_requests)
        self._driver = self.make_driver(surroundings)

    def _write(self, event: Plain) -> None:
        self.state.apply(event)
        self.listener(event)

    def _taken_requests(self) -> list[Taken]:
        taken, self._requests = self._requests, []
        return taken

    def run(self) -> State:
        """Simulate it to its end."""
        early = sum(self.worker_pool.joins_at(number) <= 0 for number in range(self.worker_pool.workers))
        begin: dict[str, Any] = {"event": "begin", "time": 0.0, "workers": early, "versions": {}, **self.begin}
        self._fitting = begin["workers"]
        self.state.apply(begin)
        for number in range(self.worker_pool.workers):
            if number < early:
                self._join(number)
            else:
                self._push(self.worker_pool.joins_at(number), "join", number)
        for event in self.outside:
            self._push(event["time"], "outside", event)
        if (left := self._driver.seconds_left()) < math.inf:
            self._push(self._now + left, "time is over", None)
        self._wake()
        while self._queue and not (self._finished and not self._running):
            time, _, kind, what, life = heapq.heappop(self._queue)
            self._now = max(self._now, time)
            self._happen(kind, what, life)
        self.state.apply({"event": "end", "time": self._now, "reason": "finished"})
        return self.state

    def _happen(self, kind: Kind, what: Any, life: int) -> None:
        if kind == "ask":
            self._ask()
        elif kind == "time is over":
            self._abandon()
        elif kind == "outside":
            self._hear(what)
            self._wake()
        elif kind == "join":
            self._join(what)
            self._poll(self._there)
            self._wake()
        elif self._workers[what].life == life:
            (self._report if kind == "report" else self._die)(what)
            self._wake()

    def _abandon(self) -> None:
        """What runs is lost, whatever it is doing."""
        self._finished = True
        for number, worker in enumerate(self._workers):
            if worker.job is not None and self._driver.should_end(worker.job):
                self.lost_seconds += self._now - worker.since
                worker.life += 1
                self._free(number)

    def _hear(self, event: Plain) -> None:
        """A recorded event from outside happens again."""
        if event["event"] == "workers":
            self._poll(event["workers"])
        else:
            request = {name: value for name, value in event.items() if name not in ("event", "time", "request")}
            taken = cast(UserRequest, {"kind": event["event"], **request})
            self._requests.append(Taken(taken, event["request"]))
            self._poll(self._fitting)

    def _poll(self, fitting: int) -> None:
        self._fitting = fitting
        self._driver.poll()

    def _push(self, time: float, kind: Kind, what: Any, life: int = 0) -> None:
        heapq.heappush(self._queue, (time, next(self._order), kind, what, life))

    def _join(self, number: int) -> None:
        worker = self._workers[number]
        worker.fresh = True
        self._there += 1
        self._idle.add(number, self._now)
        life = math.inf if self.lives is None else self.lives.seconds()
        if life < math.inf:
            self._push(self._now + life, "death", number, worker.life)

    def _wake(self) -> None:
        """Something changed: if a worker is idle, the driver looks for work; one worker at a time, like Ray Tune."""
        if self._idle and not self._asking:
            self._asking = True
            self._push(self._now + self.timing.asking(), "ask", None)

    def _serve(self, seconds: float) -> None:
        """Occupy the driver for `seconds`, after everything that it was asked to do before."""
        self._now = max(self._now, self._driver_free) + seconds
        self._driver_free = self._now
        self.driver_seconds += seconds

    def _ask(self) -> None:
        self._asking = False
        if not self._idle or self._running >= self._driver.workers:
            return
        job = self._driver.next_job()
        self._finished = job == "finished"
        if job == "finished" or job == "wait":
            return
        self._serve(self.timing.handing_out())
        order = self._driver.started(job)
        number = self._idle.pop()
        worker = self._workers[number]
        worker.job, worker.steps = job, self.workload.steps(job, order, worker.speed, worker.fresh)
        self.jobs += 1
        self._run(+1)
        self._go_on(number)
        worker.fresh = False
        death = self.workload.death(job)
        if death < math.inf:
            self._push(self._now + death, "death", number, worker.life)
        self._wake()

    def _go_on(self, number: int) -> None:
        """The worker begins its job's next step."""
        worker = self._workers[number]
        assert worker.steps is not None
        worker.since = self._now
        worker.step = next(worker.steps)
        self._push(self._now + worker.step.seconds, "report", number, worker.life)

    def _report(self, number: int) -> None:
        worker = self._workers[number]
        job, step = worker.job, worker.step
        assert job is not None
        assert step is not None
        self._serve(self.timing.answering())
        self.lost_seconds += step.work * step.again
        self.useful_seconds += step.work * (not step.again)
        self.checkpoints += step.checkpoints
        if self._driver.reported(job, step.report) or self._driver.should_end(job):
            self._free(number)
        else:
            self._go_on(number)

    def _run(self, more: int) -> None:
        self._running += more
        self.busy.append((self._now, self._running))

    def _free(self, number: int) -> None:
        worker = self._workers[number]
        worker.job = worker.steps = worker.step = None
        self._run(-1)
        self._idle.add(number, self._now)

    def _die(self, number: int) -> None:
        """The process or its node is lost; its job is handed out again, and another worker replaces it later."""
        worker = self._workers[number]
        worker.life += 1
        self.deaths += 1
        if worker.job is not None:
            self.lost_seconds += self._now - worker.since
            self._driver.died(worker.job)
            self._free(number)
        self._idle.discard(number)
        self._there -= 1
        if self.worker_pool.back_seconds:
            self._poll(self._there)
            self._push(self._now + self.worker_pool.back_seconds, "join", number)
        else:
            self._join(number)
