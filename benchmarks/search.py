"""The search against other ways to spend the same time, and whether an early rung predicts the final ranking.

    python benchmarks/search.py arms --out arms.json [--worker-seconds 300] [--seeds 5] [--plot arms.png]
    python benchmarks/search.py rungs --out rungs.json [--dataset fashion_mnist --root data]

    python benchmarks/search.py driver [--recorded 10000]
    python benchmarks/search.py rungs-simulated [--budgets 80,233,1000,5000] [--world digits] [--repeats 200]

The first two write their JSON file anew after every run, prints the summary, and skips what the file already has when
it is started again.

`arms` spends the same worker-seconds on one space in four ways, each in a process and a folder of its own: `random`
(this service, random recipes at full length), `stock_ray` (Ray Tune with Optuna and its ASHA as they come),
`one_stretch` (short random trainings, then the best ones to the end) and `ours` (this service as the space has it).
`--arms stock_ray_reuse` adds Ray Tune with reuse_actors=True: by default it starts a process for every trial, which
costs as much as several epochs on a small task.

`rungs` trains the same recipes with one learning rate schedule (`single`), one per segment (`annealed`), and anew for
each rung (`restarted`), and correlates the scores at the rungs with those at the end.

`driver` measures what the process that leads a search spends on one report and on one suggestion, with so many trials
recorded: the record, all files and TensorBoard included. The recorded scores are made up; nothing is trained.

`rungs-simulated` simulates what stopping at rungs is worth, for rungs that predict the end as well as is wished
(`rungs_simulated.py`).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import machine, spread
from made_up import made_up, made_up_epoch, params_at
from rungs_simulated import add_rungs_simulated, rungs_simulated, whole_numbers

from hcpr_tune.common.settings import parse_assignment
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.dimensions import Dimension, Params, Range
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.recipe import Recipe, Task

ROOT = Path(__file__).resolve().parent.parent
Plain = dict[str, Any]
Override = tuple[str, Any]

ARMS = ("random", "stock_ray", "one_stretch", "ours")
MORE_ARMS = ("stock_ray_reuse",)
"""Only where --arms names them."""
STOCK = ("stock_ray", "stock_ray_reuse")
SERVICE_SETTINGS: dict[str, tuple[str, ...]] = {
    "random": (
        'sampler.name="random"',
        'early_stopping.method="none"',
        'lr_schedule.mode="single"',
    ),
    "ours": (),
}
"""What the arms that are this service set, beside the budget."""
PLAIN_STUDY: tuple[Override, ...] = (("early_stopping.method", "none"), ("lr_schedule.mode", "single"))
"""For the arms that only take the recipe and the space: one schedule over the whole training, no rungs."""
SHORT = 3
"""Epochs of the first phase of `one_stretch`."""
ALLOWED_CODES = (0, 1)
"""1: no trial of the service reached a rung, which a tiny budget allows."""

WAYS = ("single", "annealed", "restarted")
LR = Range(0.03, 0.2, log=True)
"""The learning rate is added to the space: what it does early and late differs most."""

NOTES = (
    "Scores are validation robust accuracy under the margin attack, on the images that the search chooses by:"
    " optimistic in every arm.",
    "stock_ray counts the best of all epochs of a trial, the others only ends of segments: many more looks, to its"
    " advantage.",
    "Every arm tries the published recipe first, then the points that the space names (first_points).",
    "Seconds are wall-clock since the arm's process was started, imports and the start of Ray included. The budget of"
    " stock_ray and one_stretch counts from when they ask for workers; this service counts its own.",
    "stock_ray is cut off when the time is up; the other arms end what runs.",
    "By its default stock_ray starts a new process for each trial; stock_ray_reuse does not.",
)


# Shared: the space, the output file


def space_file(name: str) -> Path:
    """A name in search_spaces/, or a path."""
    return Path(name).resolve() if name.endswith(".toml") else ROOT / "search_spaces" / f"{name}.toml"


def study_of(options: argparse.Namespace, *overrides: Override) -> StudySpec:
    """The study of --space and --set, with `overrides` over them."""
    given = [parse_assignment(text) for text in options.set]
    return read_study(space_file(options.space), [*given, *overrides])


def opened(path: Path, settings: Plain, kind: str) -> Plain:
    """The output file as it was left, or a new one. Ends the program where it was begun with other settings."""
    if not path.exists():
        return {"settings": settings, "machine": machine(), kind: []}
    results: Plain = json.loads(path.read_text())
    if results["settings"] != settings:
        raise SystemExit(f"{path} was begun with other settings, {results['settings']}; choose another --out")
    return results


def save(path: Path, results: Plain) -> None:
    """Write the file in one go, so that a kill leaves the one before."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def single_thread() -> None:
    """Before a pool's worker does anything: two workers with two threads each would stand in each other's way."""
    import torch

    torch.set_num_threads(1)


