"""The costs of a search: seconds for parts of an epoch, for starting a job, for the driver; bytes of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from hcpr_tune.search.record.events.fields import trained_seconds
from hcpr_tune.search.record.events.search import EpochEvent, Event
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.methods.schedules import attack_steps
from hcpr_tune.training.recipe import Recipe

DRIVER_REPORT_SECONDS = 0.0022
DRIVER_JOB_SECONDS = 0.01
DRIVER_WORKER_SECONDS = 0.5e-6
"""How long a report and the handing out of a job occupy the driver, and what each worker that it waits for adds to both
(`benchmarks/scale.py driver` and `waiting`; docs/scale.md).
"""
PROCESS_SECONDS = 5.0
"""From handing out a job to a new process until it can begin: Ray, Python, torch. Assumed if nothing was recorded."""
STORE_BYTES_PER_SECOND = 200e6
"""How fast a checkpoint is written. Assumed if nothing was recorded."""


@dataclass(frozen=True)
class Costs:
    """Seconds on a worker of speed 1."""

    attack_step: float
    """One attack step, over a whole epoch."""
    update: float
    """The rest of the training, over one epoch."""
    evaluation: float
    """One evaluation."""
    last_evaluation: float
    """The evaluation after the last epoch, which includes the check for masked gradients."""
    checkpoint: float
    start: float
    """From getting its first job until a new process begins the first epoch."""
    job: float
    """The same for an existing process."""
    report: float
    """A worker's wait for an answer after each epoch, in addition to the driver's `driver_report`."""
    checkpoint_bytes: int
    words: str
    """Where the figures come from, as text for the user."""
    driver_report: float = DRIVER_REPORT_SECONDS
    driver_job: float = DRIVER_JOB_SECONDS
    driver_worker: float = DRIVER_WORKER_SECONDS
    """What each worker adds to both: Ray Tune checks all workers that it waits for each time."""

    def with_epoch_seconds(self, study: StudySpec, seconds: float) -> Costs:
        """The same costs scaled so that training an epoch takes `seconds` on average; evaluations scale with it."""
        steps = fmean(attack_steps(study.recipe, epoch) for epoch in range(1, study.recipe.epochs + 1))
        factor = seconds / (self.attack_step * steps + self.update)
        names = ("attack_step", "update", "evaluation", "last_evaluation")
        words = f"{seconds:g} seconds for the training of an epoch, the rest {self.words}"
        return replace(self, **{name: factor * getattr(self, name) for name in names}, words=words)

    def with_driver_rate(self, reports_per_second: float) -> Costs:
        """The same costs with a driver that answers `reports_per_second`; its other costs scale with it."""
        factor = 1 / reports_per_second / self.driver_report
        names = ("driver_report", "driver_job", "driver_worker")
        return replace(self, **{name: factor * getattr(self, name) for name in names})

    def to_plain(self) -> dict[str, Any]:
        seconds = {name: value for name, value in asdict(self).items() if name not in ("words", "checkpoint_bytes")}
        return {"from": self.words, "seconds": seconds, "checkpoint_bytes": self.checkpoint_bytes}

    def epochs_of(self, study: StudySpec, end: int) -> list[float]:
        """Seconds of each epoch, from epoch 1 on, of the training of a job that ends at `end` (in mode `restarted`, the
        training ends there too)."""
        return self.epochs_of_recipe(trained(study, end), lambda epoch: has_checkpoint(study, epoch, end))

    def epochs_of_recipe(self, recipe: Recipe, saved: Callable[[int], bool]) -> list[float]:
        """Seconds of each epoch, from epoch 1 on; `saved`: after which ones a checkpoint is written."""
        return [
            self.attack_step * attack_steps(recipe, epoch)
            + self.update
            + self.checkpoint * saved(epoch)
            + self._evaluation(recipe, epoch)
            for epoch in range(1, recipe.last_epoch + 1)
        ]

    def _evaluation(self, recipe: Recipe, epoch: int) -> float:
        if epoch == recipe.last_epoch:
            return self.last_evaluation
        return self.evaluation * (epoch in recipe.rung_epochs or epoch % recipe.evaluation.period == 0)


def trained(study: StudySpec, end: int) -> Recipe:
    """The recipe of a job that ends at `end`."""
    recipe = study.recipe
    return replace(recipe, stop_epoch=end) if study.restarted and end < recipe.epochs else recipe


def has_checkpoint(study: StudySpec, epoch: int, end: int) -> bool:
    """Whether a job to `end` writes a checkpoint at the end of `epoch`."""
    is_rung = epoch == end or (epoch in study.rungs and not study.restarted)
    return is_rung or epoch % study.settings.resources.checkpoint_every == 0


def costs_of_probe(probes: Sequence[Mapping[str, Any]]) -> Costs:
    """Costs from the measurements of `training.probe` on one or several workers."""
    mean = {
        name: fmean(probe[name] for probe in probes)
        for name in (
            "seconds_per_attack_step",
            "seconds_update",
            "seconds_evaluation",
            "seconds_startup",
            "checkpoint_bytes",
        )
    }
    steps = sum(probe["steps"] for probe in probes)
    return Costs(
        attack_step=mean["seconds_per_attack_step"],
        update=mean["seconds_update"],
        evaluation=mean["seconds_evaluation"],
        last_evaluation=mean["seconds_evaluation"],
        checkpoint=mean["checkpoint_bytes"] / STORE_BYTES_PER_SECOND,
        start=PROCESS_SECONDS + mean["seconds_startup"],
        job=mean["seconds_startup"] / 10,
        report=0.0,
        checkpoint_bytes=round(mean["checkpoint_bytes"]),
        words=f"a probe of {steps} optimiser step{'s' * (steps != 1)} on "
        f"{'one worker' if len(probes) == 1 else f'{len(probes)} workers'}",
    )


def costs_of_records(records: Iterable[Sequence[Event]], checkpoint_bytes: int, words: str) -> Costs:
    """Costs from the events of one or several studies' records."""
    epochs: list[EpochEvent] = []
    gaps: dict[str, list[float]] = {"start": [], "job": [], "report": []}
    for events in records:
        epochs += [event for event in events if event["event"] == "epoch"]
        for kind, seconds in _waits(events):
            gaps[kind].append(seconds)
    evaluated = [event for event in epochs if "robust_correct_validation" in event]
    before_end = [event["seconds_evaluation"] for event in evaluated if "masking_validation" not in event]
    at_end = [event["seconds_evaluation"] for event in evaluated if "masking_validation" in event]
    report = median(gaps["report"] or [0.0])
    return Costs(
        attack_step=sum(event["seconds_attack"] for event in epochs)
        / max(1, sum(event["attack_steps"] for event in epochs)),
        update=fmean(event["seconds_update"] for event in epochs),
        evaluation=fmean(before_end or at_end),
        last_evaluation=fmean(at_end or before_end),
        checkpoint=fmean([event["seconds_checkpoint"] for event in epochs if event.get("seconds_checkpoint")] or [0.0]),
        start=fmean(gaps["start"] or [PROCESS_SECONDS]),
        job=fmean(gaps["job"] or [0.0]),
        report=max(0.0, report - DRIVER_REPORT_SECONDS),
        checkpoint_bytes=checkpoint_bytes,
        words=words,
    )


def epoch_seconds(event: EpochEvent) -> float:
    """Seconds that an epoch took with its checkpoint, as its worker reported them."""
    return trained_seconds(event) + event.get("seconds_checkpoint", 0.0)


def _waits(events: Sequence[Event]) -> Iterable[tuple[str, float]]:
    """(kind, seconds) of workers' waits: `start` of a new process, begin of a `job`, answer to a `report`."""
    heard: dict[int, float] = {}
    fresh: set[int] = set()
    seen: set[str] = set()
    for event in events:
        if event["event"] == "job":
            heard[event["trial"]] = event["time"]
            fresh.add(event["trial"])
        elif event["event"] == "epoch" and event["trial"] in heard:
            waited = max(0.0, event["time"] - heard[event["trial"]] - epoch_seconds(event))
            kind = "report"
            if event["trial"] in fresh:
                kind = "job" if event.get("worker") in seen else "start"
            fresh.discard(event["trial"])
            seen.add(str(event.get("worker")))
            heard[event["trial"]] = event["time"]
            yield kind, waited
