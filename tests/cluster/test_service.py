"""What the command line can ask of a search: each sampler, budgets, extensions, requests while it runs. Real Ray."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from hcpr_tune.execution import runner
from hcpr_tune.execution.connection.capacity import Share
from hcpr_tune.execution.ray_tune import RayTuneAdapter
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import read_history
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.search.suggestion.warm_start import warm_start
from hcpr_tune.views.terminal.live_view import result_table
from tests.cluster.here import meanwhile, shared_ray
from tests.cluster.test_detach import asked
from tests.cluster.test_search import ONE_WORKER, in_folder, outcome, record_of, search, table, wait_for
from tests.conftest import SLOW_SPACE, SMALL_SPACE, run_here

pytestmark = pytest.mark.cluster

CONDITIONAL = SMALL_SPACE + (
    '"method" = { choices = ["hcpr", "trades"] }\n'
    '"trades.beta" = { low = 1.0, high = 12.0, log = true, when = { method = "trades" } }\n'
    '"averaging.half_life" = { low = 0.1, high = 4.0, log = true, extra_values = [0.0] }\n'
)


def hcpr_tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hcpr_tune", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def history_in(folder: Path, name: str) -> History:
    root = folder / "results" / name
    study = read_study(root / "study.toml")
    return read_history(root / "record.jsonl", study.recipe.epochs, study.goal)


@pytest.fixture(scope="module")
def local_ray():
    """The share of searches that need no command line."""
    while not (answer := asked(shared_ray().dashboard_url, "")):
        time.sleep(0.1)
    assert answer == 401, "what is started here asks for a token"
    return Share(workers=1, cpus_per_trial=1.0, gpus_per_trial=0.0)


def searched(space: str, folder: Path, share: Share, *overrides: tuple[str, Any]) -> tuple[StudySpec, History]:
    """A whole search on the shared Ray."""
    study = read_study(in_folder(folder, space) / "small.toml", [("resources.workers", 1), *overrides])
    study_folder = check_new(folder / "results", "one")
    history = runner.run(create(study_folder, study), share)
    return study, history


OTHERS = [
    pytest.param(name, marks=pytest.mark.long)
    for name in ("tpe", "random", "qmc", "nsgaii", "optuna.samplers:RandomSampler")
]
"""Samplers that other tests search with too, or whose suggestions are tested one by one."""


@pytest.mark.parametrize("sampler", [*OTHERS, "gp"])
def test_each_sampler_runs_a_search(sampler, local_ray, tmp_path):
    settings = ("sampler", {"name": sampler, "startup_trials": 3})
    _, history = searched(CONDITIONAL, tmp_path, local_ray, ("budget.trials", 7), settings)
    trials = history.trials.values()
    assert [trial.source for trial in trials] == ["published", *[sampler] * 6]
    assert {trial.status for trial in trials} <= {"completed", "waiting"}
    assert sum(trial.last_rung > 1 for trial in trials) >= 3


@pytest.mark.long
def test_ray_does_not_write_its_own_state_again_and_again(local_ray, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(RayTuneAdapter, "save", lambda self, path: written.append(time.monotonic()))
    space = SMALL_SPACE.replace("steps = 2", "steps = 60").replace("epochs = 4", "epochs = 40")
    began = time.monotonic()
    searched(space, tmp_path, local_ray, ("budget.trials", 2), ("budget.worker_hours", 40 / 3600))
    # By itself it would every 10 s.
    assert time.monotonic() - began > 15
    assert len(written) == 2, "at the beginning and at the end"


def test_two_objectives_give_a_front(local_ray, tmp_path):
    both = ("objective", ["robust_accuracy", "clean_accuracy"])
    sampler = ("sampler", {"name": "nsgaii", "startup_trials": 3})
    study, history = searched(SMALL_SPACE, tmp_path, local_ray, ("budget.trials", 6), both, sampler)
    assert {trial.source for trial in history.trials.values()} == {"published", "nsgaii"}
    metrics = json.loads((tmp_path / "results/one/best/metrics.json").read_text())
    points = {t.number: tuple(t.scores[t.best_rung].values()) for t in history.trials.values() if t.rungs}
    beaten = {n for n, p in points.items() if any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points.values())}
    assert set(metrics["front"]) == points.keys() - beaten
    shown = Console(file=io.StringIO(), width=120)
    shown.print(result_table(study, history))
    assert shown.file.getvalue().count("\nfront ") == len(metrics["front"])


def test_a_search_whose_time_is_up_ends_with_its_epoch_and_can_be_extended(tmp_path):
    space = SLOW_SPACE.replace("epochs = 4", "epochs = 12").replace("first_rung = 1", "first_rung = 6")
    folder = in_folder(tmp_path, space)
    limit = 3.0
    search(folder, "--space", "small.toml", "--name", "short", "--trials", "2", "--worker-hours", str(limit / 3600))
    events = record_of(folder, "short")
    broken = [event for event in events if event["event"] == "job_end" and event["status"] == "broken off"]
    assert broken
    assert all(event["reason"] == "the budget is spent" for event in broken)
    history, late = History(12), []
    for event in events:
        if event["event"] == "epoch" and history.worker_seconds >= limit:
            late.append(event["trial"])
        history.apply(event)
    assert len(late) == len(set(late)), "a trial went on for more than the epoch that was running"
    done = search(folder, "--resume", "short", "--quiet", "--worker-hours", "0")
    assert done.returncode == 0, done.stderr
    assert {row["epochs"] for row in table(folder / "results/short/trials.csv")} <= {"6", "12"}
    less = search(folder, "--resume", "short", "--trials", "1")
    assert less.returncode == 2
    assert "--trials must be at least the 2 that the study has, got 1" in less.stderr


def test_a_finished_search_gets_more_trials_a_new_top_rung_and_an_audit(local_ray, tmp_path):
    _, first = searched(SMALL_SPACE, tmp_path, local_ray, ("pace.over", "segment"))
    assert len(first.trials) == 4
    done = search(tmp_path, "--resume", "one", "--quiet", "--trials", "+3", "--epochs", "8")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results/one/trials.csv")
    assert [row["trial"] for row in rows] == [str(n) for n in range(7)]
    assert (rows[0]["epochs"], rows[0]["status"]) == ("8", "completed")
    stopped = {row["trial"] for row in rows if row["status"] == "stopped"}
    done = search(tmp_path, "--resume", "one", "--quiet", "--audit", "2")
    assert done.returncode == 0, done.stderr
    audited = json.loads((tmp_path / "results/one/ledger.json").read_text())["audit"]
    assert {str(number) for number in audited["audited"]} <= stopped
    assert audited["completed"] == 2
    assert "2 stopped trials that were run to the end" in done.stdout
    exported = run_here(tmp_path, "export", "one", "--optuna", "one.db")
    assert exported.returncode == 0, exported.stderr
    trials = optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path / 'one.db'}").trials
    assert len(trials) == 7
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    again = run_here(tmp_path, "export", "one", "--optuna", "one.db")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_a_search_learns_from_an_earlier_one(local_ray, tmp_path):
    study, _ = searched(SMALL_SPACE, tmp_path, local_ray)
    event = warm_start(tmp_path / "results" / "one", study, 0.0)
    assert len(event["trials"]) == 4
    folder = check_new(tmp_path / "results", "two")
    history = runner.run(create(folder, study), local_ray, requests=[event])
    sources = [trial.source for trial in history.trials.values()]
    assert sources == ["published", "warm start", "warm start", "warm start"]
    assert len(history.old_trials) == 4
    assert len(read_history(folder.record, 4).old_trials) == 4


def test_trials_are_added_and_ended_while_a_search_runs(tmp_path):
    space = SMALL_SPACE.replace("epochs = 4", "epochs = 400").replace("first_rung = 1", "first_rung = 200")
    record = tmp_path / "results" / "live" / "record.jsonl"

    def ask() -> None:
        wait_for(record, '"epoch": ', 2)
        added = hcpr_tune(tmp_path, "enqueue", "live", "--set", "hcpr.scale=5")
        assert added.returncode == 0, added.stderr
        for number in (0, 1):
            assert hcpr_tune(tmp_path, "kill", "live", str(number)).returncode == 0
        wait_for(record, '"source": "enqueued"', 1)
        assert hcpr_tune(tmp_path, "kill", "live", "2").returncode == 0

    workers = ("--set", "resources.workers=2")
    with meanwhile(ask):
        done = search(in_folder(tmp_path, space), "--space", "small.toml", "--name", "live", "--trials", "2", *workers)
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    trials = history_in(tmp_path, "live").trials
    assert [trials[n].status for n in range(3)] == ["killed"] * 3
    assert trials[2].params["hcpr.scale"] == 5.0
    refused = run_here(tmp_path, "enqueue", "live", "--set", "hcpr.scale=99")
    assert refused.returncode == 2
    assert "--set hcpr.scale must lie inside search.hcpr.scale" in refused.stderr


RESTARTED = ("lr_schedule.mode", "restarted")


def test_where_each_rung_is_a_training_of_its_own_the_best_is_trained_again_to_the_same_weights(local_ray, tmp_path):
    searched(SMALL_SPACE, tmp_path, local_ray, RESTARTED, ("budget.trials", 2))
    epochs = [event for event in record_of(tmp_path, "one") if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs if event["trial"] == 0] == [1, 1, 2, 1, 2, 3, 4]
    again = run_here(tmp_path, "train", "--recipe", "results/one/best/recipe.toml", "--out", "again", "--quiet")
    assert again.returncode == 0, again.stderr
    best = tmp_path / "results/one/best/model.safetensors"
    assert (tmp_path / "again/model.safetensors").read_bytes() == best.read_bytes()


@pytest.mark.long
def test_where_each_rung_is_a_training_of_its_own_a_killed_search_ends_as_the_uninterrupted_one(
    local_ray, background, tmp_path
):
    searched(SMALL_SPACE, tmp_path, local_ray, RESTARTED)
    settings = [*ONE_WORKER, "--set", "=".join(RESTARTED)]
    process = background("tune", "--space", tmp_path / "small.toml", "--name", "killed", *settings)
    wait_for(tmp_path / "results" / "killed" / "record.jsonl", '"epoch": ', 6)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = search(tmp_path, "--resume", "killed")
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "one")
    assert len(table(tmp_path / "results/killed/trials.csv")) == 4


def test_a_probe_says_what_the_search_would_cost(tmp_path):
    began = time.monotonic()
    done = search(in_folder(tmp_path), "--space", "small.toml", "--dry-run", "--probe")
    assert done.returncode == 0, done.stderr
    assert "# probe: " in done.stdout
    assert "of workers' time, about" in done.stdout
    assert time.monotonic() - began < 120
    assert not (tmp_path / "results").exists()
