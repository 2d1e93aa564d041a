"""Whether a plan is true to life. Each command prints JSON.

python benchmarks/plan.py replay     # real default searches, replayed from their records, and forecast in turn
python benchmarks/plan.py killed     # the same with workers that are killed
python benchmarks/plan.py variants   # variants chosen on half of a set of recorded trials, applied to the other half
python benchmarks/plan.py continued  # how far off the ends are of trials that were stopped, and continued by a plan
python benchmarks/plan.py scale      # seconds and memory of a plan of 100 to 100,000 trials
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures import Plain, machine, spread

ROOT = Path(__file__).parent.parent
TUNE = [sys.executable, str(ROOT / "launch" / "tune.py")]
NO_VERDICT = ("--quiet", "--set", "verdict.seconds_at_end=0")


def searched(folder: Path, name: str, *arguments: str) -> Path:
    """A default search in `folder`; returns its own folder."""
    command = [*TUNE, "--space", "default", "--name", name, *NO_VERDICT, *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "results" / name


def replay(options: argparse.Namespace) -> Plain:
    """Searches with seeds 0, 1, ..., each replayed, and each foretold by a plan from the one before it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        studies = [searched(folder, f"seed{seed}", "--seed", str(seed)) for seed in range(options.repeats)]
        return {
            "replays": [replayed(study) for study in studies],
            "foretold": [
                foretold(one, other, seed + 1) for seed, (one, other) in enumerate(itertools.pairwise(studies))
            ],
        }


def replayed(study: Path) -> Plain:
    from hcpr_tune.simulation.curves.recorded import read_old
    from hcpr_tune.simulation.replay import replay as play_again

    return play_again(read_old(study)).to_plain()


def foretold(earlier: Path, study: Path, seed: int) -> Plain:
    """The wall-clock that a plan from an earlier search names for another one, and what it took."""
    from hcpr_tune.simulation.curves.recorded import read_old

    actual = read_old(study)
    command = [
        sys.executable,
        "-m",
        "hcpr_tune",
        "plan",
        "--from",
        str(earlier),
        "--workers",
        str(actual.history.workers),
    ]
    command += ["--seed", str(seed), "--json", "--out", str(study / "plan.html")]
    plain = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    planned = plain["variants"][0]["wall_clock_seconds"]
    return {
        "planned_seconds": planned,
        "actual_seconds": actual.history.seconds,
        "off": planned["mean"] / actual.history.seconds - 1,
    }


def killed(options: argparse.Namespace) -> Plain:
    """Default searches in which a worker that has just reported is killed every so many seconds, replayed."""
    found = []
    for seed in range(options.repeats):
        with tempfile.TemporaryDirectory() as scratch:
            study, kills = with_kills(Path(scratch), seed, options.kill_every)
            found.append(replayed(study) | {"kills": kills})
    return {"replays": found}


