"""Recorded trainings of many recipes: what a score, a rung or a sampler is worth, on real trainings at no further cost.

    python benchmarks/surfaces.py task --out task.json [--epsilons 0.2,0.25] [--seeds 5] [--recipes 6]
    python benchmarks/surfaces.py train --out surfaces.json [--recipes 100] [--seeds 2] [--mode annealed]

`task` asks on which radius there is something to find: the published recipe on its own schedule with several seeds, and
random recipes of the space, scored on validation under the margin attack and under AutoAttack.

`train` trains recipes of a low-discrepancy sequence to the end, the published one first, and records at every rung how
many images survive the margin attack at several radii around epsilon, of the model itself and of its averaged weights.
What a recipe is truly worth is measured on images that neither trained nor scored it, under a longer attack. The split
differs from the one that searches use, and none of its images is a test image of a search.

Both write their file anew after every training and go on where they stopped.

    python benchmarks/surfaces.py table --surface surfaces.json --out benchmarks/tables/digits_surface.csv
    python benchmarks/surfaces.py scores --surface surfaces.json [--out scores.json]
    python benchmarks/surfaces.py proposals --surface surfaces.json [--out proposals.json]

`table` makes a small table of the recorded trainings, which the other two read as well. `scores` asks which score ranks
recipes best, `proposals` which sampler finds the best ones.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from made_up import params_at
from shared import Plain, opened, save
from surface_proposals import add_proposals, proposals
from surface_scores import add_scores, scores
from surface_table import add_table, table

from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.training.recipe import LrSchedule, Recipe, Task

RADII = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Of the attacks that score, as multiples of epsilon."""
HALF_LIFE = 1.0
"""Epochs, of the averaged weights."""
LATE = 3
"""The last epochs, all of which are scored."""
TRUE_STEPS, TRUE_RESTARTS = 50, 2
SPLIT = 1
"""Seed of the split; searches use 0."""
PUBLISHED_SCHEDULE = LrSchedule()
"""One schedule with the published steps."""


def recipes_of(study: StudySpec, count: int) -> list[Plain]:
    """The published recipe's values and those of the first points of a Sobol sequence."""
    from scipy.stats import qmc

    points = qmc.Sobol(len(study.space), scramble=True, rng=0).random(max(1, count - 1))
    return [params_of(study.recipe, study.space), *(params_at(study.space, point) for point in points)][:count]


def single(recipe: Recipe) -> Recipe:
    """The recipe under one published schedule, without segments."""
    return replace(recipe, segment_ends=(), lr_schedule=PUBLISHED_SCHEDULE)


@cache
def data_of(task: Task) -> Any:
    from hcpr_tune.training.data.dataset import load_data

    return load_data(task)


@cache
def other_images(task: Task) -> Any:
    """The test images of the surface's own split that are not test images of a search."""
    import numpy as np

    from hcpr_tune.training.data.heldout import open_test

    own = open_test(task)
    kept = np.flatnonzero(~np.isin(own.indices, open_test(replace(task, split_seed=0)).indices))
    assert own.images is not None
    return replace(own, indices=own.indices[kept], labels=own.labels[kept], images=own.images[kept])


def surviving(model: Any, split: Any, task: Task, steps: int, restarts: int, radii: tuple[float, ...]) -> list[int]:
    """How many images are classified correctly, and survive the margin attack at each radius, which must ascend."""
    import torch

    from hcpr_tune.training.attacks.config import PGDConfig, Threat
    from hcpr_tune.training.attacks.evaluation import random_starts
    from hcpr_tune.training.attacks.pgd import predict_under_attack

    left, found = torch.arange(len(split)), []
    for factor in radii:
        threat = Threat(task.norm, factor * task.epsilon)
        config = PGDConfig(steps, 0.125 * threat.epsilon, restarts)
        images, labels = split.fetch(left), split.labels[left]
        starts = random_starts(images, left, threat, config, 0)
        clean, classes = predict_under_attack(model, images, labels, threat, config, starts)
        if not found:
            found.append(int(clean.sum()))
        left = left[classes == labels]
        found.append(len(left))
    return found


def models_of(state: Any) -> Plain:
    """The model itself and its averaged weights, ready to be attacked."""
    from hcpr_tune.training.models.folding import fuse_conv_bn

    return {"last": fuse_conv_bn(state.model.eval()), "averaged": fuse_conv_bn(state.averaged.model())}


def training(recipe: Recipe, true: bool, keep: str) -> Plain:
    """Train to the end and measure on the way. `keep`: where the weights go, empty for nowhere."""
    import torch

    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.loop import initial_state, torch_threads, train

    began = time.process_time()  # of the processor: what else runs does not count
    quiet = replace(recipe.evaluation, period=recipe.epochs, masking_images=0)
    recipe = replace(recipe, threads=1, averaging=replace(recipe.averaging, half_life=HALF_LIFE), evaluation=quiet)
    data, scores = data_of(recipe.task), {}
    state, diverged, truth = initial_state(recipe, data), "", {}
    looked = {*recipe.rungs, 3, 9, *range(recipe.epochs - LATE + 1, recipe.epochs + 1)}
    try:
        for epoch in train(recipe, data, state):
            if epoch.epoch in looked:
                with torch_threads(1):
                    scores[str(epoch.epoch)] = {
                        name: surviving(model, data.validation, recipe.task, recipe.evaluation.steps, 1, RADII)
                        for name, model in models_of(state).items()
                    }
    except Diverged as error:
        diverged = str(error)
    if true and not diverged:
        images = other_images(recipe.task)
        with torch_threads(1):
            truth = {
                name: surviving(model, images, recipe.task, TRUE_STEPS, TRUE_RESTARTS, (1.0,))
                for name, model in models_of(state).items()
            }
        truth["images"] = len(images)
    if keep and not diverged:
        torch.save({"last": state.model.state_dict(), "averaged": state.averaged.model().state_dict()}, keep)
    spent = time.process_time() - began
    return {"scores": scores, "truth": truth, "diverged": diverged, "seconds": spent}


