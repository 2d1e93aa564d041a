"""The copy of what people look at, on a real S3 server: what is its own, and nothing else."""

from __future__ import annotations

import pytest

from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.errors import StorageError
from hcpr_tune.search.storage.bucket_sync import BucketSync
from tests.s3 import s3_server

__all__ = ["s3_server"]


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(f"s3://{s3_server.new_bucket()}/results/mine")


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_are_copied_and_curves_of_an_earlier_session_go(bucket, tmp_path):
    foreign = ["notes.txt", "record/000000.jsonl", "checkpoints/trial_0000/epoch_0001/state.pt", "inner/study.toml"]
    for key in (*foreign, "trials/trial_0000/events.out.tfevents.1", "job.json"):
        bucket.write(key, b"there before")
    write(tmp_path, "trials.csv", "best/recipe.toml", "trials/trial_0000/events.out.tfevents.2", "record.jsonl")
    write(tmp_path, ".copy_of", "study.toml", "checkpoints/trial_0000/x")
    mirror = BucketSync(tmp_path, bucket, lambda: None, every=1000.0)
    mirror.close()
    copied = {"trials.csv", "best/recipe.toml", "trials/trial_0000/events.out.tfevents.2"}
    assert set(bucket.keys()) == {*foreign, "job.json", *copied}
    assert bucket.read("best/recipe.toml") == b"best/recipe.toml"
    assert bucket.read("record/000000.jsonl") == b"there before"


def test_only_what_changed_is_sent_again(bucket, tmp_path):
    write(tmp_path, "trials.csv", "rungs.json")
    mirror = BucketSync(tmp_path, bucket, lambda: None, every=1000.0)
    mirror.sync()
    bucket.write("trials.csv", b"not touched")
    (tmp_path / "rungs.json").write_text("new and longer")
    mirror.close()
    assert bucket.read("trials.csv") == b"not touched"
    assert bucket.read("rungs.json") == b"new and longer"


def test_who_lost_the_study_touches_nothing(bucket, tmp_path):
    def lost():
        raise StorageError("taken over")

    write(tmp_path, "trials.csv")
    bucket.write("trials/trial_0007/metrics.jsonl", b"of the new driver")
    mirror = BucketSync(tmp_path, bucket, lost, every=1000.0)
    with pytest.raises(StorageError, match="taken over"):
        mirror.close()
    assert bucket.keys() == ["trials/trial_0007/metrics.jsonl"]
