"""The settings of a study apart from its recipe and search space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hcpr_tune.common.settings import (
    Settings,
    setting,
    show,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.scheduling.config import MIN_RANK_CORRELATION
from hcpr_tune.search.scheduling.stoppers import STOPPERS
from hcpr_tune.search.spec.objectives import OBJECTIVES
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.training.recipe import FUNCTION, LrSchedule

CALIBRATION_TRIALS = 1
CALIBRATION_SHARE = 0.05
"""Calibration takes at most this share of the epochs that a search usually trains, or `CALIBRATION_TRIALS`."""


@dataclass(frozen=True)
class Budget(Settings):
    """When the search ends: at whichever limit is reached first. Running trials then finish their epoch."""

    trials: int = setting(24, "Number of trials, including the published recipe.", at_least=1, at_most=1_000_000)
    hours: float = setting(0.0, "Wall-clock hours, over all sessions; 0: no limit.", at_least=0)
    worker_hours: float = setting(
        0.0, "Hours that trials occupy workers (GPU-hours if each trial has one GPU); 0: no limit.", at_least=0
    )


@dataclass(frozen=True)
class EarlyStopping(Settings):
    """ASHA (Li et al., MLSys 2020), its control that promotes at random, no early stopping, or a rule of the user's."""

    method: str = setting(
        "asha",
        f"Which trials are promoted: {', '.join(STOPPERS)}, or package.module:function, called with the scores at a"
        " rung.",
        choices=(*STOPPERS, ("package.module:function", FUNCTION.pattern)),
    )
    first_rung: int = setting(3, "Epochs that every trial gets.", at_least=1)
    reduction_factor: float = setting(
        3.0, "ASHA's eta: one trial in this many is promoted from each rung.", above=1, at_most=1000
    )
    calibration: int | Literal["auto"] = setting(
        "auto",
        "Number of first trials (the published recipe, the others spread evenly over the space) that run to the last"
        " epoch whatever their scores, to measure the rank correlation of the rungs;"
        f" auto: {CALIBRATION_TRIALS}, or as many as cost {100 * CALIBRATION_SHARE:.0f} % of the epochs that"
        " budget.trials usually take, if no limit in hours may end the search before.",
        at_least=1,
    )
    min_rank_correlation: float = setting(
        MIN_RANK_CORRELATION,
        "A rung stops no trial once it is 95 % certain that its rank correlation with the last epoch, corrected for the"
        " noise there, is lower; -1: every rung stops.",
        at_least=-1,
        at_most=1,
    )
    brackets: int = setting(
        1, "Number of brackets; bracket b starts at the b-th rung, each trial's is drawn from the seed.", at_least=1
    )

    @property
    def stops(self) -> bool:
        """Whether there are rungs below the last epoch."""
        return self.method not in STOPPERS or STOPPERS[self.method].stops


@dataclass(frozen=True)
class Replication(Settings):
    """The top of ASHA's ladder: the best recipes, and the published one, are trained again on fresh seeds.

    These trainings, and trial 0, have one learning rate schedule over the whole training: rungs may need the rate
    annealed before each, the answer does not. There are none with two objectives.
    """

    replicates: int = setting(
        2,
        "Fresh seeds for each finalist and for the published recipe; 0: none, and trial 0 is trained as all others.",
        at_least=0,
        at_most=100,
    )
    finalists: int = setting(2, "How many of the best recipes are trained again.", at_least=1, at_most=1000)
    budget_share: float = setting(
        0.25,
        "Share of budget.hours and budget.worker_hours that is kept back for it; budget.trials does not count it.",
        above=0,
        below=1,
    )
    lr_schedule: LrSchedule = setting(LrSchedule(), "The schedule; by default the published one.")

    def check_together(self) -> None:
        if self.lr_schedule.mode != "single":
            raise InputError(
                f'lr_schedule.mode must be "single", got {show(self.lr_schedule.mode)}; drop it: there are no rungs'
                " before their last epoch"
            )


@dataclass(frozen=True)
class Sampler(Settings):
    """Where new recipes come from."""

    name: str = setting(
        "tpe",
        f"Optuna's sampler: {', '.join(SAMPLERS)}, or package.module:function, called with seed and startup_trials.",
        choices=(*SAMPLERS, ("package.module:function", FUNCTION.pattern)),
    )
    startup_trials: int = setting(
        8,
        "Trials suggested before the sampler's model is used, calibration trials included.",
        at_least=1,
        at_most=10_000,
    )


@dataclass(frozen=True)
class Constraints(Settings):
    """Floors: a trial below one ranks behind all trials above it."""

    clean_accuracy: float = setting(0.0, "Minimum clean accuracy on validation; 0: none.", at_least=0, at_most=1)


