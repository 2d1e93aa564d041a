"""A simulated search: trials that follow learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

from hcpr_tune.search.record.history import Event, History, Job
from hcpr_tune.search.scheduling.driver import Surroundings
from hcpr_tune.search.scheduling.orders import REACHED, EndStatus, EpochReport, Order, Report, TrainOrder
from hcpr_tune.search.scheduling.search_driver import SearchDriver, Suggests
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import Costs, has_checkpoint
from hcpr_tune.simulation.curves.curves import Curve, Play
from hcpr_tune.simulation.simulation import DriverTiming, Plain, Simulation, Step
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool

MANY_IMAGES = 10**9
"""Images behind a score of which no number is known: nothing can be said of the noise of its count."""


class Timing(DriverTiming, Protocol):
    """How long everything takes, in seconds of the virtual clock."""

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        """From the driver's last answer until the report of `epoch` arrives, and how much of that is work.

        `begins`: it is the job's first epoch; `fresh`: in a new process.
        """

    def death(self, work: Job) -> float:
        """From handing out the job until its process dies, as recorded; infinite if it does not."""


class PlannedTiming:
    """Times computed from costs: an epoch takes its cost times the trial's factor, divided by the worker's speed."""

    def __init__(self, costs: Costs, study: StudySpec, workers: int) -> None:
        self.costs, self._study, self._workers = costs, study, workers
        self._epochs: dict[int, list[float]] = {}

    def epochs(self, end: int) -> list[float]:
        """Seconds of each epoch of a job that ends at `end`, from epoch 1 on."""
        if end not in self._epochs:
            self._epochs[end] = self.costs.epochs_of(self._study, end)
        return self._epochs[end]

    def asking(self) -> float:
        return 0.0

    def handing_out(self) -> float:
        return self.costs.driver_job + self._workers * self.costs.driver_worker

    def answering(self) -> float:
        return self.costs.driver_report + self._workers * self.costs.driver_worker

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        trained = self.epochs(work.end)[epoch - 1] * curve.relative_seconds / speed
        if begins:
            return trained + (self.costs.start if fresh else self.costs.job) / speed, trained
        return trained + self.costs.report, trained

    def death(self, work: Job) -> float:
        return math.inf


class Trainings:
    """The `Workload` of a search: the epochs of trials, along their curves. `history` is the search's."""

    def __init__(self, study: StudySpec, play: Play, timing: Timing) -> None:
        self.study, self.timing = study, timing
        self.history = History(study.recipe.epochs, study.goal)
        self.curves: dict[int, Curve] = {}
        """Curves of all trials that were begun."""
        self._play = play
        self._position = {epoch: position for position, epoch in enumerate(play.epochs)}
        self._rungs = frozenset(study.rungs)

    def death(self, job: Job) -> float:
        return self.timing.death(job)

    def steps(self, job: Job, order: Order, speed: float, fresh: bool) -> Iterator[Step]:
        assert order["kind"] == "train"
        trial = self.history.trials[job.trial]
        if job.trial not in self.curves:
            self.curves[job.trial] = (
                self._play.curve(job.trial, trial.params)
                if trial.replicate_of is None
                else self._play.replicate(job.trial, trial.replicate_of, trial.params)
            )
        curve, first = self.curves[job.trial], self._saved(job, order["reported"]) + 1
        whole = self.study.restarted or trial.single_schedule
        for epoch in range(first, job.end + 1):
            begins = epoch == first
            seconds, work = self.timing.epoch(job, epoch, curve, speed, begins, fresh and begins)
            if epoch == curve.lost_at:
                status, reason = curve.lost_as
                yield Step(seconds, 0.0, {"end": {"status": cast(EndStatus, status), "reason": reason}})
                return
            report: Report = {"epoch": self._epoch(curve, epoch, work, epoch == job.end, whole)}
            if epoch == job.end:
                report["end"] = {"status": REACHED, "reason": ""}
            checkpoints = int(has_checkpoint(self.study, epoch, job.end))
            yield Step(seconds, work, report, epoch <= trial.last_epoch, checkpoints)

    def _saved(self, job: Job, reported: int) -> int:
        """The latest epoch that has a checkpoint; the job resumes from there."""
        epochs = range(reported, job.start, -1)
        return next((epoch for epoch in epochs if has_checkpoint(self.study, epoch, job.end)), job.start)

    def _epoch(self, curve: Curve, epoch: int, work: float, ends: bool, whole: bool) -> EpochReport:
        """`whole`: the training has no rung before its end."""
        report: EpochReport = {
            "epoch": epoch,
            "is_rung": False,
            "seconds_attack": work,
            "seconds_update": 0.0,
            "seconds_evaluation": 0.0,
        }
        if ends if whole else epoch in self._rungs:
            position, images = self._position[epoch], self._play.images
            robust, clean = curve.robust[position], curve.clean[position]
            report["is_rung"] = True
            total = images or MANY_IMAGES
            report["robust_correct_validation"] = round(robust * total)
            report["clean_correct_validation"] = round(clean * total)
            report["total_validation"] = total
            if curve.survivors and epoch == self.study.recipe.epochs:
                report["survivors_validation"] = [[radius, round(share * total)] for radius, share in curve.survivors]
        return report


def search_simulation(
    trainings: Trainings,
    worker_pool: WorkerPool,
    suggester: Suggests,
    lives: FailureModel | None = None,
    outside: Sequence[Event] = (),
    begin: Event | None = None,
    listener: Callable[[Plain], object] = lambda event: None,
) -> Simulation[Job, History]:
    """The simulation of one search. `begin`: the first event of a recorded session."""

    def make_driver(surroundings: Surroundings) -> SearchDriver:
        return SearchDriver(trainings.study, trainings.history, suggester, surroundings, _order)

    return Simulation(
        trainings.history,
        make_driver,
        trainings,
        trainings.timing,
        worker_pool,
        lives,
        outside,
        begin or {"fingerprint": ""},
        listener,
    )


def _order(job: Job, reported: int) -> TrainOrder:
    """An order without a recipe, since nothing is trained."""
    return {
        "kind": "train",
        "study": "",
        "name": job.name,
        "values": "",
        "recipe": {},
        "gpus": 0.0,
        "start": job.start,
        "end": job.end,
        "reported": reported,
        "checkpoints": "",
        "checkpoint_every": 1,
    }