def make_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=single_thread)


def epoch_seconds(epoch: Any) -> float:
    return float(epoch.seconds_attack + epoch.seconds_update + epoch.seconds_evaluation)


def epoch_score(epoch: Any) -> float | None:
    return None if epoch.validation is None else epoch.validation.robust_correct / epoch.validation.total


# Arms: the ways to spend the time

Log = Callable[[Plain], None]
"""Takes an event: time, trial, epoch, score (None: not compared by), seconds of work."""


def stock_ray(options: argparse.Namespace, log_file: Path) -> None:
    """Ray Tune as in its documentation: a function that reports each epoch, OptunaSearch, ASHA with its defaults."""
    import logging

    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    # Each report needs a score; nobody looks at the masking alarm.
    periods = (("evaluation.period", 1), ("evaluation.masking_images", 0))
    study = study_of(options, *PLAIN_STUDY, *periods, ("seed", options.seed))
    recipe = study.recipe

    def trainable(config: Params) -> None:
        from hcpr_tune.training.data.dataset import load_data
        from hcpr_tune.training.loop import initial_state, train

        trial, data = with_params(recipe, from_optuna(config)), load_data(recipe.task)
        for epoch in train(trial, data, initial_state(trial, data)):
            tune.report({"robust_accuracy": epoch_score(epoch), "seconds_of_work": epoch_seconds(epoch)})

    class Logger(tune.Callback):  # type: ignore[misc]  # Ray is untyped
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Plain, **info: Any) -> None:
            event = {"epoch": result["training_iteration"], "score": result["robust_accuracy"]}
            append(log_file, {"trial": trial.trial_id, "seconds": result["seconds_of_work"], **event})

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=options.workers, num_gpus=0, include_dashboard=False, **quiet)
    search = OptunaSearch(
        optuna_space(study),
        metric="robust_accuracy",
        mode="max",
        seed=options.seed,
        points_to_evaluate=[for_optuna(point, study) for point in first_points(study)],
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="robust_accuracy",
            mode="max",
            search_alg=search,
            scheduler=AsyncHyperBandScheduler(max_t=recipe.epochs),
            num_samples=-1,
            reuse_actors=options.arm == "stock_ray_reuse",
            time_budget_s=options.worker_seconds / options.workers,
        ),
        run_config=tune.RunConfig(
            name="stock", storage_path=str(log_file.parent / "ray"), verbose=0, callbacks=[Logger()]
        ),
    )
    tuner.fit()
    ray.shutdown()


def optuna_space(study: StudySpec) -> dict[str, Any]:
    """The space as OptunaSearch takes it: every dimension in every trial, a choice where a range has extra values."""
    from hcpr_tune.search.suggestion.optuna_adapter import distribution, distributions_of

    found = {name: distribution(dimension) for name, dimension in study.space.items()}
    for name, dimension in study.space.items():
        if getattr(dimension, "extra_values", ()):
            found |= distributions_of({name: dimension.ends()[-1]}, study.space)
    return found


def from_optuna(config: Params) -> Params:
    """What OptunaSearch drew as values of the dimensions."""
    from hcpr_tune.search.suggestion.optuna_adapter import IN_RANGE, KIND

    params = {name: value for name, value in config.items() if not name.endswith(KIND)}
    beside = {name.removesuffix(KIND): value for name, value in config.items() if name.endswith(KIND)}
    return params | {name: float(value) for name, value in beside.items() if value != IN_RANGE}


def first_points(study: StudySpec) -> list[Params]:
    """What every arm tries first: the published recipe, and the points that the space names."""
    return [params_of(study.recipe, study.space), *study.first_points]


def for_optuna(params: Params, study: StudySpec) -> Params:
    """A point as OptunaSearch takes it: dimensions that do not exist there have any value."""
    from hcpr_tune.search.suggestion.optuna_adapter import to_optuna

    anything = {name: dimension.at(0.5) for name, dimension in study.space.items()}
    return {**anything, **to_optuna(params, study.space)}


def append(log_file: Path, event: Plain) -> None:
    """One event as a line; its time is now unless it says another."""
    with log_file.open("a") as file:
        file.write(json.dumps({"time": time.time(), **event}) + "\n")


