"""Does the verdict say what full AutoAttack says, and what does it cost.

    python benchmarks/verdict.py ladder --out ladder.json [--dataset fashion_mnist --root ROOT] [--workers 2]
    python benchmarks/verdict.py default --out default.json
    python benchmarks/verdict.py workers --out workers.json --study results/NAME
    python benchmarks/verdict.py statistics --out statistics.json

`ladder` takes 24 recipes, the 12 best that a search finds and 12 that are drawn from the same space, trains each once,
and attacks the same validation images in several ways: as the search scores (the margin, 20 steps), the same and then
the margin to each of the three nearest classes (`evaluation.targets`), as the verdict picks (APGD on cross-entropy and
on the targeted DLR loss), and by full AutoAttack, which goes on from there. It says how the others rank the recipes
against the last, over all and over the better half, with a bootstrap over recipes and images, and how far they lie from
it. The file is written anew after every recipe, and what it already has is skipped
when it is started again.

`default` runs the default search with the small verdict that it ends with, and then the full verdict with the test
images, three seeds each.

`workers` attacks the best model of a study by full AutoAttack on the test images, shared out in chunks of 20 over one
worker and over two, in turns, and compares the seconds from the first chunk to the last and what survives.

`statistics` draws verdicts with known truth and says how often equal recipes are told apart (nominal 5 %), how often
the 95 % interval holds the true difference, and how often a difference of 3 points is found. It trains nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import machine, spread
from made_up import params_at
from shared import make_pool, save

import hcpr_tune
from hcpr_tune.common.settings import to_plain
from hcpr_tune.common.statistics import SURE, variance_of
from hcpr_tune.search.record.results import trained_recipe
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import study_to_toml
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.simulation.survival import TwoRecipes, drawn, image_probabilities
from hcpr_tune.training.recipe import Recipe, load_recipe, recipe_from_plain

Plain = dict[str, Any]
SCORES = ("cross_entropy", "margin", "targeted", "verdict", "autoattack")
TARGETS = 3
"""Nearest classes that the score `targeted` aims at (`evaluation.targets`)."""
FASHION = {
    "task.dataset": "fashion_mnist",
    "task.images": 10_000,
    "task.epsilon": 0.1,
    "attack.epsilon": 0.1,
    "attack.step_size": 0.03,
    "attack.steps": 5,
    "model.width": 8,
    "batch_size": 128,
    "epochs": 9,
    "early_stopping.first_rung": 1,
    "evaluation.images": 400,
}
"""A network, a length and an attack that two cores train in 1.5 hours; 400 of the 2,000 validation images attacked."""
BOOTSTRAP = 4000


def ladder(options: argparse.Namespace) -> None:
    """The command `ladder`."""
    path = Path(options.out)
    results: Plain = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "recipes": []}
    if "chosen" not in results:
        results["chosen"] = chosen(options)
        save(path, results)
    known = {one["number"] for one in results["recipes"]}
    todo = [one | {"number": number} for number, one in enumerate(results["chosen"]) if number not in known]
    with make_pool(options.workers) as pool:
        for one in pool.map(attacked, todo):
            results["recipes"].append(one)
            save(path, results)
            print({name: sum(one[name]) for name in SCORES}, one["kind"], round(one["seconds"]), flush=True)
    results["summary"] = summary(results["recipes"])
    save(path, results)
    print(json.dumps(results["summary"], indent=1))


def chosen(options: argparse.Namespace) -> list[Plain]:
    """The recipes: the best of a search, trained to the end whatever halving said, and draws from the same space."""
    settings: Plain = {"budget.trials": options.trials}
    if options.dataset == "fashion_mnist":
        settings |= FASHION | {"task.root": str(Path(options.root).resolve())}
    found = hcpr_tune.tune("wide", name=f"ladder-{int(time.time())}", settings=settings, storage=options.storage)
    half = options.recipes // 2
    best = [trained_recipe(found.spec, trial) for trial in found.history.ranked()[:half]]
    drawn = np.random.default_rng(0).random((options.recipes - half, len(found.spec.space)))
    others = [with_params(found.spec.recipe, params_at(found.spec.space, point)) for point in drawn]
    listed = [("best", replace(one, stop_epoch=0)) for one in best] + [("drawn", one) for one in others]
    return [{"kind": kind, "recipe": to_plain(recipe)} for kind, recipe in listed]


def attacked(one: Plain) -> Plain:
    """Train a recipe and attack the model; which images survive each attack, 0 or 1 each."""
    import torch

    from hcpr_tune.training.attacks.cascade import CascadeConfig, run_cascade
    from hcpr_tune.training.attacks.evaluation import random_starts, scored_positions, scoring_attack
    from hcpr_tune.training.attacks.pgd import predict_under_targeted_attack
    from hcpr_tune.training.loop import initial_state, train
    from hcpr_tune.training.session import DataShelf

    began = time.perf_counter()
    recipe: Recipe = recipe_from_plain(one["recipe"], "recipe")
    data = DataShelf(on_gpu=False).get(recipe.task)
    state = initial_state(recipe, data)
    masking: Plain = {}
    for epoch in train(recipe, data, state):
        masking = {} if epoch.masking is None else {"alarms": epoch.masking.alarms}
    model, positions = state.scored_model().eval(), scored_positions(data.validation, recipe.evaluation)
    trained = time.perf_counter()
    survive: Plain = {name: [] for name in SCORES}
    warnings: list[str] = []
    for chunk in positions.split(100):
        images, labels = data.validation.fetch(chunk), data.validation.labels[chunk]
        for name, objective, targets in (
            ("cross_entropy", "cross_entropy", 0),
            ("margin", "margin", 0),
            ("targeted", "margin", TARGETS),
        ):
            attack_of = scoring_attack(recipe.task, recipe.evaluation, objective)
            starts = random_starts(images, chunk, recipe.task.threat, attack_of, recipe.evaluation.seed)
            given = (model, images, labels, recipe.task.threat, attack_of, starts, targets)
            survive[name] += (predict_under_targeted_attack(*given)[1] == labels).int().tolist()
        config = CascadeConfig(data.classes, recipe.evaluation.seed)
        steps = list(run_cascade(model, images, labels, recipe.task.threat, config))
        warnings += [f"{step.attack}: {words}" for step in steps for words in step.warnings]
        for name, attack in (("verdict", "apgd-t"), ("autoattack", "square")):
            step = next(step for step in steps if step.attack == attack)
            survive[name] += (torch.tensor(step.classes) == labels).int().tolist()
        for step in steps:
            survive.setdefault(step.attack, 0)
            survive[step.attack] += int((torch.tensor(step.classes) == labels).sum())
    seconds = time.perf_counter() - began
    return one | survive | masking | {"warnings": warnings, "seconds": seconds, "seconds_training": trained - began}


def summary(recipes: Sequence[Plain]) -> Plain:
    """Rank correlations with AutoAttack and distances from it, in points."""
    found: Plain = {"recipes": len(recipes), "images": len(recipes[0]["autoattack"])}
    survive = {name: np.array([one[name] for one in recipes], dtype=float) for name in SCORES}
    truth = survive["autoattack"].mean(axis=1)
    better = np.argsort(-truth, kind="stable")[: (len(truth) + 1) // 2]
    for name in SCORES[:-1]:
        distance = 100 * (survive[name].mean(axis=1) - truth)
        found[name] = {
            "all": correlation(survive[name], survive["autoattack"]),
            "better half": correlation(survive[name][better], survive["autoattack"][better]),
            "points above AutoAttack": spread(distance.tolist()),
            "picks": round(100 * float(truth.max() - truth[survive[name].mean(axis=1).argmax()]), 2),
        }
    found["AutoAttack"] = spread((100 * truth).tolist())
    found["warned"] = sum(bool(one["warnings"]) for one in recipes)
    found["alarms"] = sum(bool(one["alarms"]) for one in recipes)
    return found


def correlation(scores: np.ndarray, truth: np.ndarray) -> Plain:
    """Spearman's correlation of two (recipes, images) arrays, and its bootstrap interval over recipes and images."""
    from scipy.stats import spearmanr

    drawn, generator = [], np.random.default_rng(0)
    for _ in range(BOOTSTRAP):
        rows = generator.integers(len(scores), size=len(scores))
        columns = generator.integers(scores.shape[1], size=scores.shape[1])
        one, other = (values[rows][:, columns].mean(axis=1) for values in (scores, truth))
        if np.ptp(one) and np.ptp(other):
            drawn.append(spearmanr(one, other).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = spearmanr(scores.mean(axis=1), truth.mean(axis=1)).statistic
    return {"spearman": round(float(value), 3), "interval": [round(float(low), 3), round(float(high), 3)]}


def default(options: argparse.Namespace) -> None:
    """The command `default`."""
    name = f"default-{int(time.time())}"
    began = time.perf_counter()
    searched = run("tune", "--space", "default", "--name", name, "--storage", options.storage, "--quiet")
    seconds = time.perf_counter() - began
    small = hcpr_tune.load(Path(options.storage) / name).verdict
    seeds = ("--seeds", str(options.seeds), "--other-seeds", str(options.seeds))
    full = run("verdict", name, "--storage", options.storage, "--test", *seeds, "--quiet")
    study = hcpr_tune.load(Path(options.storage) / name)
    events = [json.loads(line) for line in (study.folder.root / "verdict" / "record.jsonl").read_text().splitlines()]
    ends = next(number for number, event in enumerate(events) if event["event"] == "end")
    results = {
        "machine": machine(),
        "seconds of search and small verdict": round(seconds, 1),
        "seconds of the small verdict": round(events[ends]["time"] - events[0]["time"], 1),
        "small": small,
        "full": study.verdict,
    }
    save(Path(options.out), results)
    print(searched, full, {name: value for name, value in results.items() if name.startswith("seconds")}, sep="\n")


def run(*arguments: str) -> str:
    """What a command of hcpr_tune prints."""
    command = [sys.executable, "-m", "hcpr_tune", *arguments, "--dashboard-host", "none"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def workers(options: argparse.Namespace) -> None:
    """The command `workers`."""
    best = Path(options.study) / "best"
    recipe = load_recipe(best / "recipe.toml")
    found: dict[int, list[Plain]] = {1: [], 2: []}
    for repeat in range(options.repeats):
        for count in (1, 2) if repeat % 2 == 0 else (2, 1):
            found[count].append(shared_out(best, recipe, count))
            print(count, found[count][-1]["seconds"], flush=True)
    survive = [one["survive"] for listed in found.values() for one in listed]
    ratios = [two["seconds"] / one["seconds"] for one, two in zip(found[1], found[2], strict=True)]
    results = {
        "machine": machine(),
        "images": len(survive[0]),
        "seconds": {count: spread([one["seconds"] for one in listed]) for count, listed in found.items()},
        "two workers over one": spread(ratios),
        "same images survive": all(one == survive[0] for one in survive),
    }
    save(Path(options.out), results)
    print(json.dumps(results, indent=1))


def shared_out(best: Path, recipe: Recipe, count: int) -> Plain:
    """Full AutoAttack on the test images with `workers` workers: seconds in all, and which images survive."""
    with tempfile.TemporaryDirectory() as scratch:
        study = read_study(find_space(str(best.parent / "study.toml")), [("resources.workers", count)])
        space = Path(scratch) / "task.toml"
        space.write_text(study_to_toml(study))
        model = [f"model.head={recipe.network.head}", f"model.width={recipe.model.width}"]
        settings = [part for one in model for part in ("--set", one)]
        run(
            *(
                "verdict",
                "--model",
                str(best / "model.safetensors"),
                "--arch",
                recipe.model.name,
                "--space",
                str(space),
            ),
            *("--storage", scratch, "--test", "--images", "20", "--chunk", "20", "--quiet", *settings),
        )
        (record,) = Path(scratch).glob("*/verdict/record.jsonl")
        events = [
            event for event in map(json.loads, record.read_text().splitlines()) if " test " in event.get("job", "")
        ]
        chunks: dict[int, list[bool]] = {}
        for event in events:
            if event["event"] == "step":
                chunks[event["chunk"]] = [
                    one == label for one, label in zip(event["classes"], event["labels"], strict=True)
                ]
        seconds = events[-1]["time"] - events[0]["time"]
        return {"seconds": seconds, "survive": [one for _, chunk in sorted(chunks.items()) for one in chunk]}


def statistics(options: argparse.Namespace) -> None:
    """The command `statistics`."""
    generator = np.random.default_rng(0)
    probabilities, rows = image_probabilities(100_000, generator), []
    for images in (359, 1000, 10_000):
        repeats = options.repeats if images < 10_000 else options.repeats // 4
        for seeds in (2, 3, 4, 5):
            for deviations in ((0.0, 0.0), (0.003, 0.003), (0.01, 0.01), (0.003, 0.01)):
                equal, better = (TwoRecipes(images, (seeds, seeds), deviations, gain) for gain in (0.0, 0.03))
                row = {"images": images, "seeds": seeds, "deviations": deviations, "repeats": repeats}
                row["size"], row["coverage"] = shares_found(equal, probabilities, repeats, generator)
                row["power"], _ = shares_found(better, probabilities, repeats // 4, generator)
                rows.append(row)
                print(row, flush=True)
    save(Path(options.out), {"machine": machine(), "rows": rows})


def shares_found(
    recipes: TwoRecipes, probabilities: np.ndarray, repeats: int, generator: np.random.Generator
) -> tuple[float, float]:
    """The percentages of verdicts that find a difference, and whose interval holds the true one."""
    found, held = [], []
    for one, other in drawn(recipes, probabilities, repeats, generator):
        of_image = one.mean(axis=-2) - other.mean(axis=-2)
        variance, value = variance_of([one, other], of_image), of_image.mean(axis=-1)
        found.append(variance.p(value) < SURE)
        held.append(np.abs(value - recipes.gain) <= variance.half())
    return tuple(round(100 * float(np.concatenate(one).mean()), 1) for one in (found, held))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("ladder")
    one.add_argument("--out", required=True)
    one.add_argument("--dataset", choices=("digits", "fashion_mnist"), default="digits")
    one.add_argument("--root", default="data", help="where FashionMNIST/raw lies")
    one.add_argument("--recipes", type=int, default=24)
    one.add_argument("--trials", type=int, default=40, help="of the search")
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--storage", default="results", help="where the search goes")
    one.set_defaults(run=ladder)
    two = commands.add_parser("default")
    two.add_argument("--out", required=True)
    two.add_argument("--seeds", type=int, default=3)
    two.add_argument("--storage", default="results")
    two.set_defaults(run=default)
    three = commands.add_parser("workers")
    three.add_argument("--out", required=True)
    three.add_argument("--study", required=True, help="a study's folder with its best model")
    three.add_argument("--repeats", type=int, default=3)
    three.set_defaults(run=workers)
    four = commands.add_parser("statistics")
    four.add_argument("--out", required=True)
    four.add_argument("--repeats", type=int, default=4000, help="verdicts for each row; a quarter of 10,000 images")
    four.set_defaults(run=statistics)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
