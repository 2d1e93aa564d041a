"""The outcome of one simulated search: time, work, disk, the chosen trial and its loss against the best, the rungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import kept_checkpoints
from hcpr_tune.search.scheduling.rung_correlation import FEWEST_POINTS, end_of, spearman
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import Costs
from hcpr_tune.simulation.curves.curves import Curve, Curves, Play
from hcpr_tune.simulation.search import PlannedTiming, Trainings, search_simulation
from hcpr_tune.simulation.suggesting import suggester_of
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool


@dataclass(frozen=True)
class RungOutcome:
    """The effect of a rung below the last in one search."""

    epoch: int
    reached: int
    """Number of trials that were scored there."""
    stopped: int
    """Number of those that went no further."""
    correlation: float | None
    """Rank correlation of the scores there with the trials' true final scores; None for few trials."""
    measured: float | None
    """Rank correlation of the scores there with the final ones, as the search measures it to decide whether to stop."""
    stops: bool
    """Whether the rung stopped trials at the end of the search."""
    saved_seconds: float
    """Worker seconds that the stopped trials would have taken to the end."""
    lost_best: bool
    """Whether the best of all trials was stopped there."""


@dataclass(frozen=True)
class Outcome:
    """One simulated search; times in seconds."""

    wall_clock: float
    worker_seconds: float
    """Time for which jobs occupied workers."""
    use: float
    """Useful training, evaluation and checkpointing, as a fraction of the time that workers were available."""
    driver_use: float
    """Fraction of the time for which the driver was busy."""
    trials: int
    epochs: int
    jobs: int
    deaths: int
    lost_seconds: float
    """Time of work that was lost when a worker died."""
    bytes_written: int
    bytes_kept: int
    """At the end, when it is largest."""
    reached: bool
    """Whether any trial reached a rung."""
    score: float
    """True score of the chosen trial in the first objective; 0 if none was chosen."""
    best: float
    """True final score of the best trial that was begun, had it been trained to the end."""
    rungs: tuple[RungOutcome, ...]
    busy: tuple[tuple[float, float], ...]
    """(time, number of running jobs from then on), averaged over CELLS steps; the end of the search last."""

    @property
    def loss(self) -> float:
        return self.best - self.score


def played(study: StudySpec, curves: Curves, play: Play, costs: Costs, worker_pool: WorkerPool, seed: int) -> Outcome:
    """Simulate one search and return its outcome."""
    timing = PlannedTiming(costs, study, worker_pool.workers)
    lives = FailureModel(worker_pool, seed) if worker_pool.deaths_per_hour else None
    trainings = Trainings(study, play, timing)
    simulation = search_simulation(trainings, worker_pool, suggester_of(study, curves), lives)
    history = simulation.run()
    position = {epoch: index for index, epoch in enumerate(play.epochs)}
    true = {number: true_score(study, curve, position[study.rungs[-1]]) for number, curve in trainings.curves.items()}
    alive = {
        number: value
        for number, value in true.items()
        if not trainings.curves[number].lost_at and history.trials[number].replicate_of is None
    }
    best = max(alive, key=alive.__getitem__, default=None)
    chosen, rung = history.best_trial, 0
    if history.choice is not None:
        # Of the recipe, not of the seed whose weights are kept.
        chosen, rung = history.trials[history.choice["trial"]], study.rungs[-1]
    elif chosen is not None:
        rung = chosen.best_rung
    epochs = sum(len(trial.epochs) for trial in history.trials.values())
    return Outcome(
        wall_clock=history.seconds,
        worker_seconds=history.worker_seconds,
        use=simulation.useful_seconds / history.worker_seconds_offered if history.worker_seconds_offered else 0.0,
        driver_use=simulation.driver_seconds / history.seconds if history.seconds else 0.0,
        trials=len(history.trials),
        epochs=epochs,
        jobs=simulation.jobs,
        deaths=simulation.deaths,
        lost_seconds=simulation.lost_seconds,
        bytes_written=costs.checkpoint_bytes * simulation.checkpoints,
        bytes_kept=costs.checkpoint_bytes * len(kept_checkpoints(study, history)),
        reached=chosen is not None,
        score=0.0 if chosen is None else true_score(study, trainings.curves[chosen.number], position[rung]),
        best=0.0 if best is None else alive[best],
        rungs=tuple(_rung(study, history, rung, true, best, timing) for rung in study.rungs[:-1]),
        busy=averaged(simulation.busy, history.seconds),
    )


def true_score(study: StudySpec, curve: Curve, position: int) -> float:
    """The first objective without noise; 0 if a floor is missed."""
    true = {"robust_accuracy": curve.true_robust[position], "clean_accuracy": curve.true_clean[position]}
    return 0.0 if study.goal.shortfall(true) else study.goal.values(true)[0]


def _rung(
    study: StudySpec, history: History, rung: int, true: Mapping[int, float], best: int | None, timing: PlannedTiming
) -> RungOutcome:
    reached = [trial for trial in history.trials.values() if rung in trial.rungs]
    stopped = [trial for trial in reached if trial.last_rung == rung and not trial.lost]
    rung_correlation = end_of(history, study.rungs, rung)
    correlation = None
    if len(reached) >= FEWEST_POINTS:
        seen = [study.goal.values(trial.scores[rung])[0] for trial in reached]
        correlation = spearman(seen, [true[trial.number] for trial in reached])
    return RungOutcome(
        rung,
        len(reached),
        len(stopped),
        correlation,
        rung_correlation.rho,
        rung_correlation.halves(study.settings.early_stopping.min_rank_correlation),
        len(stopped) * _to_the_end(study, rung, timing),
        any(trial.number == best for trial in stopped),
    )


def _to_the_end(study: StudySpec, rung: int, timing: PlannedTiming) -> float:
    """Seconds that a trial takes from a rung to the end."""
    if not study.restarted:
        return sum(timing.epochs(study.rungs[-1])[rung:])
    return sum(sum(timing.epochs(later)) for later in study.rungs if later > rung)


CELLS = 150


def averaged(points: Sequence[tuple[float, int]], end: float) -> tuple[tuple[float, float], ...]:
    """The mean number of running jobs in each of CELLS time steps, from (time, number of running jobs from then on).

    Single points would be misleading, since the number alternates as jobs end and begin.
    """
    step = end / CELLS
    if not step:
        return ((0.0, 0.0),)
    held = [0.0] * CELLS
    for (since, jobs), (until, _) in pairwise([(0.0, 0), *points, (end, 0)]):
        for cell in range(int(since / step), min(CELLS, int(until / step) + 1)):
            held[cell] += jobs * max(0.0, min(until, (cell + 1) * step) - max(since, cell * step))
    return (*((cell * step, jobs / step) for cell, jobs in enumerate(held)), (end, 0.0))
