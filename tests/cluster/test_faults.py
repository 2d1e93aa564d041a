"""Nothing is lost: each fault is really caused, and the search that continues is compared with an undisturbed one.

`make test` causes each once; `make test-faults` ten times, and the driver's kill at twenty moments. A driver that is to
die is a process of its own; where only workers die, and where a search is gone on with, it is this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.search.record.lines import read_lines, unsealed
from hcpr_tune.search.record.record import read_history
from hcpr_tune.training import manifest
from tests.cluster.conftest import ONE_WORKER
from tests.cluster.here import meanwhile
from tests.cluster.test_search import check_replayed, in_folder, launched, outcome, record_of, search, table
from tests.conftest import SLOW_SPACE, SMALL_SPACE, in_background

pytestmark = [pytest.mark.cluster, pytest.mark.faults]

LONG_EPOCHS = SMALL_SPACE.replace("steps = 2", "steps = 1000").replace("batch_size = 128", "batch_size = 8")
"""Epochs of minutes: who waits for one is found out."""


def resumed(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = search(folder, "--resume", name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def killed(process: subprocess.Popen[str], record: Path) -> None:
    """Kill a driver, and see its workers die: until they do they may finish an epoch."""
    process.kill()
    process.communicate()
    workers = {worker_of(event) for event in epochs_in(read_lines(record).events)}
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.05)


def jobs_ended(folder: Path, name: str) -> list[tuple[int, int]]:
    """(trial, end) of the jobs that reached their rung."""
    return [
        (e["trial"], e["end"]) for e in record_of(folder, name) if e["event"] == "job_end" and e["status"] == "reached"
    ]


def check_nothing_ran_twice(folder: Path, name: str, deaths: int) -> None:
    """Every trial once, every job once, and for each death at most the running epoch and the report on its way."""
    events = record_of(folder, name)
    suggested = [event["trial"] for event in events if event["event"] == "trial"]
    assert suggested == sorted(set(suggested))
    assert [row["trial"] for row in table(folder / "results" / name / "trials.csv")] == [str(n) for n in suggested]
    assert len(set(jobs_ended(folder, name))) == len(jobs_ended(folder, name)), "a finished job ran again"
    epochs = [(event["trial"], event["epoch"]) for event in events if event["event"] == "epoch"]
    assert len(epochs) - len(set(epochs)) <= deaths


def kill_at(moment: int, seconds: float, process: subprocess.Popen[str], record: Path) -> None:
    """Kill the driver at a seeded moment: after a while, or, every second time, while it writes to its record."""
    drawn = random.Random(moment)
    follow(record, lambda events: bool(events), process)
    if moment % 2:
        time.sleep(seconds * drawn.random())
    else:
        lines = drawn.randrange(2, 28)
        while process.poll() is None and record.read_bytes().count(b"\n") < lines:
            time.sleep(0.002)
        size = record.stat().st_size
        while process.poll() is None and record.stat().st_size == size:
            pass
    killed(process, record)


def test_a_killed_driver_loses_the_running_epoch_at_most(moment, undisturbed, background, tmp_path):
    whole, seconds = undisturbed
    process = background(
        "tune", "--space", in_folder(tmp_path, SLOW_SPACE) / "small.toml", "--name", "killed", *ONE_WORKER
    )
    record = tmp_path / "results" / "killed" / "record.jsonl"
    kill_at(moment, seconds, process, record)
    if moment % 4 == 0:  # a machine that loses its power may lose the end of the last line too
        os.truncate(record, record.stat().st_size - random.Random(moment).randrange(1, 40))
    resumed(tmp_path, "killed")
    assert outcome(tmp_path, "killed") == whole
    check_nothing_ran_twice(tmp_path, "killed", deaths=2 if moment % 4 == 0 else 1)


def worker_of(event: dict[str, Any]) -> int:
    """The process that reported an epoch."""
    return int(event["worker"].rpartition(":")[2])


def follow(
    record: Path, wanted: Callable[[list[dict[str, Any]]], bool], process: subprocess.Popen[str] | None = None
) -> list[dict[str, Any]]:
    """The record's events as soon as they are as `wanted`. Fails where `process` ends before."""
    while True:
        ended = process is not None and process.poll() is not None
        lines = record.read_bytes().split(b"\n")[:-1] if record.exists() else []
        events = [unsealed(line) for line in lines]
        if wanted(events):
            return events
        assert not ended, (process and process.communicate(), events[-3:])
        time.sleep(0.03)


