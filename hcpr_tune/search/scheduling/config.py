"""ASHA's configuration, and what follows from it for one trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import CALIBRATION, ENQUEUED, PUBLISHED, History, Job, Trial

MIN_RANK_CORRELATION = 0.1
"""A rung whose correlation is lower is not worth its stops (`benchmarks/search.py rungs-simulated`)."""


@dataclass(frozen=True)
class AshaConfig:
    """What ASHA needs to know of a study. `rungs` include the last epoch; `trials` excludes enqueued ones."""

    rungs: tuple[int, ...]
    trials: int
    reduction_factor: float = 3.0
    method: str = "asha"
    """The rule of early stopping (see `stoppers`)."""
    brackets: int = 1
    min_rank_correlation: float = MIN_RANK_CORRELATION
    """A rung that is certain to be below it stops no trial (see `rung_correlation.Correlation.halves`)."""
    seed: int = 0
    restarted: bool = False
    """Each rung is a separate training, so that a promotion starts from scratch."""
    seconds: float = math.inf
    worker_seconds: float = math.inf
    kept_back: float = 0.0
    """The share of the last two that is for replicates."""
    replicates: int = 0
    """How many trainings of the best recipes, and of the published one, come at the end."""

    def following(self, rung: int) -> int:
        """The rung after `rung`; the first one after 0."""
        return next(later for later in self.rungs if later > rung)

    def job(self, trial: Trial, rung: int, end: int) -> Job:
        """The job from the trial's current rung to `end`."""
        return Job(trial.number, 0 if self.restarted or trial.single_schedule else rung, end)


def always_promoted(trial: Trial, history: History) -> bool:
    """Whether a trial runs to the last epoch whatever its scores.

    True for the published recipe, which the winner is compared with, calibration trials and audited trials.
    """
    return trial.source in (PUBLISHED, CALIBRATION) or trial.number in history.audited


def bracket_of(trial: Trial, asha_config: AshaConfig) -> int:
    """A trial's bracket, drawn from the study's seed; bracket b starts at rung b.

    A bracket's probability falls with the epochs of its first segment, so that each costs the same there.
    """
    if asha_config.brackets == 1 or trial.source in (PUBLISHED, CALIBRATION, ENQUEUED):
        return 0
    draw = derive_seed(asha_config.seed, "bracket", trial.number) / 2**63
    for bracket, share in enumerate(bracket_shares(asha_config)):
        draw -= share
        if draw < 0:
            return bracket
    return asha_config.brackets - 1


def bracket_shares(asha_config: AshaConfig) -> list[float]:
    """The probability of each bracket."""
    weights = [1 / rung for rung in asha_config.rungs[: asha_config.brackets]]
    return [weight / sum(weights) for weight in weights]
