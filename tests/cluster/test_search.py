"""Real searches from the command line: real Ray, real digits, real interruptions."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcpr_tune.search.record.record import read_history
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.simulation.curves.recorded import read_old
from hcpr_tune.simulation.replay import replay
from hcpr_tune.training.recipe import load_recipe
from tests.cluster.here import shared_ray
from tests.conftest import ROOT, SMALL_SPACE, run_here, without_dashboard
from tests.training.test_folders import write_images
from tests.views.boards import served

pytestmark = pytest.mark.cluster

ONE_WORKER = ("--set", "resources.workers=1")


def search(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In this process, on its Ray; one trial at a time, unless the arguments say more."""
    shared_ray()
    begins = "--resume" not in arguments and not any("resources.workers" in argument for argument in arguments)
    return run_here(folder, "tune", *arguments, *(ONE_WORKER if begins else ()))


def launched(folder: Path, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """As a user starts it, with a Ray of its own."""
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), *without_dashboard(arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)


def in_folder(folder: Path, space: str = SMALL_SPACE) -> Path:
    (folder / "small.toml").write_text(space, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole search: the folder that it ran in, and what it printed."""
    folder = in_folder(tmp_path_factory.mktemp("finished"))
    words = ("--space", "small.toml", "--name", "one", "--trials", "6", "--dashboard-host", "127.0.0.1")
    done = launched(folder, *words)
    assert done.returncode == 0, done.stderr
    return folder, done


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def record_of(folder: Path, name: str):
    return [json.loads(line) for line in (folder / "results" / name / "record.jsonl").read_text().splitlines()]


def test_it_says_where_to_look_first_and_the_answer_last(finished):
    _, done = finished
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["study", "task", "budget"]
    assert re.fullmatch(r"tensorboard  (\S*/)?tensorboard --logdir results/one", lines[3])
    assert lines[4] == "starting Ray on this machine ... (usually 5 to 20 s)"
    places = [line.partition(" ")[0] for line in lines]
    assert places.index("workers") < places.index("disk") < places.index("dashboard") < places.index("token")
    assert lines[places.index("token")].endswith("ray get-auth-token")
    assert sum(line.startswith("trial=") for line in lines) >= 6
    assert any(line.startswith("best ") for line in lines)
    assert any(line.startswith("published ") for line in lines)
    assert done.stderr == ""


def check_replayed(folder: Path, name: str, tolerance: float) -> None:
    """A simulation replayed from the search's own record decides the same in the same order and takes as long."""
    came = replay(read_old(folder / "results" / name))
    assert came.departs == ""
    assert came.same == came.decisions >= 4
    assert abs(came.off) < tolerance


def test_a_search_is_replayed_from_its_own_record(finished):
    check_replayed(finished[0], "one", 0.1)


def test_every_trial_is_in_the_table_and_in_its_folder(finished):
    root = finished[0] / "results" / "one"
    rows = table(root / "trials.csv")
    assert [row["trial"] for row in rows] == [str(n) for n in range(6)]
    assert rows[0]["source"] == "published"
    assert rows[0]["status"] == "completed"
    assert rows[0]["epochs"] == "4"
    study = read_study(root / "study.toml")
    for row in rows:
        trial = root / "trials" / f"trial_{int(row['trial']):04d}"
        metrics = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in metrics] == list(range(1, int(row["epochs"]) + 1))
        recipe = load_recipe(trial / "recipe.toml")
        assert recipe.hcpr.scale == float(row["hcpr.scale"])
        assert recipe.rung_epochs == study.rungs == (1, 2, 4)
        scores = [line["robust_accuracy_validation"] for line in metrics if line["is_rung"]]
        assert float(row["robust_accuracy_validation"]) == pytest.approx(max(scores), abs=1e-6)
        reader = EventAccumulator(str(trial))
        reader.Reload()
        assert [point.step for point in reader.Scalars("loss/total")] == [line["epoch"] for line in metrics]