def with_kills(folder: Path, seed: int, every: float) -> tuple[Path, int]:
    """A default search whose workers are killed; its folder and how many."""
    command = [*TUNE, "--space", "default", "--name", "killed", *NO_VERDICT, "--seed", str(seed)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    record = folder / "results" / "killed" / "record.jsonl"
    next_kill, kills = time.monotonic() + every, 0
    while process.poll() is None:
        time.sleep(0.1)
        if time.monotonic() >= next_kill and (worker := latest_worker(record)):
            os.kill(worker, signal.SIGKILL)
            kills += 1
            next_kill = time.monotonic() + every
    if process.returncode:
        raise SystemExit(f"the search ended with {process.returncode}")
    return record.parent, kills


def latest_worker(record: Path) -> int:
    """The process of the last report whose job still runs; 0 for none."""
    if not record.exists():
        return 0
    running: dict[int, int] = {}
    for line in record.read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "epoch":
            running[event["trial"]] = int(event["worker"].rpartition(":")[2])
        elif event["event"] == "job_end":
            running.pop(event["trial"], None)
    return next(reversed(running.values()), 0)


VARIED = (
    "early_stopping.first_rung=3,9",
    "early_stopping.calibration=1,6",
    "early_stopping.min_rank_correlation=-1,0.5",
)
FULL = ("--set", "sampler.name='random'")


def variants(options: argparse.Namespace) -> Plain:
    """Of trials that were all trained to the end: half choose a variant, the other half evaluates it; several splits.

    Every variant has the worker-hours that the default settings take for their trials, and as many trials as it can
    begin in them.
    """
    from hcpr_tune.simulation.curves.recorded import read_old

    with tempfile.TemporaryDirectory() as scratch:
        trials = str(options.trials)
        more = ("--trials", trials, "--set", f"early_stopping.calibration={trials}", *FULL)
        folder = Path(options.recorded) if options.recorded else searched(Path(scratch), "full", *more)
        old = read_old(folder)
    splits = [split(old, seed, options.plays) for seed in range(options.splits)]
    gains = [one["gain_points"]["mean"] for one in splits]
    return {"trials": len(old.history.trials), "splits": splits, "gain_points": spread(gains) | interval(gains)}


def continued(options: argparse.Namespace) -> Plain:
    """Of trials all trained to the end, 24 are stopped as by a default search and continued: points above the truth."""
    import numpy as np

    from hcpr_tune.simulation.curves.recorded import measured, read_old
    from hcpr_tune.simulation.curves.resampling import continued as gone_on

    old = read_old(Path(options.recorded))
    trials = [
        trial for trial in measured(old, old.study) if len(trial.robust) and max(trial.robust) == old.study.rungs[-1]
    ]
    scores = [
        np.array([[getattr(trial, kind)[rung] for rung in old.study.rungs] for trial in trials])
        for kind in ("robust", "clean")
    ]
    draws = np.random.default_rng(0)
    mean, best, spread_of = [], [], []
    for _ in range(options.plays):
        chosen = draws.choice(len(trials), 24, replace=False)
        whole, clean = (kind[chosen] for kind in scores)
        seen, seen_clean = whole.copy(), clean.copy()
        reached = np.arange(24)
        for place in range(whole.shape[1] - 1):
            # The first six run to the end; of those that came here the best third goes on.
            order = reached[np.argsort(-whole[reached, place], kind="stable")]
            going_on = np.union1d(order[: len(order) // 3], np.arange(6))
            stopped = np.setdiff1d(np.arange(24), going_on)
            seen[stopped, place + 1 :] = seen_clean[stopped, place + 1 :] = np.nan
            reached = going_on
        ends = gone_on(seen, seen_clean, draws)[:, whole.shape[1] - 1]
        mean.append(100 * (ends.mean() - whole[:, -1].mean()))
        best.append(100 * (ends.max() - whole[:, -1].max()))
        spread_of.append(ends.std() / whole[:, -1].std())
    return {
        "trials": len(trials),
        "points_above_the_truth": spread(mean) | interval(mean),
        "points_of_the_best_above_the_truth": spread(best) | interval(best),
        "spread_in_the_true_spread": spread(spread_of),
    }


def interval(values: Sequence[float]) -> Plain:
    from hcpr_tune.simulation.comparison import Estimate

    return Estimate.of(values).to_plain()


def split(old: Any, seed: int, plays: int) -> Plain:
    """One split: what was chosen on one half, and its gain over the default settings on the other."""
    from hcpr_tune.search.spec.study_file import find_space, read_study
    from hcpr_tune.simulation.comparison import choice, compare, gain
    from hcpr_tune.simulation.curves.costs import costs_of_records
    from hcpr_tune.simulation.curves.recorded import recorded_curves
    from hcpr_tune.simulation.variants import variants_of, varied
    from hcpr_tune.simulation.worker_pool import WorkerPool

    path = find_space("default")
    costs = costs_of_records([old.events], 0, "recorded")

    def read(more: Sequence[tuple[str, Any]]) -> Any:
        return read_study(path, [("sampler.name", "random"), ("seed", seed), *more])

    curves = recorded_curves([old], read(()))
    numbers = list(range(len(curves.trials)))
    random.Random(seed).shuffle(numbers)
    halves = [
        replace(curves, trials=[curves.trials[number] for number in half]) for half in (numbers[::2], numbers[1::2])
    ]
    (default,) = compare(variants_of({}, read, WorkerPool(2)), halves[0], costs, seed, plays)
    hours = default.estimate("worker_seconds").mean / 3600

    def in_budget(more: Sequence[tuple[str, Any]]) -> Any:
        return read([("budget.trials", 400), ("budget.worker_hours", hours), *more])

    candidates = variants_of(varied(VARIED), in_budget, WorkerPool(2))
    results = compare(candidates, halves[0], costs, seed, plays)
    best = choice(results)
    chosen = best.variant
    base, taken = compare([candidates[0], chosen], halves[1], costs, seed + 1000, plays)
    points = gain(taken, base)
    return {
        "chosen": chosen.name,
        "shown_to_score_higher_when_it_was_chosen": gain(best, results[0]).low > 0,
        "worker_hours": hours,
        "gain_points": {name: 100 * value for name, value in points.to_plain().items()},
    }


SCALE = """
import json, resource, sys, time
from hcpr_tune.simulation.comparison import compare
from hcpr_tune.simulation.curves.costs import costs_of_probe
from hcpr_tune.simulation.curves.curves import GuessedCurves
from hcpr_tune.simulation.worker_pool import WorkerPool
from hcpr_tune.simulation.variants import variants_of
from hcpr_tune.search.spec.study_file import find_space, read_study
trials, workers = int(sys.argv[1]), int(sys.argv[2])
read = lambda more: read_study(find_space("default"), [("budget.trials", trials), ("sampler.name", "random"), *more])
probe = {"seconds_per_attack_step": 5.0, "seconds_update": 10.0, "seconds_evaluation": 20.0, "seconds_startup": 10.0}
costs = costs_of_probe([probe | {"checkpoint_bytes": 45_000_000, "steps": 1}])
curves = GuessedCurves(10, 27, 1000, 2.0, 0.3)
began = time.perf_counter()
(played,) = compare(variants_of({}, read, WorkerPool(workers)), curves, costs, 0, 1)
seconds = time.perf_counter() - began
one = played.outcomes[0]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "epochs": one.epochs, "jobs": one.jobs}))
"""


def scale(options: argparse.Namespace) -> Plain:
    """One simulation of the default space, random sampler, 1,000 workers, epochs of about 80 seconds, one process."""
    found = {}
    for trials in options.sizes:
        command = [sys.executable, "-c", SCALE, str(trials), "1000"]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            for _ in range(options.repeats)
        ]
        seconds = spread([run["seconds"] for run in runs])
        found[str(trials)] = {
            "seconds": seconds,
            "microseconds_per_epoch": 1e6 * seconds["median"] / runs[0]["epochs"],
            "peak_bytes": spread([run["peak_bytes"] for run in runs]),
            "epochs": runs[0]["epochs"],
            "jobs": runs[0]["jobs"],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known: dict[str, Callable[[argparse.Namespace], Plain]] = {
        "replay": replay,
        "killed": killed,
        "variants": variants,
        "continued": continued,
        "scale": scale,
    }
    parser.add_argument("command", choices=known)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kill-every", type=float, default=30.0, help="of `killed`: seconds between two kills")
    parser.add_argument(
        "--recorded",
        help="of `variants` and `continued`: a study with all trials trained to the end, instead of searching one",
    )
    parser.add_argument("--trials", type=int, default=64, help="of `variants`: how many are trained to the end")
    parser.add_argument("--splits", type=int, default=5, help="of `variants`")
    parser.add_argument(
        "--plays",
        type=int,
        default=40,
        help="of `variants`: how often each variant is played; of `continued`: how many draws",
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="of `scale`: trials")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print(json.dumps({"machine": machine(), options.command: known[options.command](options)}, indent=1))


if __name__ == "__main__":
    main()
