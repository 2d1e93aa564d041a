"""The commands `arms` and `arm` of benchmarks/search.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import Plain, opened, save

from arms import pooled
from arms.rivals import RIVALS
from arms.running import ARMS, can_run, run_arm
from arms.scoring import missing, score_all
from arms.summary import plot, summary_of_arms
from arms.tasks import SPACES

NOTES = (
    "true_score: the final choice of an arm, trained again on 3 fresh seeds under the published schedule (one run of"
    " steps) and attacked by standard AutoAttack on the test images; nothing is chosen by it. Collapsed trainings are"
    " left out of it and counted apart.",
    "All arms train the same recipe with the same trainer, workers and wall-clock, and try the published recipe first,"
    " then the points that the space names. The wall-clock of the budget counts from when an arm asks for workers;"
    " `seconds` are those of the whole process, imports and the start of Ray included.",
    "On their way all arms but ours train under the published schedule; ours uses its own default, which anneals before"
    " each rung.",
    "final choice: ours and random by the record of the study; Ray Tune and syne-tune the best reported score; Optuna"
    " its best_trial, the best that ran to the end.",
    "The time line and final_best_on_validation count scores of trainings at full length, under the margin attack, on"
    " the images that the search chooses by: optimistic in every arm.",
    "When the time is up, Ray Tune and syne-tune break off what runs, ours ends the running epochs, Optuna the epochs"
    " up to the next score.",
)


def arms(options: argparse.Namespace) -> None:
    """The command `arms`: every arm on every seed, one at a time, and then the scores of the seed's final choices."""
    if options.task == "fashion":
        folder = options.out.resolve().parent / "fashion_14x14"
        pooled.write(options.root, folder)
        options.root = folder
    names = ("task", "set", "worker_seconds", "workers", "test_images")
    results = opened(options.out, {name: getattr(options, name) for name in names}, "runs")
    results |= {"notes": NOTES, "scores": results.get("scores", [])}
    chosen = can_run(options.arms, options.syne_python)

    def keep(kind: str, one: Plain) -> None:
        results[kind].append(one)
        results["summary"] = summary_of_arms(results["runs"], results["scores"])
        save(options.out, results)

    for seed in range(options.seeds):
        options.seed = seed
        done = {run["arm"] for run in results["runs"] if run["seed"] == options.seed}
        for arm in (arm for arm in chosen if arm not in done):
            print(f"{arm}, seed {options.seed}", file=sys.stderr, flush=True)
            keep("runs", run_arm(arm, options))
        todo = missing(results["runs"], results["scores"])
        print(f"{len(todo)} trainings to score", file=sys.stderr, flush=True)
        score_all(todo, options.workers, options.test_images, lambda score: keep("scores", score))
    print(json.dumps(summary_of_arms(results["runs"], results["scores"]), indent=1))
    if options.plot:
        plot(results["runs"], options.plot)


def arm(options: argparse.Namespace) -> None:
    """The command `arm`: one rival, as `arms` starts it."""
    RIVALS[options.arm](options, options.log_file)


def add_commands(commands: Any, listed: Callable[[tuple[str, ...]], Callable[[str], list[str]]]) -> None:
    """Add both to the subparsers `commands`; `listed` makes the type of an option with names from a list."""
    one = commands.add_parser("arms", help="this service against its rivals in the same time")
    add_shared(one)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--plot", type=Path, help="a PNG file; needs matplotlib")
    one.add_argument("--worker-seconds", type=float, default=480, help="of each arm, over all its workers")
    one.add_argument("--seeds", type=int, default=10)
    one.add_argument("--arms", type=listed(ARMS), default=list(ARMS), help="with commas in between")
    one.add_argument("--test-images", type=int, default=0, help="for a try: score on so many; 0: all")
    one.add_argument("--syne-python", type=Path, help="of an environment with syne-tune[gpsearchers]==0.13.0")
    inner = commands.add_parser("arm", help="one rival, as `arms` starts it")
    add_shared(inner)
    inner.add_argument("arm", choices=tuple(RIVALS))
    inner.add_argument("--worker-seconds", type=float, required=True)
    inner.add_argument("--seed", type=int, required=True)
    inner.add_argument("--log-file", type=Path, required=True)


def add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=tuple(SPACES), default="digits")
    parser.add_argument("--root", type=Path, default=pooled.DEBIAN, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the study")
    parser.add_argument("--workers", type=int, default=2)
