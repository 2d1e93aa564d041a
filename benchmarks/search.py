"""The search against other ways to spend the same time, and whether an early rung predicts the final ranking.

    python benchmarks/search.py arms --out digits.json [--task fashion] [--worker-seconds 480] [--seeds 10]
        [--syne-python syne/bin/python] [--plot arms.png]
    python benchmarks/search.py rungs --out rungs.json [--dataset fashion_mnist --root data]

    python benchmarks/search.py driver [--recorded 10000]
    python benchmarks/search.py answer-simulated [--budgets 320,640] [--repeats 60]
    python benchmarks/search.py rungs-simulated [--budgets 80,233,1000,5000] [--world digits] [--repeats 200]

The first two write their JSON file anew after every run, print the summary, and skip what the file already has when
it is started again.

`arms` spends the same wall-clock on the same search in several ways, each in a process and a folder of its own: `ours`
(this service as the space has it), `random` (its random search at full length), `stock_ray` (Ray Tune with Optuna and
its ASHA), `optuna` (alone), `syne_tune_asha` and `syne_tune_mobster`. The rivals run in their best form, with the same
trainer, workers and first points (`arms/`). Each ends with a final choice, which is trained again on three fresh seeds
and attacked by standard AutoAttack on the test images. `--task fashion` reads Debian's dataset-fashion-mnist.

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
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from answer_simulated import add_answer_simulated, answer_simulated
from arms.command import add_commands, arm, arms
from figures import machine, spread
from made_up import made_up, made_up_epoch, params_at
from rungs_simulated import add_rungs_simulated, rungs_simulated, whole_numbers
from shared import Override, Plain, epoch_score, make_pool, opened, save, space_file

from hcpr_tune.common.settings import parse_assignment
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.dimensions import Dimension, Params, Range
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.recipe import Recipe, Task

PLAIN_STUDY: tuple[Override, ...] = (("early_stopping.method", "none"), ("lr_schedule.mode", "single"))
"""For what only takes the recipe and the space: one schedule over the whole training, no rungs."""
WAYS = ("single", "annealed", "restarted")
LR = Range(0.03, 0.2, log=True)
"""The learning rate is added to the space: what it does early and late differs most."""


def study_of(options: argparse.Namespace, *overrides: Override) -> StudySpec:
    """The study of --space and --set, with `overrides` over them."""
    given = [parse_assignment(text) for text in options.set]
    return read_study(space_file(options.space), [*given, *overrides])


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

    add_commands(commands, listed)

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

    add_answer_simulated(
        commands.add_parser("answer-simulated", help="what choosing by fresh seeds is worth, simulated")
    )
    add_rungs_simulated(commands.add_parser("rungs-simulated", help="what stopping at rungs is worth, simulated"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    known = {"arms": arms, "arm": arm, "rungs": rungs, "driver": driver}
    known |= {"rungs-simulated": rungs_simulated, "answer-simulated": answer_simulated}
    known[options.command](options)


if __name__ == "__main__":
    main()