def one_stretch(options: argparse.Namespace, log_file: Path) -> None:
    """Half of the time on random recipes for `SHORT` epochs each, then the best to the end, one after another."""
    skips = (("evaluation.masking_images", 0), ("lr_schedule.mode", "annealed"), ("seed", options.seed))
    study = study_of(options, *PLAIN_STUDY, *skips)
    epochs = study.recipe.epochs
    evaluation = replace(study.recipe.evaluation, period=epochs)
    recipe = replace(study.recipe, segment_ends=(SHORT,), evaluation=evaluation)
    recipes: list[Recipe] = []
    scores: dict[int, float] = {}
    seconds: list[float] = []

    def log(event: Plain) -> None:
        append(log_file, event)
        seconds.append(event["seconds"])
        if event["score"] is not None:
            scores[event["trial"]] = event["score"]

    began, share = time.time(), options.worker_seconds / options.workers
    with make_pool(options.workers) as pool:

        def short() -> Iterator[tuple[Any, ...]]:
            draws, first = np.random.default_rng(options.seed), first_points(study)
            while time.time() < began + share / 2:
                drawn = params_at(study.space, draws.random(len(study.space)))
                params = first[len(recipes)] if len(recipes) < len(first) else drawn
                recipes.append(with_params(recipe, params))
                yield recipes[-1], SHORT, len(recipes) - 1, log_file.parent

        def long() -> Iterator[tuple[Any, ...]]:
            ranked = sorted(scores, key=lambda trial: -scores[trial])
            expected = (epochs - SHORT) * statistics.mean(seconds)
            for started, trial in enumerate(ranked):
                if started >= options.workers and time.time() + expected > began + share:
                    return
                yield recipes[trial], epochs, trial, log_file.parent

        keep_busy(pool, options.workers, short(), log)
        keep_busy(pool, options.workers, long(), log)


def keep_busy(pool: Executor, workers: int, jobs: Iterator[tuple[Any, ...]], log: Log) -> None:
    """Hand a job out whenever a worker is free, not before, until there are no more: a job is drawn when it starts."""
    running: set[Future[list[Plain]]] = set()
    while True:
        while len(running) < workers and (job := next(jobs, None)) is not None:
            running.add(pool.submit(segment, *job))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for event in itertools.chain.from_iterable(future.result() for future in done):
            log(event)


def segment(recipe: Recipe, end: int, trial: int, folder: Path) -> list[Plain]:
    """Train to the end of epoch `end`, from where the trial's file has it; the events of its epochs."""
    import torch

    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.loop import initial_state, train

    data, file, events = data_of(recipe.task, 0), folder / f"{trial}.pt", []
    state = initial_state(recipe, data)
    if file.exists():
        state.load_state_dict(torch.load(file, weights_only=True))
    try:
        for epoch in train(recipe, data, state):
            measured = {"epoch": epoch.epoch, "score": epoch_score(epoch), "seconds": epoch_seconds(epoch)}
            events.append({"time": time.time(), "trial": trial, **measured})
            if epoch.epoch == end:
                torch.save(state.state_dict(), file)
                break
    except Diverged:
        pass  # without a score it does not go on
    return events


# Arms: running and judging them


def run_arm(arm: str, seed: int, options: argparse.Namespace) -> Plain:
    """Run one arm in an empty folder and say what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_file = folder / ("results/arm/record.jsonl" if arm in SERVICE_SETTINGS else "events.jsonl")
        command = arm_command(arm, seed, options, log_file)
        began = time.time()
        with (folder / "stderr").open("w") as errors:
            code = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, check=False).returncode
        seconds = time.time() - began
        if code not in ALLOWED_CODES or not log_file.exists():
            tail = (folder / "stderr").read_text()[-2000:]
            raise SystemExit(f"{arm} with seed {seed} ended with exit code {code}\n{tail}")
        events = [json.loads(line) for line in log_file.read_text().splitlines()]
    if arm in SERVICE_SETTINGS:
        events = [service_event(event) for event in events if event["event"] == "epoch"]
    return {"arm": arm, "seed": seed, "seconds": seconds, **outcome(events, began)}


def arm_command(arm: str, seed: int, options: argparse.Namespace, log_file: Path) -> list[str]:
    shared = [word for text in options.set for word in ("--set", text)]
    if arm not in SERVICE_SETTINGS:
        numbers = ["--worker-seconds", options.worker_seconds, "--workers", options.workers, "--seed", seed]
        words = [ROOT / "benchmarks/search.py", "arm", arm, "--log-file", log_file, "--space", options.space, *numbers]
        return [sys.executable, *map(str, words), *shared]
    budget = ["budget.trials=1000", f"budget.worker_hours={options.worker_seconds / 3600!r}"]
    if options.trials:
        budget = [f"budget.trials={options.trials}"]
    settings = [*SERVICE_SETTINGS[arm], *budget, f"seed={seed}", f"resources.workers={options.workers}"]
    words = [ROOT / "launch/tune.py", "--space", space_file(options.space), "--name", "arm", "--storage", "results"]
    return [sys.executable, *map(str, words), "--quiet", *shared, *(f"--set={text}" for text in settings)]


def service_event(event: Plain) -> Plain:
    """An epoch of the service's record; trials are compared by what they have at the end of a segment."""
    score = event["robust_correct_validation"] / event["total_validation"] if event["is_rung"] else None
    seconds = sum(event[f"seconds_{name}"] for name in ("attack", "update", "evaluation"))
    return {"score": score, "seconds": seconds} | {name: event[name] for name in ("time", "trial", "epoch")}


