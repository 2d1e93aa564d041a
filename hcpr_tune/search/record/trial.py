"""A trial, its jobs, and what is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from hcpr_tune.common.collapse import has_collapsed
from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.spec.dimensions import Params

Status = Literal["running", "waiting", "completed", "diverged", "failed", "killed"]
Source = str
"""Where a trial's values come from: one of those below, or the name of a sampler."""
PUBLISHED, FIRST_POINT, WARM_START, CALIBRATION, ENQUEUED, PRIOR, REPLICATE = (
    "published",
    "first point",
    "warm start",
    "calibration",
    "enqueued",
    "prior",
    "replicate",
)
WORKER_DIED: Final = "worker died"
"""The status of a job whose process or node died; it is run again from its last checkpoint."""


@dataclass(frozen=True)
class Job:
    """The unit of work: train `trial` from the end of epoch `start` (0: from scratch) to the end of epoch `end`."""

    trial: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"trial {self.trial}, epochs {self.start + 1} to {self.end}"


@dataclass
class Trial:
    """The recorded state of a trial.

    `waiting` trials have finished their job and are stopped unless they are promoted. `epochs` holds the first report
    of each epoch by its position in the work: if each rung is a separate training, the epochs of earlier trainings
    count too. `scores` are the validation accuracies by rung, `rungs` the robust accuracy alone; `target` is the last
    epoch of the latest job.
    """

    number: int
    params: Params
    source: Source
    status: Status = "waiting"
    reason: str = ""
    single_schedule: bool = False
    """Whether it is trained to the last epoch in one go, under the study's replication.lr_schedule: the published
    recipe and replicates."""
    replicate_of: int | None = None
    """The trial whose recipe it trains again, of a replicate."""
    seed: int | None = None
    """The seed of its training, if it is not the study's."""
    job: Job | None = None
    target: int = 0
    epochs: dict[int, EpochEvent] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    best_rung: int = 0
    """The epoch of its best rung (see `Goal.best_rung`), 0 for none."""
    began: float = 0.0
    """When it was suggested."""
    seconds: float = 0.0
    """Seconds of attack, update and evaluation."""
    worker_seconds: float = 0.0
    """Seconds that its jobs occupied a worker."""
    last_heartbeat: float = 0.0
    """Time of the latest event of its running job."""
    startup: float = 0.0
    """Seconds from starting a job to the beginning of its first epoch: process, imports, data and model."""
    fresh: bool = False
    """Whether its running job has reported nothing yet."""
    epoch_offset: int = 0
    """Epochs of its earlier trainings, if each rung is a separate training."""
    positions: dict[int, int] = field(default_factory=dict)
    """Rung -> position in `epochs` of its report."""
    kill_requested: bool = False
    """Whether a request asked to end it."""
    deaths: int = 0
    """How often a worker died with its current job."""
    failed_starts: int = 0
    """How often its current job was given to a worker that was already dead."""

    @property
    def last_epoch(self) -> int:
        """The latest epoch of the current training."""
        return max(self.epochs, default=0) - self.epoch_offset if self.epochs else 0

    @property
    def last_rung(self) -> int:
        """The epoch of the highest rung reached, 0 for none."""
        return max(self.rungs, default=0)

    @property
    def score(self) -> float | None:
        """The robust accuracy on validation at its best rung, None before the first rung."""
        return self.rungs[self.best_rung] if self.rungs else None

    @property
    def collapsed(self) -> bool:
        """Whether its model at the latest rung cannot be told from one that always gives the same answer."""
        if not self.rungs:
            return False
        report = self.at_rung(self.last_rung)
        totals = report.get("class_totals_validation")
        if not totals:
            return False  # not known, in simulations
        return has_collapsed(report["clean_correct_validation"], report["total_validation"], max(totals))

    def at_rung(self, rung: int) -> EpochEvent:
        """What was reported at a rung."""
        return self.epochs[self.positions[rung]]

    @property
    def state(self) -> str:
        """The status for display: a waiting trial is stopped early unless it is promoted later."""
        if self.status != "waiting":
            return self.status
        return "stopped" if self.rungs and self.target == self.last_rung else "interrupted"

    @property
    def lost(self) -> bool:
        """Whether it diverged or failed."""
        return self.status in ("diverged", "failed")

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "diverged", "failed", "killed")


@dataclass(frozen=True)
class OldTrial:
    """A trial of an earlier study, in this study's dimensions."""

    params: Params
    scores: dict[int, dict[str, float]]
    completed: bool
    lost: bool
