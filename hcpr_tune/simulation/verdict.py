"""A simulated verdict: models whose accuracies and whose survival under attack are given, and how long all takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.scheduling.driver import Surroundings
from hcpr_tune.search.scheduling.orders import (
    REACHED,
    AttackOrder,
    ChecksOrder,
    EpochReport,
    Masking,
    Order,
    Report,
    TrainOrder,
)
from hcpr_tune.simulation.simulation import DriverTiming, Plain, Simulation, Step
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool
from hcpr_tune.training.attacks.cascade import CLEAN, attacks_of
from hcpr_tune.verdict.decision.agenda import Task
from hcpr_tune.verdict.driver import VerdictDriver
from hcpr_tune.verdict.plan import Model, Plan
from hcpr_tune.verdict.state import FORMAT, State

VALIDATION_IMAGES = 1000
"""Behind the scores of an epoch: enough not to round them."""
JITTER = 0.02
"""Standard deviation by which an image is harder for one model than for another."""
NOTHING_MASKED: Masking = {
    "images": 100,
    "survive_margin_10": 50,
    "survive_margin_50": 50,
    "survive_cross_entropy_50": 50,
    "without_gradient": 0,
    "alarms": [],
}


@dataclass(frozen=True)
class VerdictCosts:
    """Seconds on a worker of speed 1."""

    epochs: Callable[[Model], Sequence[float]]
    """Of each epoch of a model's training, from epoch 1 on."""
    attacks: Mapping[str, float]
    """For each image that an attack of the cascade is tried on; `clean`: for predicting it."""
    masking: float = 0.0
    """The gradient masking check of a model."""
    start: float = 0.0
    """From getting its first job until a new process begins with it."""
    job: float = 0.0
    """The same for an existing process."""
    report: float = 0.0
    """A worker's wait for an answer after each report, in addition to the driver's."""


@dataclass(frozen=True)
class SimulatedModels:
    """What is found of a verdict's models."""

    images: Mapping[str, int]
    """Number of images by split, `validation` and `test`."""
    scores: Callable[[Model, int], tuple[float, float]]
    """Robust and clean accuracy on validation after an epoch of the training, under the search's attack."""
    survival: Callable[[Model, str], float]
    """The share of images that are classified correctly after an attack of the cascade and those before it."""
    classes: int = 10
    transfer: Callable[[Model], float] = lambda model: 0.0
    """The share of images that only the transfer attack breaks."""
    masking: Callable[[Model], Masking] = lambda model: NOTHING_MASKED

    def survivors(self, model: Model, attack: str, split: str, chunk: range) -> np.ndarray:
        """Which images of a chunk survive: the same ones are hard for all models, a few differ. (images,) of bool."""
        hardness = _hardness(model.id, split, self.images[split])[chunk.start : chunk.stop]
        survive: np.ndarray = hardness < self.survival(model, attack)
        return survive


@lru_cache(maxsize=256)
def _hardness(model: str, split: str, images: int) -> np.ndarray:
    """How hard each image of a split is for a model, about evenly from 0 to 1, (images,)."""
    rank = np.random.default_rng(derive_seed(0, f"hardness of {split}")).permutation(images) / images
    return rank + JITTER * np.random.default_rng(derive_seed(0, f"{model} on {split}")).standard_normal(images)