def epochs_in(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "epoch"]


def test_a_killed_worker_s_job_goes_on_from_its_last_checkpoint(fault_round, undisturbed, tmp_path):
    record = tmp_path / "results" / "orphan" / "record.jsonl"
    count = random.Random(fault_round).randrange(
        1, 8
    )  # of eight epochs: after the last one there is nothing left to go on with

    def kill() -> None:
        events = follow(record, lambda events: len(epochs_in(events)) >= count)
        os.kill(worker_of(epochs_in(events)[-1]), signal.SIGKILL)

    with meanwhile(kill):
        done = search(in_folder(tmp_path, SLOW_SPACE), "--space", "small.toml", "--name", "orphan")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len({event["worker"] for event in epochs_in(record_of(tmp_path, "orphan"))}) == 2
    assert outcome(tmp_path, "orphan") == undisturbed[0]
    check_nothing_ran_twice(tmp_path, "orphan", deaths=1)
    check_replayed(tmp_path, "orphan", 0.15)


def test_a_job_whose_worker_dies_more_often_than_allowed_ends_its_trial_alone(fault_round, tmp_path):
    space = SLOW_SPACE.replace("epochs = 4", "epochs = 6").replace("first_rung = 1", "first_rung = 6")
    arguments = (
        "--space",
        "small.toml",
        "--trials",
        "2",
        "--set",
        "resources.worker_deaths=1",
        "--set",
        "resources.checkpoint_every=3",
    )
    record = tmp_path / "results" / "deadly" / "record.jsonl"

    def kill() -> None:
        for death in range(2):
            events = follow(
                record,
                lambda events: len({one["worker"] for one in epochs_in(events)}) > death,  # noqa: B023
            )
            os.kill(worker_of(epochs_in(events)[-1]), signal.SIGKILL)

    with meanwhile(kill):
        done = search(in_folder(tmp_path, space), *arguments, "--name", "deadly")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(tmp_path / "results" / "deadly" / "trials.csv")
    assert [row["status"] for row in rows] == ["failed", "completed"]
    assert rows[0]["reason"] == "its worker process died 2 times; resources.worker_deaths allows 1"
    check_replayed(tmp_path, "deadly", 0.15)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)], ids=["ctrl-c", "sigterm"]
)
def test_an_interruption_abandons_the_running_epoch_and_a_program_hears_of_it(
    number, fault_round, background, tmp_path
):
    space = in_folder(tmp_path, LONG_EPOCHS) / "small.toml"
    process = background("tune", "--space", space, "--name", "cut", "--json", *ONE_WORKER)
    record = tmp_path / "results" / "cut" / "record.jsonl"
    follow(record, lambda events: sum(e["event"] == "job" for e in events) >= 1, process)
    time.sleep(random.Random(fault_round).random() * 4)
    process.send_signal(number)
    out, err = process.communicate(timeout=400)
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert "continue with: " in err
    result = json.loads(out.splitlines()[-1])
    assert (result["news"], result["exit_code"], result["exit_reason"]) == ("result", 130, "interrupted")
    assert result["running"] == []
    assert result["trials"]["interrupted"] >= 1
    assert "tune --resume cut --dashboard-host none\n" in err
    assert record_of(tmp_path, "cut")[-1]["reason"] == "interrupted"
    assert not (tmp_path / "results" / "cut" / "holder.json").exists()


@pytest.mark.long
def test_a_second_ctrl_c_ends_at_once_and_resuming_works(fault_round, undisturbed, background, tmp_path):
    process = background(
        "tune", "--space", in_folder(tmp_path, SLOW_SPACE) / "small.toml", "--name", "twice", *ONE_WORKER
    )
    follow(tmp_path / "results" / "twice" / "record.jsonl", lambda events: len(epochs_in(events)) >= 3, process)
    process.send_signal(signal.SIGINT)
    time.sleep(random.Random(fault_round).random() * 0.3)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=400)
    assert process.returncode in (130, -signal.SIGINT)
    resumed(tmp_path, "twice")
    assert outcome(tmp_path, "twice") == undisturbed[0]


