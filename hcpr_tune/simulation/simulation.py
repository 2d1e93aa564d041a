"""Simulation of a search under a virtual clock: real scheduling decisions, simulated workers, no training.

As in Ray Tune, the driver answers one report after the other, and a worker's next epoch begins when its last report has
been answered. So a plan shows when more workers would only wait longer for the driver.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

from hcpr_tune.search.record.events.search import BeginEvent
from hcpr_tune.search.record.history import Event, History, Job
from hcpr_tune.search.scheduling.scheduler import Scheduler, Suggests
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import has_checkpoint
from hcpr_tune.simulation.curves.curves import Curve, Play
from hcpr_tune.simulation.worker_pool import FailureModel, Idle, WorkerPool


class Timing(Protocol):
    """How long everything takes, in seconds of the virtual clock."""

    def asking(self) -> float:
        """From the time a worker is free until the driver decides what it does."""

    def handing_out(self) -> float:
        """How long handing out a job occupies the driver."""

    def answering(self) -> float:
        """How long a report occupies the driver."""

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        """From the driver's last answer until the report of `epoch` arrives, and how much of that is work.

        `begins`: it is the job's first epoch; `fresh`: in a new process.
        """

    def death(self, work: Job) -> float:
        """From handing out the job until its process dies, as recorded; infinite if it does not."""


@dataclass
class Worker:
    """A slot for a trial, with the process that currently fills it."""

    speed: float
    there: bool = False
    life: int = 0
    """Counts its processes, so that pending events of an earlier one are dropped."""
    fresh: bool = True
    work: Job | None = None
    epoch: int = 0
    """The epoch in training."""
    since: float = 0.0
    """When that epoch began."""
    trained: float = 0.0
    """Seconds that the epoch takes without any waiting."""
    curve: Curve | None = None


Kind = Literal["ask", "report", "death", "join", "outside"]


@dataclass
class Simulation:
    """One simulated search. After `run`, `history` is what a real search would have recorded."""

    study: StudySpec
    play: Play
    timing: Timing
    worker_pool: WorkerPool
    suggester: Suggests
    lives: FailureModel | None = None
    """Draws how long workers live; None: deaths come from the timing."""
    outside: Sequence[Event] = ()
    """Timed events from outside: requests, nodes that come and go."""
    opening: BeginEvent | None = None
    """The first event of a recorded session."""
    told: Callable[[Event], object] = lambda event: None
    """Called with every event."""
    history: History = field(init=False)
    useful_seconds: float = 0.0
    """Spent on training, evaluation and checkpoints that counted."""
    lost_seconds: float = 0.0
    """Spent on epochs that were lost with their worker or trained again."""
    driver_seconds: float = 0.0
    """Time for which the driver was busy."""
    deaths: int = 0
    checkpoints: int = 0
    """Number of checkpoints written."""
    jobs: int = 0
    """Number of jobs handed out."""
    curves: dict[int, Curve] = field(default_factory=dict)
    """Curves of all trials that were begun."""
    busy: list[tuple[float, int]] = field(default_factory=list)
    """(time, number of running jobs) at each change."""

    def __post_init__(self) -> None:
        self.history = History(self.study.recipe.epochs, self.study.goal)
        self._now = self._driver_free = 0.0
        self._scheduler = Scheduler(self.study, self.history, self.suggester, self._write, lambda: self._now)
        self._workers = [Worker(self.worker_pool.speed(number)) for number in range(self.worker_pool.workers)]
        self._queue: list[tuple[float, int, Kind, Any, int]] = []
        self._order = itertools.count()
        self._idle, self._there, self._running = Idle(), 0, 0
        self._asking = self._finished = False
        self._place = {epoch: place for place, epoch in enumerate(self.play.epochs)}
        self._rungs = frozenset(self.study.rungs)

    def _write(self, event: Event) -> None:
        self.history.apply(event)
        self.told(event)

    def run(self) -> History:
        """Simulate the search to its end."""
        early = sum(self.worker_pool.joins_at(number) <= 0 for number in range(self.worker_pool.workers))
        begin: BeginEvent = {"event": "begin", "time": 0.0, "workers": early, "versions": {}, "fingerprint": ""}
        self.history.apply(self.opening or begin)
        for number in range(self.worker_pool.workers):
            if number < early:
                self._join(number)
            else:
                self._push(self.worker_pool.joins_at(number), "join", number)
        for event in self.outside:
            self._push(event["time"], "outside", event)
        self._wake()
        while self._queue and not (self._finished and not self._running):
            time, _, kind, what, life = heapq.heappop(self._queue)
            self._now = max(self._now, time)
            self._happen(kind, what, life)
        self.history.apply({"event": "end", "time": self._now, "reason": "finished"})
        return self.history

    def _happen(self, kind: Kind, what: Any, life: int) -> None:
        if kind == "ask":
            self._ask()
        elif kind == "outside":
            self._scheduler.write(cast(Event, {**what, "time": self._now}))
            self._wake()
        elif kind == "join":
            self._join(what)
            self._scheduler.has(self._there)
            self._wake()
        elif self._workers[what].life == life:
            (self._report if kind == "report" else self._die)(what)
            self._wake()

    def _push(self, time: float, kind: Kind, what: Any, life: int = 0) -> None:
        heapq.heappush(self._queue, (time, next(self._order), kind, what, life))

    def _join(self, number: int) -> None:
        worker = self._workers[number]
        worker.there, worker.fresh = True, True
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
        if not self._idle or self._running >= self.history.workers:
            return
        work = self._scheduler.next_work()
        self._finished = work == "finished"
        if not isinstance(work, Job):
            return
        self._serve(self.timing.handing_out())
        reported = self._scheduler.begin(work)
        number = self._idle.pop()
        worker = self._workers[number]
        trial = self.history.trials[work.trial]
        if work.trial not in self.curves:
            self.curves[work.trial] = self.play.curve(work.trial, trial.params)
        worker.work, worker.epoch, worker.curve = work, self._saved(work, reported), self.curves[work.trial]
        self.jobs += 1
        self._run(+1)
        self._train(number, begins=True)
        death = self.timing.death(work)
        if death < math.inf:
            self._push(self._now + death, "death", number, worker.life)
        self._wake()

    def _saved(self, work: Job, reported: int) -> int:
        """The latest epoch that has a checkpoint; the job resumes from there."""
        epochs = range(reported, work.start, -1)
        return next((epoch for epoch in epochs if has_checkpoint(self.study, epoch, work.end)), work.start)

    def _train(self, number: int, begins: bool) -> None:
        """The worker begins its next epoch."""
        worker = self._workers[number]
        assert worker.work is not None
        assert worker.curve is not None
        worker.epoch += 1
        worker.since = self._now
        seconds, worker.trained = self.timing.epoch(
            worker.work, worker.epoch, worker.curve, worker.speed, begins, worker.fresh
        )
        worker.fresh = False
        self._push(self._now + seconds, "report", number, worker.life)

    def _report(self, number: int) -> None:
        worker = self._workers[number]
        work, curve = worker.work, worker.curve
        assert work is not None
        assert curve is not None
        self._serve(self.timing.answering())
        if worker.epoch == curve.lost_at:
            status, reason = curve.lost_as
            self._scheduler.take(work, {"status": status, "reason": reason}, ends=True)
            self._free(number)
            return
        again = worker.epoch <= self.history.trials[work.trial].last_epoch
        self.lost_seconds += worker.trained * again
        self.useful_seconds += worker.trained * (not again)
        self.checkpoints += has_checkpoint(self.study, worker.epoch, work.end)
        ends = worker.epoch >= work.end
        report: dict[str, Any] = {
            "epoch": worker.epoch,
            "is_rung": False,
            "seconds_attack": worker.trained,
            "seconds_update": 0.0,
            "seconds_evaluation": 0.0,
        }
        if ends if self.study.restarted else worker.epoch in self._rungs:
            report |= self._scores(curve, worker.epoch)
        self._scheduler.take(work, report | {"status": "reached", "reason": ""} if ends else report, ends)
        if ends or self._scheduler.broken_off(work):
            self._free(number)
        else:
            self._train(number, begins=False)

    def _scores(self, curve: Curve, epoch: int) -> dict[str, Any]:
        robust, clean = curve.robust[self._place[epoch]], curve.clean[self._place[epoch]]
        images = self.play.images
        return {
            "is_rung": True,
            "robust_correct_validation": round(robust * images) if images else robust,
            "clean_correct_validation": round(clean * images) if images else clean,
            "total_validation": images or 1,
        }

    def _run(self, more: int) -> None:
        self._running += more
        self.busy.append((self._now, self._running))

    def _free(self, number: int) -> None:
        worker = self._workers[number]
        worker.work = worker.curve = None
        self._run(-1)
        self._idle.add(number, self._now)

    def _die(self, number: int) -> None:
        """The process or its node is lost; its job is handed out again, and another worker replaces it later."""
        worker = self._workers[number]
        worker.life += 1
        self.deaths += 1
        if worker.work is not None:
            self.lost_seconds += self._now - worker.since
            self._scheduler.died(worker.work)
            self._free(number)
        self._idle.discard(number)
        worker.there, self._there = False, self._there - 1
        if self.worker_pool.back_seconds:
            self._scheduler.has(self._there)
            self._push(self._now + self.worker_pool.back_seconds, "join", number)
        else:
            self._join(number)