def with_autoattack(recipe: Recipe) -> Plain:
    """A training, and how many validation images survive standard AutoAttack."""
    import torch

    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.attacks.cascade import CascadeConfig, run_cascade
    from hcpr_tune.training.loop import initial_state, torch_threads, train

    recipe = replace(recipe, threads=1, evaluation=replace(recipe.evaluation, period=recipe.epochs, masking_images=0))
    data = data_of(recipe.task)
    state, accuracies = initial_state(recipe, data), None
    try:
        for epoch in train(recipe, data, state):
            accuracies = epoch.validation or accuracies
    except Diverged as error:
        return {"diverged": str(error)}
    assert accuracies is not None
    split = data.validation
    everything = torch.arange(len(split))
    images, labels = split.fetch(everything), split.labels
    config = CascadeConfig(data.classes, 0)
    with torch_threads(1):
        steps = list(run_cascade(state.scored_model().eval(), images, labels, recipe.task.threat, config))
    counts = {"clean": accuracies.clean_correct, "margin": accuracies.robust_correct, "images": len(split)}
    counts |= {
        step.attack: sum(int(a == b) for a, b in zip(step.classes, labels.tolist(), strict=True)) for step in steps
    }
    return {"counts": counts, "diverged": ""}


# The command line


def run_all(jobs: list[tuple[Plain, Any, tuple[Any, ...]]], options: argparse.Namespace, results: Plain) -> None:
    """Do what the file does not have yet, in order, on a pool of processes with one thread each."""
    done = list(results["trainings"])
    left = [job for job in jobs if not any(job[0].items() <= entry.items() for entry in done)]
    waiting = iter(left)
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        running: dict[Any, Plain] = {}
        while True:
            while len(running) < options.workers and (job := next(waiting, None)) is not None:
                running[pool.submit(job[1], *job[2])] = job[0]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results["trainings"].append(running.pop(future) | future.result())
            save(options.out, results)
            print(f"{len(results['trainings'])} of {len(jobs)} trainings", flush=True)


def task(options: argparse.Namespace) -> None:
    results = opened(options.out, {"space": options.space, "epochs": options.epochs}, "trainings")
    jobs = []
    for epsilon in options.epsilons:
        study = study_at(options, epsilon, 0)
        for number, params in enumerate(recipes_of(study, options.recipes + 1)):
            for seed in range(1, 1 + (options.seeds if number == 0 else options.seeds_of_others)):
                recipe = replace(single(with_params(study.recipe, params)), seed=seed)
                jobs.append(({"epsilon": epsilon, "recipe": number, "seed": seed}, with_autoattack, (recipe,)))
    run_all(jobs, options, results)


def study_at(options: argparse.Namespace, epsilon: float, split: int) -> StudySpec:
    """The space at another radius; the attack's step keeps its share of it."""
    values: list[tuple[str, Any]] = [("epochs", options.epochs), ("task.split_seed", split)]
    if epsilon:
        values += [("task.epsilon", epsilon), ("attack.epsilon", epsilon), ("attack.step_size", round(epsilon / 5, 6))]
    return read_study(find_space(options.space), values)


def train_surface(options: argparse.Namespace) -> None:
    settings = {"space": options.space, "epochs": options.epochs, "epsilon": options.epsilon, "radii": list(RADII)}
    results = opened(options.out, settings, "trainings")
    study = study_at(options, options.epsilon, SPLIT)
    points = recipes_of(study, options.recipes)
    results["params"] = points
    jobs = []
    for number, params in enumerate(points):
        for seed in range(1, options.seeds + 1):
            recipe = replace(with_params(study.recipe, params), seed=seed)
            if options.mode == "single":
                recipe = single(recipe)
            keep = str(options.keep / f"{options.mode}-{number}-{seed}.pt") if options.keep else ""
            key = {"mode": options.mode, "recipe": number, "seed": seed}
            jobs.append((key, training, (recipe, True, keep)))
    run_all(jobs, options, results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("task", "train"):
        one = commands.add_parser(name)
        one.add_argument("--out", type=Path, required=True)
        one.add_argument("--space", default="default")
        one.add_argument("--epochs", type=int, default=27)
        one.add_argument("--workers", type=int, default=2)
        one.add_argument("--recipes", type=int, default=6 if name == "task" else 100)
        one.add_argument("--seeds", type=int, default=5 if name == "task" else 2)
        if name == "task":
            one.add_argument(
                "--epsilons", type=lambda text: [float(part) for part in text.split(",")], default=[0.2, 0.25]
            )
            one.add_argument("--seeds-of-others", type=int, default=1)
        else:
            one.add_argument("--epsilon", type=float, default=0.0, help="0: as the space has it")
            one.add_argument("--mode", choices=("annealed", "single"), default="annealed")
            one.add_argument("--keep", type=Path, help="a folder for the weights")
    add_table(commands.add_parser("table", help="recorded trainings as a small table"))
    add_scores(commands.add_parser("scores", help="which score ranks recipes best"))
    add_proposals(commands.add_parser("proposals", help="which sampler finds the best recipes"))
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    given = parse()
    known = {"task": task, "train": train_surface, "table": table, "scores": scores, "proposals": proposals}
    known[given.command](given)
