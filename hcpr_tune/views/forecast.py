"""What a search will do and cost, in words, before it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from hcpr_tune.search.halving import most_epochs, usual_epochs
from hcpr_tune.search.study import Study
from hcpr_tune.training.pacing import attack_steps

POWER_80, TWO_SIDED_95 = 0.8416, 1.96


def budget_words(study: Study) -> str:
    """What ends the search."""
    budget = study.settings.budget
    words = [f"{budget.trials} trials"]
    words += [f"{budget.hours:g} hours"] * bool(budget.hours)
    words += [f"{budget.worker_hours:g} worker-hours"] * bool(budget.worker_hours)
    return " or ".join(words)


def plan_lines(study: Study) -> list[str]:
    """Rungs, trials, calibration and epochs."""
    settings = study.settings
    usual = usual_epochs(study.rules, study.calibration)
    full = sum(study.rungs) if study.restarted else study.rungs[-1]
    calibrated = min(study.calibration, settings.budget.trials) * full
    startup = min(settings.budget.trials, settings.sampler.startup_trials)
    lines = [
        f"rungs: epochs {', '.join(map(str, study.rungs))}",
        f"trials: {settings.budget.trials}, {len(study.space)} searched dimensions, fingerprint {study.fingerprint}",
        f"ends with: {budget_words(study)}",
        f"cost: at most {most_epochs(study.rules)} epochs, usually about {usual}",
        f"calibration: {study.calibration} trials run to the end whatever their scores, {100 * calibrated / usual:.0f} % of the usual epochs",
        f"start-up of the sampler: the first {startup} of {settings.budget.trials} trials are drawn without a model",
    ]
    if len(study.rungs) == 1:
        del lines[4]
    return lines


def probe_lines(study: Study, workers: int, probes: Sequence[dict[str, Any]]) -> list[str]:
    """Worker-hours, wall-clock, disk, and the difference that the search could see, from what the probe measured."""
    seconds, share_evaluation = trial_seconds(study, probes)
    full = sum(study.rungs) if study.restarted else study.rungs[-1]
    usual = usual_epochs(study.rules, study.calibration)
    worker_seconds = seconds * usual / full + study.settings.budget.trials * fmean(p["seconds_startup"] for p in probes)
    megabytes = fmean(probe["checkpoint_bytes"] for probe in probes) / 1e6
    kept = study.settings.budget.trials + study.settings.keep_weights + workers
    images = probes[0]["validation_images"]
    steps = sum(probe["steps"] for probe in probes)
    return [
        f"probe: {steps} optimiser steps of the published recipe on {len(probes)} workers at once",
        f"one trial to the end: {hours(seconds)} on one worker, {100 * share_evaluation:.0f} % of it evaluation",
        f"the search: {hours(worker_seconds)} of workers' time, about {hours(worker_seconds / workers)} on {workers} workers",
        f"disk: at most about {kept * megabytes:.0f} MB of checkpoints, {megabytes:.1f} MB each",
        f"difference between two recipes that {images} validation images show (95 %, power 80 %): {detectable(images, 0.1):.1f} points where the two"
        f" disagree on 10 % of the images, {detectable(images, 0.3):.1f} where on 30 %",
    ]


def trial_seconds(study: Study, probes: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of one trial from the beginning to the end, at the attack steps of each of its epochs, and the share of evaluation."""
    recipe = study.recipe
    per_step, update, one = (
        fmean(probe[name] for probe in probes)
        for name in ("seconds_per_attack_step", "seconds_update", "seconds_evaluation")
    )
    training = sum(per_step * attack_steps(recipe, epoch) + update for epoch in range(1, recipe.epochs + 1))
    evaluated = {epoch for epoch in range(1, recipe.epochs + 1) if epoch % recipe.evaluation.period == 0} | set(
        study.rungs
    )
    evaluation = one * len(evaluated)
    if study.restarted:
        factor = sum(study.rungs) / recipe.epochs
        training, evaluation = training * factor, evaluation * factor
    return training + evaluation, evaluation / (training + evaluation)


def detectable(images: int, disagreement: float) -> float:
    """Points of accuracy between two models that a paired test on `images` images finds in 80 % of cases (Connor, Biometrics 43, 1987, to first order)."""
    return 100 * (TWO_SIDED_95 + POWER_80) * math.sqrt(disagreement / images)


def hours(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