def outcome(events: list[Plain], began: float) -> Plain:
    """Counts, the best score, and the time line of the best so far: [seconds, score] at each rise."""
    timeline: list[list[float]] = []
    for event in sorted(events, key=lambda event: event["time"]):
        if event["score"] is not None and (not timeline or event["score"] > timeline[-1][1]):
            timeline.append([event["time"] - began, event["score"]])
    return {
        "trials": len({event["trial"] for event in events}),
        "epochs": len({(event["trial"], event["epoch"]) for event in events}),
        "seconds_of_work": sum(event["seconds"] for event in events),
        "final_best": timeline[-1][1] if timeline else None,
        "timeline": timeline,
    }


def summary_of_arms(runs: list[Plain]) -> Plain:
    """Final bests, paired differences, and when ours had what Ray Tune ended with."""
    found = {(run["arm"], run["seed"]): run for run in runs}
    bests = {key: run["final_best"] for key, run in found.items() if run["final_best"] is not None}
    arms = [arm for arm in (*ARMS, *MORE_ARMS) if any(key[0] == arm for key in bests)]
    seeds = sorted({seed for _, seed in found})
    differences = {
        arm: [bests["ours", seed] - bests[arm, seed] for seed in seeds if {("ours", seed), (arm, seed)} <= bests.keys()]
        for arm in arms
        if arm != "ours"
    }
    return {
        "final_best": {arm: spread([bests[key] for key in bests if key[0] == arm]) for arm in arms},
        "ours_minus": {arm: {"values": values, **spread(values)} for arm, values in differences.items()},
        "ours_reaches_final_best_of": {arm: catching_up_with(arm, found) for arm in STOCK if arm in arms},
    }


def catching_up_with(arm: str, found: dict[tuple[str, int], Plain]) -> Plain:
    """`catching_up` by seed, and the median fraction."""
    pairs = [(found.get(("ours", seed)), run) for (name, seed), run in sorted(found.items()) if name == arm]
    seeds = [catching_up(ours, run) for ours, run in pairs if ours and run["final_best"] is not None]
    return {"median_fraction": median_with_never([entry["fraction"] for entry in seeds]), "by_seed": seeds}


def catching_up(ours: Plain, stock: Plain) -> Plain:
    """When `ours` first reaches the final best of `stock` (None: never), and as a fraction of the time of `stock`."""
    at = next((seconds for seconds, score in ours["timeline"] if score >= stock["final_best"]), None)
    fraction = None if at is None else at / stock["seconds"]
    return {"seed": ours["seed"], "seconds": at, "seconds_of_other": stock["seconds"], "fraction": fraction}


def median_with_never(fractions: Sequence[float | None]) -> float | None:
    """The median where never is later than everything; None where it is never, or where there is nothing."""
    if not fractions:
        return None
    middle = statistics.median([math.inf if fraction is None else fraction for fraction in fractions])
    return middle if math.isfinite(middle) else None


def arms(options: argparse.Namespace) -> None:
    """The command `arms`."""
    settings = {"space": options.space, "set": options.set, "worker_seconds": options.worker_seconds}
    settings |= {"workers": options.workers, "trials": options.trials}
    results = opened(options.out, settings, "runs")
    done = {(run["arm"], run["seed"]) for run in results["runs"]}
    for seed in range(options.seeds):
        for arm in options.arms:
            if (arm, seed) in done:
                continue
            print(f"{arm}, seed {seed}", file=sys.stderr, flush=True)
            results["runs"].append(run_arm(arm, seed, options))
            results |= {"notes": NOTES, "summary": summary_of_arms(results["runs"])}
            save(options.out, results)
    print(json.dumps(summary_of_arms(results["runs"]), indent=1))
    if options.plot:
        plot(results["runs"], options.plot)