def test_a_real_tensorboard_shows_the_search(finished):
    root = finished[0] / "results" / "one"
    history = read_history(root / "record.jsonl", 4)
    with served(root) as board:
        best = history.ranked()[0]
        points = board.curve(best.number, "best/robust_accuracy_validation", len(best.rungs))
        assert points[-1] == (best.last_rung, pytest.approx(best.score))
        question = {"allowedStatuses": ["STATUS_SUCCESS"], "startIndex": 0, "sliceSize": 50, "colParams": []}
        answer = board.until("data/plugin/hparams/session_groups", lambda rows: rows["totalSize"] == 6, question)
        scales = {row["name"]: row["hparams"]["hcpr.scale"] for row in answer["sessionGroups"]}
        assert scales == {f"trial_{number:04d}": trial.params["hcpr.scale"] for number, trial in history.trials.items()}
        run = f"run=trials/trial_{best.number:04d}&tag=pictures/examples"
        (*_, last) = board.ask(f"data/plugin/images/images?{run}&sample=0")
        assert last["step"] == best.best_rung
        drawn = root / "trials" / f"trial_{best.number:04d}" / f"examples_epoch_{best.best_rung:04d}.png"
        assert board.bytes(f"data/plugin/images/individualImage?{last['query']}") == drawn.read_bytes()


def test_promoted_trials_are_the_best_of_their_rung(finished):
    root = finished[0] / "results" / "one"
    history = read_history(root / "record.jsonl", 4)
    assert sum(trial.status == "completed" for trial in history.trials.values()) >= 2
    first = sorted((t for t in history.trials.values() if t.number), key=lambda t: t.rungs[1], reverse=True)
    assert first[0].last_rung > 1


def test_all_workers_are_busy_and_processes_are_reused(finished):
    events = record_of(finished[0], "one")
    running, most = set(), 0
    for event in events:
        if event["event"] == "job":
            running.add(event["trial"])
        if event["event"] == "job_end":
            running.remove(event["trial"])
        most = max(most, len(running))
    assert most == min(events[0]["workers"], 6)
    assert len({event["worker"] for event in events if event["event"] == "epoch"}) == min(events[0]["workers"], 6)


def test_the_best_model_and_its_numbers_lie_together(finished):
    root = finished[0] / "results" / "one"
    metrics = json.loads((root / "best" / "metrics.json").read_text())
    rows = table(root / "trials.csv")
    assert metrics["robust_accuracy_validation"]["share"] == pytest.approx(
        max(float(r["robust_accuracy_validation"]) for r in rows), abs=1e-6
    )
    assert metrics["published"]["trial"] == 0
    assert metrics["split_index_hashes"].keys() == {"train", "validation"}
    assert load_file(root / "best" / "model.safetensors")
    history = read_history(root / "record.jsonl", 4)
    kept = {path.parent.name for path in (root / "checkpoints").glob("trial_*/epoch_*")}
    assert f"trial_{history.ranked()[0].number:04d}" in kept


def test_training_the_best_recipe_again_gives_the_same_numbers_and_weights(finished, tmp_path):
    best = finished[0] / "results" / "one" / "best"
    done = run_here(tmp_path, "train", "--recipe", best / "recipe.toml", "--out", "again")
    assert done.returncode == 0, done.stderr
    wanted = json.loads((best / "metrics.json").read_text())
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for name in ("epoch_of_score", "robust_accuracy_validation", "clean_accuracy_validation"):
        assert again[name] == wanted[name]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()