@dataclass(frozen=True)
class Resources(Settings):
    """What each trial gets, and how many run at once."""

    cpus_per_trial: float = setting(1.0, "CPU cores per trial; torch gets as many threads.", above=0, at_most=1024)
    gpus_per_trial: float | Literal["auto"] = setting(
        "auto", "GPUs per trial, or a share of one; auto: 1 if there are GPUs, else 0.", at_least=0
    )
    workers: int = setting(
        0,
        "Concurrent trials, also requested from an autoscaler; 0: as many as the machine or cluster has room for.",
        at_least=0,
        at_most=100_000,
    )
    checkpoint_every: int = setting(
        1,
        "Epochs between checkpoints, in addition to those at rungs; raise it if checkpoints are large."
        " A worker that dies loses at most this many epochs.",
        at_least=1,
    )
    worker_deaths: int = setting(
        3, "How often a job is restarted from its last checkpoint after its process or node died.", at_least=0
    )

    def check_together(self) -> None:
        if self.gpus_per_trial != "auto" and self.gpus_per_trial > 1:
            raise InputError(
                f"gpus_per_trial must be at most 1, got {self.gpus_per_trial:g}: a trial trains on one GPU; set it to"
                " 1, and the others train other trials"
            )


@dataclass(frozen=True)
class Verdict(Settings):
    """How the search's result is evaluated: retrained on fresh seeds and attacked with AutoAttack's attacks.

    Does not influence the search.
    """

    seconds_at_end: float = setting(
        60.0,
        "A search ends with a small verdict, on the winner and the published recipe with fresh seeds, as large as fits"
        " into this many seconds; 0: none.",
        at_least=0,
    )
    finalists: int = setting(3, "How many of the best trials `hcpr_tune verdict` retrains.", at_least=1, at_most=1000)
    seeds: int = setting(
        5,
        "Seeds for the winner and its baseline; for the test images as many further ones.",
        at_least=1,
        at_most=1000,
    )
    other_seeds: int = setting(
        3, "Seeds for the other finalists; the winner is chosen by this many of each.", at_least=1, at_most=1000
    )
    images: int = setting(
        0, "Validation images for choosing the winner, a fixed class-balanced subset; 0: all.", at_least=0
    )
    test_images: int = setting(0, "Test images to attack in a test access; 0: all.", at_least=0)
    chunk: int | Literal["auto"] = setting(
        "auto",
        "Images that a worker attacks at once, lost if it is killed; auto: 500 if the search trained on GPUs, else"
        " 100.",
        at_least=1,
    )
    worker_hours: float = setting(0.0, "Worker hours for all its trainings and attacks; 0: no limit.", at_least=0)


@dataclass(frozen=True)
class Foreseen(Settings):
    """What `hcpr_tune plan --write` predicted, for comparison in the report. Does not influence the search."""

    workers: int = setting(0, "Planned workers; 0: there was no plan.", at_least=0)
    hours: float = setting(0.0, "Wall-clock hours.", at_least=0)
    worker_hours: float = setting(0.0, "Hours that trials occupy workers.", at_least=0)
    use: float = setting(0.0, "Share of worker time spent on training and evaluation.", at_least=0, at_most=1)
    epochs: int = setting(0, "Epochs trained.", at_least=0)
    score: float = setting(
        0.0,
        "True value of the chosen trial in the first objective; 0: unknown.",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class StudySettings(Settings):
    """The settings of a study apart from its recipe and search space."""

    description: str = setting("", "What the study is for.")
    objective: tuple[str, ...] = setting(
        ("robust_accuracy",),
        "What trials are ranked by, on validation; with two objectives, the Pareto front is searched.",
        choices=OBJECTIVES,
    )
    seed: int = setting(0, "Seed of the suggestions and of every trial's training.", at_least=0)
    keep_weights: int = setting(5, "How many of the best trials keep their weights.", at_least=1)
    budget: Budget = setting(Budget(), "When the search ends.")
    constraints: Constraints = setting(Constraints(), "What a trial must reach.")
    early_stopping: EarlyStopping = setting(EarlyStopping(), "How trials are stopped early.")
    replication: Replication = setting(Replication(), "How the best recipes are trained again.")
    sampler: Sampler = setting(Sampler(), "Where new recipes come from.")
    resources: Resources = setting(Resources(), "What a trial gets.")
    verdict: Verdict = setting(Verdict(), "How the result is evaluated.")
    plan: Foreseen = setting(Foreseen(), "What the plan predicted.")

    def check_together(self) -> None:
        if not self.objective or len(set(self.objective)) < len(self.objective):
            raise InputError(
                f"objective must name one or two different accuracies, got {show(self.objective)};"
                f" choose from {', '.join(OBJECTIVES)}"
            )
        calibration, trials = self.early_stopping.calibration, self.budget.trials
        if calibration != "auto" and calibration > trials:
            raise InputError(
                f"early_stopping.calibration must be at most budget.trials = {trials}, got {calibration};"
                " lower it, or raise budget.trials"
            )
