"""Running one arm: a process and a folder of its own, what it logged, and its final choice."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from shared import ROOT, Plain

from arms.rivals import RIVALS
from arms.tasks import SPACES, as_scored, first_points, rival_study
from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import study_to_toml
from hcpr_tune.training.recipe import Recipe

SERVICE_SETTINGS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "random": (
        'sampler.name="random"',
        'early_stopping.method="none"',
        'lr_schedule.mode="single"',
        'lr_schedule.shape="steps"',
        "replication.replicates=0",
        "evaluation.masking_images=0",
    ),
}
"""What the arms that are this service set, beside the budget."""
SYNE = ("syne_tune_asha", "syne_tune_mobster")
PUBLISHED = "published"
"""No search at all: the published recipe."""
ARMS = ("ours", "random", *RIVALS, *SYNE, PUBLISHED)
FULL_LENGTH_ONLY = ("optuna",)
"""Arms whose own rule (`Study.best_trial`) takes only trials that ran to the end; the others take the best report."""
ALLOWED_CODES = (0, 1)
"""1: no trial of the service reached a rung, which a tiny budget allows."""
NO_SYNE = """{arms} left out: no syne-tune. It needs an environment of its own:
    python -m venv syne && syne/bin/pip install "syne-tune[gpsearchers]==0.13.0"
(the last version that has MOBSTER), and then: --syne-python syne/bin/python"""


def can_run(arms: Sequence[str], syne_python: Path | None) -> list[str]:
    """The arms that can run here; says which are left out, and how to get them."""
    missing = [arm for arm in arms if arm in SYNE]
    if missing and (syne_python is None or not syne_python.exists()):
        print(NO_SYNE.format(arms=", ".join(missing)), file=sys.stderr)
        return [arm for arm in arms if arm not in SYNE]
    return list(arms)


def run_arm(arm: str, options: argparse.Namespace) -> Plain:
    """Run one arm in an empty folder and say what came of it; `options.seed` is the seed of the search."""
    if arm == PUBLISHED:
        study = rival_study(options)
        run = {"arm": arm, "seed": options.seed, "seconds": 0.0, **outcome([], 0.0, study.recipe.epochs)}
        return run | {"choice": scored_plain(study.recipe)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_file = folder / ("results/arm/record.jsonl" if arm in SERVICE_SETTINGS else "events.jsonl")
        command = command_of(arm, options, folder, log_file)
        # Found by the arm's own processes: the reader of the images, and the trainer.
        paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
        environment = os.environ | {"PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        began = time.time()
        with (folder / "stderr").open("w") as errors:
            code = subprocess.run(
                command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors, check=False
            ).returncode
        seconds = time.time() - began
        if code not in ALLOWED_CODES or not log_file.exists():
            # syne-tune keeps what its trials say in a file for each.
            said = [path.read_text()[-2000:] for path in (folder / "stderr", *sorted(folder.rglob("std.err"))[-1:])]
            raise SystemExit("\n".join([f"{arm} with seed {options.seed} ended with exit code {code}", *said]))
        events = [json.loads(line) for line in log_file.read_text().splitlines()]
        if arm in SERVICE_SETTINGS:
            events = [service_event(event) for event in events if event["event"] == "epoch"]
            chosen = choice_of_service(log_file.parent, highest=arm == "random")
        else:
            chosen = choice_of_rival(arm, events, options)
    run = {"arm": arm, "seed": options.seed, "seconds": seconds}
    return run | outcome(events, began, rival_study(options).recipe.epochs) | {"choice": chosen}


def command_of(arm: str, options: argparse.Namespace, folder: Path, log_file: Path) -> list[str]:
    if arm in SYNE:
        return [str(options.syne_python), str(ROOT / "benchmarks/arms/syne.py"), str(syne_job(arm, options, folder))]
    settings = [word for text in options.set for word in ("--set", text)]
    if arm in SERVICE_SETTINGS:
        return service_command(arm, options, settings)
    numbers = ["--worker-seconds", options.worker_seconds, "--workers", options.workers, "--seed", options.seed]
    words = [ROOT / "benchmarks/search.py", "arm", arm, "--task", options.task, "--root", options.root, *numbers]
    return [sys.executable, *map(str, words), "--log-file", str(log_file), *settings]


def service_command(arm: str, options: argparse.Namespace, settings: list[str]) -> list[str]:
    """This service with the same wall-clock as the others, without a verdict at the end: scoring is done for all."""
    hours = options.worker_seconds / options.workers / 3600
    own = [*SERVICE_SETTINGS[arm], "budget.trials=1000", f"budget.hours={hours!r}", "verdict.seconds_at_end=0"]
    own += [f"seed={options.seed}", f"resources.workers={options.workers}"]
    if options.task == "fashion":
        own.append(f"task.root={json.dumps(str(options.root))}")
    words = [ROOT / "launch/tune.py", "--space", SPACES[options.task], "--name", "arm", "--storage", "results"]
    words += ["--quiet", "--trust", "--dashboard-host", "none"]
    return [sys.executable, *map(str, words), *settings, *(f"--set={text}" for text in own)]


def syne_job(arm: str, options: argparse.Namespace, folder: Path) -> Path:
    """What `syne.py` and its trials need, as files in `folder`."""
    study = rival_study(options)
    (folder / "study.toml").write_text(study_to_toml(study))
    halving = study.settings.early_stopping
    job = {
        "arm": arm,
        "study": str(folder / "study.toml"),
        "log": str(folder / "events.jsonl"),
        "python": sys.executable,
        "prefix": sys.prefix,
        "space": {name: dimension.to_plain() for name, dimension in study.space.items()},
        "points": first_points(study),
        "seed": options.seed,
        "workers": options.workers,
        "seconds": options.worker_seconds / options.workers,
        "epochs": study.recipe.epochs,
        "first_rung": halving.first_rung,
        "reduction_factor": halving.reduction_factor,
        "max_failures": 1000,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def choice_of_service(folder: Path, highest: bool) -> Plain | None:
    """The recipe of the study's answer, or with the highest score, as plain random search has it; None without any."""
    import hcpr_tune
    from hcpr_tune.errors import InputError
    from hcpr_tune.search.record.results import recipe_of

    study = hcpr_tune.Study.open(folder)
    if highest:
        ranked = study.history.ranked()
        return scored_plain(recipe_of(study.spec, ranked[0])) if ranked else None
    try:
        return scored_plain(study.recipe)
    except InputError:
        return None