def test_a_taken_name_is_refused_and_nothing_is_touched(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*")}
    done = search(folder, "--space", "small.toml", "--name", "one")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert '--name "one" is taken' in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*")} == before


def test_diverged_trials_end_alone_and_the_search_goes_on(tmp_path):
    space = SMALL_SPACE.replace('"pace.shape"', '"optimiser.lr" = { choices = [0.1, 100.0] }\n"pace.shape"')
    done = search(
        in_folder(tmp_path, space),
        "--space",
        "small.toml",
        "--name",
        "wild",
        "--trials",
        "6",
        "--set",
        "sampler.name='optuna.samplers:RandomSampler'",
    )
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results" / "wild" / "trials.csv")
    assert {row["source"] for row in rows} == {"published", "optuna.samplers:RandomSampler"}
    assert len(rows) == 6
    diverged = [row for row in rows if row["status"] == "diverged"]
    assert diverged
    assert all(float(row["optimiser.lr"]) == 100 and "not finite" in row["reason"] for row in diverged)
    assert rows[0]["status"] == "completed"


def test_a_search_in_which_nothing_completes_says_so_and_exits_with_1(tmp_path):
    folder = in_folder(tmp_path)
    done = search(
        folder,
        "--space",
        "small.toml",
        "--name",
        "none",
        "--trials",
        "2",
        "--set",
        "optimiser.lr=100",
        "--set",
        "search.hcpr.scale.high=900",
        "--set",
        "early_stopping.first_rung=4",
    )
    rows = table(folder / "results" / "none" / "trials.csv")
    assert [row["status"] for row in rows] == ["diverged", "diverged"]
    assert done.returncode == 1
    assert "No trial reached its first rung: the loss is not finite in epoch" in done.stdout


def wait_for(path: Path, words: str, count: int) -> None:
    """Until the record holds `count` lines with `words`."""
    while not path.exists() or path.read_text().count(words) < count:
        time.sleep(0.05)


def test_an_interrupted_search_keeps_what_it_has_and_goes_on(background, tmp_path):
    process = background("tune", "--space", in_folder(tmp_path) / "small.toml", "--name", "cut", *ONE_WORKER)
    record = tmp_path / "results" / "cut" / "record.jsonl"
    wait_for(record, '"job_end"', 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = (
        r"hcpr_tune: interrupted; everything recorded is kept in results/cut; continue with: (\S*/)?hcpr_tune tune"
        r" --resume cut --dashboard-host none\n"
    )
    assert re.fullmatch(said, err)
    assert "best recipe  results/cut/best/recipe.toml" in out
    assert json.loads(record.read_text().splitlines()[-1])["reason"] == "interrupted"
    done = search(tmp_path, "--resume", "cut")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results" / "cut" / "trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["status"] for row in rows} <= {"completed", "stopped"}


def outcome(folder: Path, name: str):
    """What a search decided and reached, without its clock."""
    root = folder / "results" / name
    timed = (
        "time",
        "seconds_attack",
        "seconds_update",
        "seconds_evaluation",
        "seconds_startup",
        "seconds_checkpoint",
        "worker",
    )
    history = read_history(root / "record.jsonl", 4)
    trials = [
        (
            t.number,
            t.params,
            t.status,
            t.rungs,
            [{k: v for k, v in t.epochs[e].items() if k not in timed} for e in sorted(t.epochs)],
        )
        for t in history.trials.values()
    ]
    return trials, (root / "best" / "model.safetensors").read_bytes(), (root / "best" / "recipe.toml").read_bytes()


# The tests' Ray has no GPU.
@pytest.mark.parametrize(("kind", "count"), [("gpus", "1"), ("cpus", "1000")])
def test_more_than_the_machine_has_is_refused_before_anything_is_written(kind, count, tmp_path):
    done = search(in_folder(tmp_path), "--space", "small.toml", f"--{kind}-per-trial", count)
    assert done.returncode == 2
    assert f"resources.{kind}_per_trial must be at most the" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_images_in_a_relative_folder_are_found_by_every_worker(tmp_path):
    """Each worker runs in a folder of its own."""
    write_images(tmp_path / "my images", count=12)
    space = SMALL_SPACE.replace('dataset = "digits"', 'dataset = "folder:my images"').replace(
        "epochs = 4", "epochs = 1"
    )
    folder = in_folder(tmp_path, space.replace("batch_size = 128", "batch_size = 8"))
    done = search(folder, "--space", "small.toml", "--name", "one", "--trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in table(folder / "results" / "one" / "trials.csv")} == {"completed"}
    recipe = load_recipe(folder / "results" / "one" / "best" / "recipe.toml")
    assert recipe.task.dataset == f"folder:{tmp_path / 'my images'}"