def latest_checkpoint(folder: Path, name: str) -> Path:
    """The one that the interrupted job would go on from."""
    paths = (folder / "results" / name / "checkpoints").glob("trial_*/epoch_*")
    return max(paths, key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """A folder with a search whose driver was killed in the middle of trial 0's last segment, from epoch 2 to 4."""
    folder = tmp_path_factory.mktemp("cut_off")
    record = folder / "results" / "hurt" / "record.jsonl"
    words = ("--space", in_folder(folder, SLOW_SPACE) / "small.toml", "--name", "hurt", *ONE_WORKER)
    with in_background(folder) as start:
        process = start("tune", *words)
        follow(record, lambda events: any((e["trial"], e["epoch"]) == (0, 3) for e in epochs_in(events)), process)
        killed(process, record)
    return folder


@pytest.mark.parametrize("how", ["truncated", pytest.param("altered", marks=pytest.mark.long)])
def test_a_damaged_checkpoint_is_found_named_and_done_without(how, fault_round, undisturbed, cut_off, tmp_path):
    shutil.copytree(cut_off, tmp_path, dirs_exist_ok=True)
    state = latest_checkpoint(tmp_path, "hurt") / "state.pt"
    data, at = state.read_bytes(), random.Random(fault_round).randrange(state.stat().st_size)
    state.write_bytes(data[:at] if how == "truncated" else data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    done = resumed(tmp_path, "hurt", "--trust")
    words = "state.pt is cut off" if how == "truncated" else "state.pt was altered"
    loss = f"the checkpoint {state.parent} was damaged ({words}); training continues from an earlier state"
    assert loss in done.stdout
    assert [event["what"] for event in record_of(tmp_path, "hurt") if event["event"] == "loss"] == [loss]
    assert outcome(tmp_path, "hurt") == undisturbed[0]


def test_a_damaged_last_line_of_the_record_is_found_named_and_done_without(fault_round, undisturbed, cut_off, tmp_path):
    shutil.copytree(cut_off, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "results" / "hurt" / "record.jsonl"
    data = record.read_bytes()
    at = random.Random(fault_round).randrange(data[:-1].rfind(b"\n") + 1, len(data) - 1)
    record.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    done = resumed(tmp_path, "hurt", "--trust")
    assert "the last one, was damaged" in done.stdout
    assert "what it recorded is done again" in done.stdout
    assert outcome(tmp_path, "hurt") == undisturbed[0]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    try:
        made = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("only root can mount a file system that fills")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_ends_the_search_clearly_and_space_lets_it_go_on(fault_round, undisturbed, small_disk, tmp_path):
    drawn = random.Random(fault_round)
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free
    # Enough for the first checkpoints, too little for all.
    filler.write_bytes(bytes(free - drawn.randrange(130_000, 320_000)))
    arguments = (
        "--space",
        str(in_folder(tmp_path, SLOW_SPACE) / "small.toml"),
        "--name",
        "full",
        "--storage",
        str(small_disk),
    )
    done = search(tmp_path, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    error = done.stderr.splitlines()[-1]
    assert "No space left on device; make space" in error
    assert f"tune --resume full --storage {small_disk}" in error
    root = small_disk / "full"
    assert not [path for path in root.rglob(".*") if path.name != ".copy_of"], "a half-written file was left"
    assert not any(manifest.damage(path) for path in root.glob("checkpoints/*/epoch_*"))
    assert not read_history(root / "record.jsonl", 4).damage
    filler.unlink()
    resumed(tmp_path, "full", "--storage", str(small_disk))
    (tmp_path / "results").symlink_to(small_disk)
    assert outcome(tmp_path, "full") == undisturbed[0]


def with_method(folder: Path, name: str) -> Path:
    """The space with a method of the user's own, which breaks."""
    space = SMALL_SPACE.replace("epochs = 4", f'epochs = 4\nmethod = "tests.cluster.broken:{name}"')
    space = space.replace(
        '"hcpr.scale" = { low = 4.0, high = 16.0, log = true }\n"pace.shape" = { choices = ["constant", "linear"] }',
        '"batch_size" = { choices = [64, 128] }',
    )
    return in_folder(folder, space) / "small.toml"


def test_out_of_memory_in_one_trial_ends_that_trial_with_its_reason(fault_round, tmp_path):
    space = with_method(tmp_path, "no_memory")
    done = search(tmp_path, "--space", str(space), "--name", "oom", "--trials", "6", "--set", "sampler.name='random'")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results" / "oom" / "trials.csv")
    small = [row for row in rows if row["batch_size"] == "64"]
    assert small
    assert {row["status"] for row in small} == {"failed"}
    assert all("out of GPU memory" in row["reason"] and "lower batch_size" in row["reason"] for row in small)
    assert {row["status"] for row in rows if row not in small} <= {"completed", "stopped"}
    assert len(rows) == 6


def test_a_process_with_a_broken_cuda_context_ends_and_its_job_goes_on_in_another(fault_round, tmp_path, monkeypatch):
    with_method(tmp_path, "broken_context")
    monkeypatch.setenv("BROKEN_ONCE", str(tmp_path / "broken"))
    one = ("--set", "resources.workers=1", "--set", "sampler.name='random'")
    done = launched(tmp_path, "--space", "small.toml", "--name", "once", "--trials", "3", "--trust", *one)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "broken").exists()
    events = record_of(tmp_path, "once")
    ends = [event["status"] for event in events if event["event"] == "job_end"]
    assert set(ends) == {"worker died", "reached"}
    assert ends.count("worker died") == 1
    assert {row["status"] for row in table(tmp_path / "results" / "once" / "trials.csv")} <= {"completed", "stopped"}
    assert len({event["worker"] for event in epochs_in(events)}) == 1, "the first process never got to an epoch"


def test_a_space_in_which_the_first_trials_all_fail_for_one_reason_ends_with_that_reason(fault_round, tmp_path):
    space = with_method(tmp_path, "no_layer")
    done = search(tmp_path, "--space", str(space), "--name", "hopeless", "--trials", "40")
    assert done.returncode == 1
    assert "No trial reached its first rung: ValueError: there is no such layer." in done.stdout
    assert "given up after 5 trials lost in the same way" in done.stdout
    rows = table(tmp_path / "results" / "hopeless" / "trials.csv")
    assert 5 <= len(rows) <= 5 + (os.cpu_count() or 1)


def test_a_second_driver_is_refused_and_told_who_holds_the_study_and_a_stop_ends_the_first(fault_round, tmp_path):
    asked: list[subprocess.CompletedProcess[str]] = []

    def ask() -> None:
        follow(tmp_path / "results" / "held" / "record.jsonl", lambda events: len(events) >= 3)
        asked.append(launched(tmp_path, "--resume", "held"))
        stop = [sys.executable, "-m", "hcpr_tune", "stop", "held"]
        asked.append(subprocess.run(stop, cwd=tmp_path, capture_output=True, text=True, check=False))

    with meanwhile(ask):
        held = search(in_folder(tmp_path, LONG_EPOCHS), "--space", "small.toml", "--name", "held")
    refused, stopped = asked
    assert refused.returncode == 2
    assert f"is being searched by process {os.getpid()} on " in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert held.returncode == 130
    assert "stopped on request; everything recorded is kept" in held.stderr
    assert record_of(tmp_path, "held")[-1]["reason"] == "interrupted"


@pytest.mark.long
def test_a_changed_space_is_refused_and_a_larger_budget_taken(fault_round, tmp_path):
    space = in_folder(tmp_path, SLOW_SPACE) / "small.toml"
    command = ("--space", str(space), "--name", "grows", "--continue")
    assert search(tmp_path, *command).returncode == 0
    text = space.read_text(encoding="utf-8")
    space.write_text(text.replace("high = 16.0", "high = 20.0"), encoding="utf-8")
    before = (tmp_path / "results" / "grows" / "record.jsonl").read_bytes()
    refused = search(tmp_path, *command)
    assert refused.returncode == 2
    assert (
        "small.toml was changed since the study began: search.hcpr.scale.high was 16.0, is 20.0; undo that"
        in refused.stderr
    )
    assert (tmp_path / "results" / "grows" / "record.jsonl").read_bytes() == before
    space.write_text(text.replace("trials = 4", "trials = 6"), encoding="utf-8")
    assert search(tmp_path, *command).returncode == 0
    assert len(table(tmp_path / "results" / "grows" / "trials.csv")) == 6
    study = tmp_path / "results" / "grows" / "study.toml"
    study.write_text(study.read_text(encoding="utf-8").replace("trials = 4", "trials = 7"), encoding="utf-8")
    resumed(tmp_path, "grows")
    assert len(table(tmp_path / "results" / "grows" / "trials.csv")) == 7