# The picture

STYLES = {
    "random": ("#999999", (0, (1, 1)), "random search, full length"),
    "stock_ray": ("#D55E00", "--", "stock Ray Tune (Optuna, ASHA)"),
    "stock_ray_reuse": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "stock Ray Tune, processes reused"),
    "one_stretch": ("#009E73", "-.", "one short segment, then the best"),
    "ours": ("#0072B2", "-", "hcpr_tune"),
}
"""Colours of Okabe and Ito, which colour-blind people tell apart; lines differ too."""


def plot(runs: list[Plain], path: Path) -> None:
    """Best so far against wall-clock: the median over the seeds, and the band from the worst to the best."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    for arm, (colour, line, label) in STYLES.items():
        chosen = [run for run in runs if run["arm"] == arm and run["timeline"]]
        if not chosen:
            continue
        grid, values = on_grid(chosen)
        axes.fill_between(grid, values.min(axis=0), values.max(axis=0), step="post", color=colour, alpha=0.15, lw=0)
        axes.step(grid, np.median(values, axis=0), where="post", color=colour, linestyle=line, lw=2, label=label)
    seeds = len({run["seed"] for run in runs})
    axes.set_xlabel("seconds since the start of the process")
    axes.set_ylabel("best robust accuracy so far (validation)")
    axes.set_title(f"Median over {seeds} seed{'s' * (seeds != 1)}, band from minimum to maximum", fontsize=10)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def on_grid(runs: list[Plain]) -> tuple[np.ndarray, np.ndarray]:
    """Times at which any run rises, from when all have a score to the longest's end; best so far, (runs, times)."""
    first = max(run["timeline"][0][0] for run in runs)
    rises = {seconds for run in runs for seconds, _ in run["timeline"] if seconds >= first}
    grid = np.array(sorted({first, *rises, max(run["seconds"] for run in runs)}))
    values = [[max(score for at, score in run["timeline"] if at <= seconds) for seconds in grid] for run in runs]
    return grid, np.array(values)


# Rungs: the trainings


def kinds_of(ways: Sequence[str], rungs: Sequence[int]) -> list[tuple[str, int]]:
    """The trainings that the ways need of each recipe, as (lr_schedule.mode, epochs).

    `single` and the last rung of `restarted` are one and the same training.
    """
    kinds = [("annealed", rungs[-1])] if "annealed" in ways else []
    if "single" in ways or "restarted" in ways:
        kinds.append(("single", rungs[-1]))
    return kinds + ([("single", rung) for rung in rungs[:-1]] if "restarted" in ways else [])


def recipe_of(study: StudySpec, params: Params, kind: tuple[str, int], rungs: Sequence[int], seed: int) -> Recipe:
    """The recipe of one training. Only `annealed` has segments: with one schedule the pace spans the training too."""
    mode, epochs = kind
    recipe = with_params(study.recipe, params)
    # One schedule is scored on its way by the evaluation period, since a rung would end a segment.
    period = math.gcd(*rungs) if mode == "single" and epochs == rungs[-1] else epochs
    return replace(
        recipe,
        epochs=epochs,
        segment_ends=tuple(rungs[:-1]) if mode == "annealed" else (),
        seed=seed,
        threads=1,
        lr_schedule=replace(recipe.lr_schedule, mode=mode, shape="cosine"),
        evaluation=replace(recipe.evaluation, period=period, masking_images=0),
    )


@functools.lru_cache(maxsize=1)
def data_of(task: Task, image_size: int) -> Any:
    """The task's data, its images mean-pooled to `image_size` (0: as they are)."""
    from hcpr_tune.training.data.dataset import load_data

    data = load_data(task)
    if image_size in (0, data.image_size[0]):
        return data
    return replace(data, train=pooled(data.train, image_size), validation=pooled(data.validation, image_size))


def pooled(split: Any, image_size: int) -> Any:
    """The split with square blocks of pixels averaged, in memory."""
    import torch
    from torch.nn import functional

    channels, height, width = split.shape
    block = height // image_size
    if (block * image_size, block * image_size) != (height, width):
        raise SystemExit(f"--image-size must divide the {height}x{width} pixels of the images, got {image_size}")
    images = split.stored(torch.arange(len(split)))
    images = functional.avg_pool2d(images.to(torch.float32), block).round().to(torch.uint8)
    # The pool could only decode images of the old size; with all of them in memory it is not asked.
    return replace(split, pool=replace(split.pool, shape=(channels, image_size, image_size)), images=images)


