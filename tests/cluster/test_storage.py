"""A study in a bucket, on a real S3 server: as safe as on a disk, and found again from another machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hcpr_tune
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import most_checkpoints
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.checkpoint_store import FolderStore
from tests.cluster.test_faults import epochs_in, follow, killed
from tests.cluster.test_search import in_folder, launched, outcome, record_of
from tests.cluster.test_verdict import ALL_TO_THE_END, NOTHING_SURVIVES, QUICK, events_of, judged, numbers
from tests.conftest import SLOW_SPACE
from tests.s3 import SECRET

pytestmark = pytest.mark.cluster

TOKEN = "f00dfeed" * 8


@pytest.fixture
def stored(s3_server, monkeypatch, tmp_path):
    """An S3 server for this process and those that it starts, and the URL of an empty bucket's folder."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server, f"s3://{s3_server.new_bucket()}/studies"


def begun(background, folder: Path, storage: str, name: str, *arguments: str, space: str = SLOW_SPACE):
    path = in_folder(folder, space) / "small.toml"
    settings = ("--set", "resources.workers=1", *arguments)
    return background("tune", "--space", path, "--name", name, "--storage", storage, *settings)


def local_record(folder: Path, name: str) -> Path:
    return folder / "results" / name / "record.jsonl"


def test_a_killed_search_goes_on_from_the_bucket_on_another_machine_and_no_secret_is_written(
    stored, undisturbed, background, monkeypatch, tmp_path
):
    _, storage = stored
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    process = begun(background, tmp_path, storage, "far")
    follow(local_record(tmp_path, "far"), lambda events: len(epochs_in(events)) >= 6, process)
    process.kill()
    process.communicate()
    shutil.rmtree(tmp_path / "results")
    done = launched(tmp_path, "--resume", "far", "--storage", storage, "--trust")
    assert done.returncode == 0, done.stderr
    assert f"study        {storage}/far (a copy for you in results/far)" in done.stdout
    assert outcome(tmp_path, "far") == undisturbed[0]
    jobs = [(e["trial"], e["end"]) for e in record_of(tmp_path, "far") if e["event"] == "job_end"]
    assert len(set(jobs)) == len(jobs)
    # All that people look at is in the bucket too, and nothing of the session before is left beside it.
    from hcpr_tune.common.buckets.bucket import Bucket

    there = Bucket(f"{storage}/far").sizes()
    copies = {path.relative_to(tmp_path / "results/far").as_posix() for path in (tmp_path / "results/far").rglob("*")}
    shown = {key for key in there if key.startswith(("best/", "trials/")) or "/" not in key}
    assert {"best/model.safetensors", "best/recipe.toml", "trials.csv", "trials/trial_0003/metrics.jsonl"} <= shown
    assert shown <= copies
    curves = [key for key in shown if "tfevents" in key]
    assert len(curves) == 4 + 1  # the trials' and the study's own
    record = b"".join(Bucket(f"{storage}/far").read(key) or b"" for key in sorted(there) if key.startswith("record/"))
    assert record == local_record(tmp_path, "far").read_bytes()
    contents = {key: Bucket(f"{storage}/far").read(key) or b"" for key in there}
    contents |= {str(path): path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    contents |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    for name, content in contents.items():
        for secret in (SECRET, TOKEN, os.environ["AWS_ACCESS_KEY_ID"]):
            assert secret.encode() not in content, name


@pytest.mark.long
def test_a_store_that_goes_away_ends_the_search_clearly(stored, undisturbed, background, tmp_path):
    server, storage = stored
    process = begun(background, tmp_path, storage, "gone")
    follow(local_record(tmp_path, "gone"), lambda events: len(epochs_in(events)) >= 4, process)
    server.stop()
    try:
        _, err = process.communicate(timeout=120)
    finally:
        server.start()
    assert process.returncode == 1
    assert "the store cannot be reached" in err
    assert f"tune --resume gone --storage {storage}" in err
    done = launched(tmp_path, "--resume", "gone", "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path, "gone") == undisturbed[0]


@pytest.mark.long
def test_a_damaged_checkpoint_in_the_bucket_is_done_without_and_the_rest_is_cleaned(
    stored,
    undisturbed,
    background,
    tmp_path,
):
    from hcpr_tune.common.buckets.bucket import Bucket

    _, storage = stored
    process = begun(background, tmp_path, storage, "hurt")
    follow(
        local_record(tmp_path, "hurt"),
        lambda events: any(e["event"] == "epoch" and (e["trial"], e["epoch"]) == (0, 3) for e in events),
        process,
    )
    killed(process, local_record(tmp_path, "hurt"))
    bucket = Bucket(f"{storage}/hurt/checkpoints/trial_0000")
    # Of one that is still being uploaded nobody was told.
    key = max(key for key in bucket.keys("") if key.endswith("manifest.json")).replace("manifest.json", "state.pt")
    bucket.write(key, (bucket.read(key) or b"")[:-7])
    done = launched(tmp_path, "--resume", "hurt", "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"loss=\"the checkpoint s3://\S*/trial_0000/epoch_000[34]\S* was damaged \(state.pt is cut off\)", done.stdout
    )
    assert outcome(tmp_path, "hurt") == undisturbed[0]
    command = [sys.executable, "-m", "hcpr_tune", "clean", "hurt", "--storage", storage]
    cleaned = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert cleaned.returncode == 0, cleaned.stderr
    assert re.match(r"freed \d+\.\d MB, [1-9]\d* checkpoints of s3://", cleaned.stdout)
    assert Bucket(f"{storage}/hurt/checkpoints").keys("") == []
    # Best weights stay, also where the study is opened from elsewhere afterwards.
    shutil.rmtree(tmp_path / "results")
    again = launched(tmp_path, "--resume", "hurt", "--storage", storage)
    assert again.returncode == 0, again.stderr
    assert outcome(tmp_path, "hurt") == undisturbed[0]
    assert "best/model.safetensors" in Bucket(f"{storage}/hurt").keys("best")


def test_a_bucket_that_is_not_there_is_bad_input(stored, tmp_path):
    done = launched(in_folder(tmp_path), "--space", "small.toml", "--storage", "s3://no-such-bucket-at-all/x")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no-such-bucket-at-all" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.long
def test_checkpoints_stay_within_the_bound_that_is_printed(background, tmp_path):
    process = background("tune", "--space", in_folder(tmp_path) / "small.toml", "--name", "bound", "--trials", "12")
    root = tmp_path / "results" / "bound"
    most = 0
    while process.poll() is None:
        most = max(most, len(FolderStore(root / "checkpoints").listed()))
    out, err = process.communicate()
    assert process.returncode == 0, err
    said = re.search(r"disk         at most (\d+) checkpoints, \d+ MB \((\d+\.\d+) MB each\)", out)
    assert said is not None
    workers = int(re.search(r"(\d+) at once", out)[1])  # type: ignore[index]
    assert int(said[1]) == most_checkpoints(read_study(root / "study.toml"), History(4), workers)
    assert 0 < most <= int(said[1])
    largest = max(size for _, _, size in FolderStore(root / "checkpoints").listed())
    assert largest <= 1.05 * float(said[2]) * 1e6


@pytest.mark.long
def test_a_verdict_lies_in_the_bucket_and_goes_on_from_another_machine(stored, monkeypatch, tmp_path):
    _, storage = stored
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    done = launched(in_folder(here, ALL_TO_THE_END), "--space", "small.toml", "--name", "one", "--storage", storage)
    assert done.returncode == 0, done.stderr
    asked = ("one", "--storage", storage, *QUICK, *NOTHING_SURVIVES, "--test")
    first = judged(here, *asked)
    assert first["settled"]
    again = judged(there, *asked)
    assert numbers(again) == numbers(first)
    assert len(again["test_accesses"]) == 1
    events = events_of(there / "results" / "one" / "verdict")
    assert [event["event"] for event in events].count("begin") == 2
    jobs = [event["job"] for event in events if event["event"] == "job"]
    assert len(set(jobs)) == len(jobs), "something was done twice"
    monkeypatch.chdir(there)
    assert hcpr_tune.load_model("results/one/verdict")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert hcpr_tune.load(f"{storage}/one").verdict["winner"] == first["winner"]