def choice_of_rival(arm: str, events: Sequence[Plain], options: argparse.Namespace) -> Plain | None:
    study = rival_study(options)
    best = best_report(events, study.recipe.epochs if arm in FULL_LENGTH_ONLY else 0)
    return None if best is None else scored_plain(with_params(study.recipe, best["params"]))


def best_report(events: Sequence[Plain], only_at: int = 0) -> Plain | None:
    """The first event with the highest score, at epoch `only_at` if that is not 0; None if there is none."""
    scored = [event for event in events if event["score"] is not None and only_at in (0, event["epoch"])]
    return max(scored, key=lambda event: event["score"], default=None)


def scored_plain(recipe: Recipe) -> Plain:
    """The choice as it will be trained again; its seed is that of the scoring, so equal choices look equal."""
    return to_plain(as_scored(recipe, 0))


def service_event(event: Plain) -> Plain:
    """An epoch of the service's record; trials are compared by what they have at the end of a segment."""
    score = event["robust_correct_validation"] / event["total_validation"] if event["is_rung"] else None
    seconds = sum(event[f"seconds_{name}"] for name in ("attack", "update", "evaluation"))
    return {"score": score, "seconds": seconds} | {name: event[name] for name in ("time", "trial", "epoch")}


def outcome(events: Sequence[Plain], began: float, epochs: int) -> Plain:
    """Counts, and the time line of the best score of a training to its end: [seconds, score] at each rise."""
    timeline: list[list[float]] = []
    for event in sorted(events, key=lambda event: event["time"]):
        at_end = event["score"] is not None and event["epoch"] == epochs
        if at_end and (not timeline or event["score"] > timeline[-1][1]):
            timeline.append([event["time"] - began, event["score"]])
    return {
        "trials": len({event["trial"] for event in events}),
        "epochs": len({(event["trial"], event["epoch"]) for event in events}),
        "seconds_of_work": sum(event["seconds"] for event in events),
        "final_best": timeline[-1][1] if timeline else None,
        "timeline": timeline,
    }