class VerdictJobs:
    """The `Workload` of a verdict: epochs, attacks on chunks of images, checks."""

    def __init__(self, models: SimulatedModels, costs: VerdictCosts) -> None:
        self._models, self._costs = models, costs

    def death(self, job: Task) -> float:
        return float("inf")

    def steps(self, job: Task, order: Order, speed: float, fresh: bool) -> Iterator[Step]:
        waited = (self._costs.start if fresh else self._costs.job) / speed
        if order["kind"] == "train":
            done = self._train(job.model, order)
        else:
            done = self._attack(job.model, order) if order["kind"] == "attack" else self._check(job.model, order)
        for seconds, report in done:
            yield Step(waited + seconds / speed, seconds / speed, report)
            waited = self._costs.report

    def _train(self, model: Model, order: TrainOrder) -> Iterator[tuple[float, Report]]:
        costs = self._costs.epochs(model)
        for epoch in range(order["reported"] + 1, order["end"] + 1):
            robust, clean = (round(VALIDATION_IMAGES * share) for share in self._models.scores(model, epoch))
            values: EpochReport = {
                "epoch": epoch,
                "is_rung": epoch in model.recipe.rung_epochs,
                "seconds_attack": costs[epoch - 1],
                "seconds_update": 0.0,
                "seconds_evaluation": 0.0,
                "robust_correct_validation": robust,
                "clean_correct_validation": clean,
                "total_validation": VALIDATION_IMAGES,
            }
            report: Report = {"epoch": values}
            if epoch == order["end"]:
                values["masking_validation"] = self._models.masking(model)
                report["end"] = {"status": REACHED, "reason": ""}
            yield costs[epoch - 1], report

    def _attack(self, model: Model, order: AttackOrder) -> Iterator[tuple[float, Report]]:
        total, size, classes = self._models.images[order["split"]], order["chunk_size"], self._models.classes
        chunk = range(order["chunk"] * size, min(total, (order["chunk"] + 1) * size))
        labels = np.arange(chunk.start, chunk.stop) % classes
        attacks = (CLEAN, *attacks_of(order["cascade"], classes))
        begun = order["begun"]
        left = len(chunk)
        if begun is not None:
            left = int((labels == begun["classes"]).sum())
            attacks = attacks[attacks.index(begun["attack"]) + 1 :] if begun["attack"] in attacks else ()
        for attack in attacks:
            seconds = left * self._costs.attacks[attack]
            survive = self._models.survivors(model, attack, order["split"], chunk)
            left = int(survive.sum())
            yield (
                seconds,
                {
                    "attack": {
                        "attack": attack,
                        "classes": np.where(survive, labels, (labels + 1) % classes).tolist(),
                        "warnings": [],
                        "labels": labels.tolist(),
                        "total": total,
                        "of_classes": classes,
                    }
                },
            )
        yield 0.0, {"end": {"status": REACHED, "reason": ""}}

    def _check(self, model: Model, order: ChecksOrder) -> Iterator[tuple[float, Report]]:
        seconds, broken, images = 0.0, 0, 0
        if order["baseline"] is not None:
            images = len(order["survive"])
            broken = round(self._models.transfer(model) * images)
            first = attacks_of("strong", self._models.classes)[0]
            seconds += sum(order["survive"]) * self._costs.attacks[first]
        masking = None
        if order["with_masking"]:
            masking = self._models.masking(model)
            seconds += self._costs.masking
        checks: Report = {"checks": {"broken": broken, "images": images, "masking": masking}}
        yield seconds, {**checks, "end": {"status": REACHED, "reason": ""}}


class _NoCheckpoints:
    """Where simulated trainings keep theirs."""

    address = ""

    def where(self, training: str) -> str:
        return ""

    def drop(self, training: str, epoch: int) -> None:
        pass


def verdict_simulation(
    plan: Plan,
    jobs: VerdictJobs,
    timing: DriverTiming,
    worker_pool: WorkerPool,
    lives: FailureModel | None = None,
    state: State | None = None,
    listener: Callable[[Plain], object] = lambda event: None,
) -> Simulation[Task, State]:
    """The simulation of a verdict, which continues from `state`."""
    state = State() if state is None else state

    def make_driver(surroundings: Surroundings) -> VerdictDriver:
        def open_test(models: Collection[str], scope: str) -> None:
            if not state.test_accesses:
                about = {"number": 1, "command": "", "models": sorted(models), "scope": scope}
                surroundings.write({"event": "test_access", "time": surroundings.clock(), **about})

        return VerdictDriver(plan, state, surroundings, "", _NoCheckpoints(), open_test)

    begin = {"format": FORMAT}
    return Simulation(state, make_driver, jobs, timing, worker_pool, lives, begin=begin, listener=listener)