def training(recipe: Recipe, image_size: int, rungs: Sequence[int]) -> Plain:
    """Train one recipe to its end: the scores at the rungs. A training that diverges has 0 from there on."""
    from hcpr_tune.errors import Diverged
    from hcpr_tune.training.loop import initial_state, train

    began, data = time.perf_counter(), data_of(recipe.task, image_size)
    scores: dict[str, float] = {}
    diverged = ""
    try:
        for epoch in train(recipe, data, initial_state(recipe, data)):
            score = epoch_score(epoch)
            if epoch.epoch in rungs and score is not None:
                scores[str(epoch.epoch)] = score
    except Diverged as error:
        diverged = str(error)
        scores = {str(rung): scores.get(str(rung), 0.0) for rung in rungs if rung <= recipe.epochs}
    return {"scores": scores, "diverged": diverged, "seconds": time.perf_counter() - began}


def sobol_params(study: StudySpec, count: int) -> list[Params]:
    """The first recipes of a low-discrepancy sequence over the space and learning rate: more begin with the same."""
    from scipy.stats import qmc

    space: dict[str, Dimension] = {**study.space, "optimiser.lr": LR}
    points = qmc.Sobol(len(space), scramble=True, rng=0).random_base2(max(1, math.ceil(math.log2(count))))
    return [params_at(space, point) for point in points[:count]]


def rungs_study(options: argparse.Namespace) -> StudySpec:
    task: list[Override] = [("task.dataset", options.dataset), ("task.images", options.images)]
    if options.root:
        task.append(("task.root", str(Path(options.root).resolve())))
    sizes = (("attack.steps", options.attack_steps), ("model.width", options.width))
    return study_of(options, *PLAIN_STUDY, *task, *((name, value) for name, value in sizes if value))


def rungs(options: argparse.Namespace) -> None:
    """The command `rungs`."""
    fashion = options.dataset == "fashion_mnist"
    options.images = (5000 if fashion else 0) if options.images is None else options.images
    options.image_size = (14 if fashion else 0) if options.image_size is None else options.image_size
    epochs = (*sorted(rung for rung in options.rungs if rung < options.epochs), options.epochs)
    names = ("space", "set", "dataset", "images", "image_size", "attack_steps", "width")
    settings = {name: getattr(options, name) for name in names} | {"rungs": list(epochs)}
    results = opened(options.out, settings, "trainings")
    study = rungs_study(options)
    all_params = sobol_params(study, options.recipes)
    jobs = []
    # All kinds of one recipe follow each other, so that what a kill leaves can be compared.
    for seed, number, kind in itertools.product(
        range(options.seeds), range(options.recipes), kinds_of(options.ways, epochs)
    ):
        key = {"mode": kind[0], "epochs": kind[1], "recipe": number, "seed": seed}
        if not any(key.items() <= entry.items() for entry in results["trainings"]):
            jobs.append((key, recipe_of(study, all_params[number], kind, epochs, seed)))
    train_all(jobs, options, epochs, results)
    results |= {"params": all_params, "summary": summary_of_rungs(results["trainings"], options.ways, epochs)}
    save(options.out, results)
    print(json.dumps(results["summary"], indent=1))


def train_all(
    jobs: list[tuple[Plain, Recipe]], options: argparse.Namespace, rungs: Sequence[int], results: Plain
) -> None:
    """Train every recipe on a pool, in order, and save after each."""
    with make_pool(options.workers) as pool:
        running = {pool.submit(training, recipe, options.image_size, rungs): key for key, recipe in jobs}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    results["trainings"].append(running.pop(future) | future.result())
                save(options.out, results)
                print(f"{len(jobs) - len(running)} of {len(jobs)} trainings", file=sys.stderr, flush=True)
        except BaseException:
            # Leaving the block would wait for all that is still to come.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# Rungs: what they say

Scores = dict[int, np.ndarray]
"""Of one way: by seed, (recipes, rungs)."""


