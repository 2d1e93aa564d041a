"""A forecast of what a search will do and cost, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import most_checkpoints
from hcpr_tune.search.scheduling.asha import most_epochs, usual_epochs, usual_segments
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.methods.schedules import attack_steps

POWER_80, TWO_SIDED_95 = 0.8416, 1.96


def budget_words(study: StudySpec) -> str:
    """What ends the search."""
    budget = study.settings.budget
    words = [f"{budget.trials} trials"]
    words += [f"{budget.hours:g} hours"] * bool(budget.hours)
    words += [f"{budget.worker_hours:g} worker-hours"] * bool(budget.worker_hours)
    return " or ".join(words)


def disk_words(study: StudySpec, history: History, workers: int, checkpoint_bytes: int) -> str:
    """The most disk space that checkpoints take; `checkpoint_bytes`: the size of one, 0 if unknown."""
    most = most_checkpoints(study, history, workers)
    size = (
        f", {most * checkpoint_bytes / 1e6:.0f} MB ({checkpoint_bytes / 1e6:.2f} MB each)" if checkpoint_bytes else ""
    )
    return f"at most {most} checkpoints{size}"


def plan_lines(study: StudySpec) -> list[str]:
    """Rungs, trials, calibration and epochs."""
    settings = study.settings
    usual = usual_epochs(study.asha_config, study.calibration)
    full = sum(study.rungs) if study.restarted else study.rungs[-1]
    calibrated = min(study.calibration, settings.budget.trials) * full
    startup = min(settings.budget.trials, settings.sampler.startup_trials)
    lines = [
        f"rungs: epochs {', '.join(map(str, study.rungs))}",
        f"trials: {settings.budget.trials}, {len(study.space)} searched dimensions, fingerprint {study.fingerprint}",
        f"ends with: {budget_words(study)}",
        f"cost: at most {most_epochs(study.asha_config)} epochs, usually about {usual}",
        f"calibration: {study.calibration} trials run to the end whatever their scores,"
        f" {100 * calibrated / usual:.0f} % of the usual epochs",
        f"start-up of the sampler: the first {startup} of {settings.budget.trials} trials are drawn without a model",
    ]
    if len(study.rungs) == 1:
        del lines[4]
    if study.replicates:
        again = study.asha_config.replicates * study.rungs[-1]
        lines.append(
            f"replicates: the best recipes and the published one on {study.replicates} fresh seeds each, {again} of the"
            " usual epochs"
        )
    return lines


def probe_lines(study: StudySpec, workers: int, probes: Sequence[dict[str, Any]]) -> list[str]:
    """Worker-hours, wall-clock time, disk space and detectable difference, from what the probe measured."""
    segments = [
        (segment_seconds(study, probes, start, end), times)
        for start, end, times in usual_segments(study.asha_config, study.calibration)
    ]
    training, evaluation = (sum(seconds[part] for seconds, _ in segments) for part in (0, 1))
    worker_seconds = sum(sum(seconds) * times for seconds, times in segments)
    worker_seconds += study.settings.budget.trials * fmean(probe["seconds_startup"] for probe in probes)
    limit = min(study.asha_config.worker_seconds, study.asha_config.seconds * workers)
    ended = f", more than the {hours(limit)} that its budget allows" if worker_seconds > limit else ""
    megabytes = fmean(probe["checkpoint_bytes"] for probe in probes) / 1e6
    kept = most_checkpoints(study, History(study.recipe.epochs, study.goal), workers)
    images = probes[0]["validation_images"]
    steps = sum(probe["steps"] for probe in probes)
    return [
        f"probe: {steps} optimiser steps of the published recipe on {len(probes)} workers at once",
        f"one trial to the end: {hours(training + evaluation)} on one worker,"
        f" {100 * evaluation / (training + evaluation):.0f} % of it evaluation",
        f"the search: {hours(worker_seconds)} of workers' time, about {hours(worker_seconds / workers)} on {workers}"
        f" workers{ended}",
        f"disk: at most about {kept * megabytes:.0f} MB of checkpoints, {megabytes:.1f} MB each",
        f"difference between two recipes that {images} validation images show (95 %, power 80 %):"
        f" {detectable(images, 0.1):.1f} points if the two disagree on 10 % of the images,"
        f" {detectable(images, 0.3):.1f} if on 30 %",
    ]


def segment_seconds(study: StudySpec, probes: Sequence[dict[str, Any]], start: int, end: int) -> tuple[float, float]:
    """Seconds of training and of evaluation for the epochs after `start` up to `end`, at the attack steps of each."""
    recipe = study.recipe
    if study.restarted:
        recipe = replace(recipe, stop_epoch=end if end < recipe.epochs else 0)
    per_step, update, one = (
        fmean(probe[name] for probe in probes)
        for name in ("seconds_per_attack_step", "seconds_update", "seconds_evaluation")
    )
    epochs = range(start + 1, end + 1)
    evaluated = sum(epoch % recipe.evaluation.period == 0 or epoch in recipe.rung_epochs for epoch in epochs)
    return sum(per_step * attack_steps(recipe, epoch) + update for epoch in epochs), one * evaluated


def detectable(images: int, disagreement: float) -> float:
    """Points of accuracy between two models that a paired test on `images` images finds in 80 % of cases.

    Connor, Biometrics 43, 1987, to first order.
    """
    return 100 * (TWO_SIDED_95 + POWER_80) * math.sqrt(disagreement / images)


def hours(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