def scores_of(trainings: list[Plain], way: str, rungs: Sequence[int]) -> Scores:
    """The scores of the recipes that have been trained at every rung with every seed that there is."""
    found = {(entry["mode"], entry["epochs"], entry["seed"], entry["recipe"]): entry["scores"] for entry in trainings}
    mode = "annealed" if way == "annealed" else "single"
    seeds = sorted({entry["seed"] for entry in trainings})
    rows: dict[int, list[list[float]]] = {seed: [] for seed in seeds}
    for recipe in sorted({entry["recipe"] for entry in trainings}):
        keys = {
            seed: [(mode, rung if way == "restarted" else rungs[-1], seed, recipe) for rung in rungs] for seed in seeds
        }
        if all(key in found for row in keys.values() for key in row):
            for seed, row in keys.items():
                rows[seed].append([found[key][str(rung)] for key, rung in zip(row, rungs, strict=True)])
    return {seed: np.array(row).reshape(-1, len(rungs)) for seed, row in rows.items()}


def rank_correlation(one: np.ndarray, other: np.ndarray) -> Plain:
    """Spearman's correlation with its 95 % interval: Fisher's z with the standard error of Bonett and Wright (2000)."""
    from scipy.stats import rankdata

    n = len(one)
    result: Plain = {"n": n, "spearman": None, "interval": None}
    if n < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return result
    r = round(float(np.corrcoef(rankdata(one), rankdata(other))[0, 1]), 9)
    result["spearman"] = r
    if n > 3 and abs(r) < 1:
        half = 1.959964 * math.sqrt((1 + r**2 / 2) / (n - 3))
        result["interval"] = [math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)]
    return result


def with_end(scores: np.ndarray, rung: int) -> Plain:
    """Column `rung` of (recipes, rungs) against the last one: all recipes, and the half that is better at the end."""
    final = scores[:, -1]
    better = np.argsort(-final, kind="stable")[: (len(final) + 1) // 2]
    return rank_correlation(scores[:, rung], final) | {
        "better_half": rank_correlation(scores[better, rung], final[better])
    }


def mean_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def summary_of_way(scores: Scores, rungs: Sequence[int]) -> Plain:
    """Each rung against the end, per seed and for the mean over seeds; final scores; what seeds agree on."""
    by_rung: Plain = {}
    for column, rung in enumerate(rungs[:-1]):
        each = {str(seed): with_end(one, column) for seed, one in scores.items()}
        by_rung[str(rung)] = {
            "by_seed": each,
            "mean_over_seeds": mean_of(entry["spearman"] for entry in each.values()),
            "mean_over_seeds_better_half": mean_of(entry["better_half"]["spearman"] for entry in each.values()),
            "of_scores_averaged_over_seeds": with_end(np.mean(list(scores.values()), axis=0), column),
        }
    finals = [one[:, -1] for one in scores.values()]
    pairs = [rank_correlation(one, other) for one, other in itertools.combinations(finals, 2)]
    return {
        "recipes": len(finals[0]),
        "rungs": by_rung,
        "final_of_best": mean_of(float(final.max()) for final in finals),
        "final_of_better_half": mean_of(float(np.sort(final)[len(final) // 2 :].mean()) for final in finals),
        "final_of_all": mean_of(float(final.mean()) for final in finals),
        "ceiling": {"mean": mean_of(pair["spearman"] for pair in pairs), "pairs_of_seeds": pairs},
    }


def summary_of_rungs(trainings: list[Plain], ways: Sequence[str], rungs: Sequence[int]) -> Plain:
    """By way; ways without a recipe that is trained at every rung are left out."""
    scores = {way: scores_of(trainings, way, rungs) for way in ways}
    return {way: summary_of_way(one, rungs) for way, one in scores.items() if any(len(row) for row in one.values())}


# The command line


# Driver: what a report and a suggestion cost


def driver(options: argparse.Namespace) -> None:
    """The command `driver`."""
    from hcpr_tune.execution.connection.capacity import Capacity, Share
    from hcpr_tune.execution.ray_tune import RayTuneAdapter
    from hcpr_tune.execution.search_jobs import search_driver
    from hcpr_tune.search.record.record import Record
    from hcpr_tune.search.record.results import ResultFiles
    from hcpr_tune.search.storage.studies import check_new, create
    from hcpr_tune.search.suggestion.sampler import Suggester
    from hcpr_tune.views.tensorboard.writer import TensorBoardView

    study = study_of(options, ("budget.trials", 10 * options.recorded), ("early_stopping.calibration", 6))
    with tempfile.TemporaryDirectory() as folder:
        study_folder = check_new(Path(folder), "driver")
        history = create(study_folder, study).history
        for event in made_up(study, options.recorded):
            history.apply(event)
        record = Record(study_folder.record, history)
        stored = StoredStudy(study_folder, study, history)
        record.listeners = [ResultFiles(stored), TensorBoardView(stored)]
        capacity = Capacity(Share(2, 1.0, 0.0), nodes=lambda: [{"CPU": 2.0}])
        searcher = RayTuneAdapter(search_driver(study, record, study_folder, capacity.now))
        suggester = Suggester(study)
        draws = np.random.default_rng(1)
        spent: dict[str, list[float]] = {"suggestion": [], "decision": [], "report": []}
        for job in range(options.repeats):
            began = time.perf_counter()
            suggester.suggest(len(history.trials), history)
            spent["suggestion"].append(time.perf_counter() - began)
            began = time.perf_counter()
            searcher.suggest(f"job{job}")  # a promotion: made-up scores leave enough of them
            spent["decision"].append(time.perf_counter() - began)
            (trial,) = history.running
            assert trial.job is not None
            for epoch in range(trial.job.start + 1, trial.job.end + 1):
                report = {"epoch": made_up_epoch(epoch, epoch in study.rungs, draws)}
                if epoch == trial.job.end:
                    report["end"] = {"status": "reached", "reason": ""}
                result = {"report": json.dumps(report), "training_iteration": epoch}
                began = time.perf_counter()
                if not searcher.should_stop(f"job{job}", result):
                    searcher.on_trial_result(f"job{job}", result)
                spent["report"].append(time.perf_counter() - began)
        record.close()
    milliseconds = {name: spread([1000 * value for value in values]) for name, values in spent.items() if values}
    for name in milliseconds:
        milliseconds[name]["mean"] = 1000 * statistics.mean(spent[name])
    print(
        json.dumps(
            {
                "machine": machine(),
                "recorded": options.recorded,
                "dimensions": len(study.space),
                "milliseconds": milliseconds,
            },
            indent=1,
        )
    )


def listed(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads names with commas in between."""

    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"known: {', '.join(known)}")
        return names

    return read


def add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="default", help="a name in search_spaces/, or the path of a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the study")
    parser.add_argument("--workers", type=int, default=2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("arms", help="ways to spend the same time")
    add_shared(one)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--plot", type=Path, help="a PNG file; needs matplotlib")
    one.add_argument("--worker-seconds", type=float, default=300)
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--arms", type=listed((*ARMS, *MORE_ARMS)), default=list(ARMS), help="with commas in between")
    one.add_argument("--trials", type=int, default=0, help="for a try: the service's arms end after so many trials")

    inner = commands.add_parser("arm", help="one arm that is not the service, as `arms` starts it")
    add_shared(inner)
    inner.add_argument("arm", choices=(*STOCK, "one_stretch"))
    inner.add_argument("--worker-seconds", type=float, required=True)
    inner.add_argument("--seed", type=int, required=True)
    inner.add_argument("--log-file", type=Path, required=True)

    other = commands.add_parser("rungs", help="do the rungs rank recipes as the end does")
    add_shared(other)
    other.add_argument("--out", type=Path, required=True)
    other.add_argument("--dataset", choices=("digits", "fashion_mnist"), default="digits")
    other.add_argument("--root", help="folder with the files of Fashion-MNIST")
    other.add_argument("--images", type=int, help="images to train and validate on; digits: all, else 5000")
    other.add_argument("--image-size", type=int, help="pixels a side, by averaging; digits: 8, else 14")
    other.add_argument("--recipes", type=int, default=12)
    other.add_argument("--seeds", type=int, default=2)
    other.add_argument("--epochs", type=int, default=27)
    other.add_argument("--rungs", type=whole_numbers, default=[3, 9], help="before the last epoch")
    other.add_argument("--ways", type=listed(WAYS), default=list(WAYS), help="with commas in between")
    other.add_argument("--attack-steps", type=int, default=0, help="of the training attack; 0: as the space has it")
    other.add_argument("--width", type=int, default=0, help="model.width; 0: as the space has it")

    leads = commands.add_parser("driver", help="what a report and a suggestion cost")
    leads.add_argument("--space", default="default", help="a name in search_spaces/, or the path of a TOML file")
    leads.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the study")
    leads.add_argument("--recorded", type=int, default=10_000, help="trials in the record")
    leads.add_argument("--repeats", type=int, default=60, help="jobs that are handed out")

    add_rungs_simulated(commands.add_parser("rungs-simulated", help="what stopping at rungs is worth, simulated"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.command == "arm":
        # Ray reads it when it is imported.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        (stock_ray if options.arm in STOCK else one_stretch)(options, options.log_file)
    else:
        commands = {"arms": arms, "rungs": rungs, "driver": driver, "rungs-simulated": rungs_simulated}
        commands[options.command](options)


if __name__ == "__main__":
    main()
