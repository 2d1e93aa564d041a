"""Pictures of a study in a bucket, on a real S3 server: from the checkpoint, from elsewhere, or done without."""

from __future__ import annotations

import shutil

import pytest

import hcpr_tune.common.buckets.bucket
from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.search.storage.bucket_sync import BucketSync
from hcpr_tune.search.storage.checkpoint_store import BucketStore, FolderStore, Scratch
from hcpr_tune.training import manifest
from hcpr_tune.views.tensorboard.writer import EXAMPLES, TensorBoardView
from tests.s3 import s3_server
from tests.search.histories import begin, history_of, job, suggested
from tests.views.boards import board, picture, rung, tell

__all__ = ["s3_server"]


@pytest.fixture
def study():
    return read_study(find_space("default"))


@pytest.fixture
def folder(s3_server, monkeypatch, tmp_path):
    """A study's folder that is a copy of one in a bucket."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield StudyFolder(tmp_path / "one", Bucket(f"s3://{s3_server.new_bucket()}/studies/one"))
    s3_server.start()


def uploaded(folder, tmp_path, number, at, png):
    """A rung's checkpoint as a worker leaves it in the bucket."""
    path = tmp_path / f"scratch_{number}" / f"epoch_{at:04d}"
    path.mkdir(parents=True)
    (path / "state.pt").write_bytes(b"state")
    manifest.write(path)
    (path / "examples.png").write_bytes(png)
    Scratch(path.parent, Bucket(folder.checkpoint_store.where(f"trial_{number:04d}"))).push()


def shown(folder, number):
    reader = board(folder.trial(number))
    there = EXAMPLES in reader.Tags()["images"]
    return [one.encoded_image_string for one in reader.Images(EXAMPLES)] if there else []


def test_a_small_file_of_a_checkpoint_is_read_from_both_stores(folder, tmp_path):
    uploaded(folder, tmp_path, 3, 9, picture())
    store = BucketStore(folder.bucket.child("checkpoints"))
    assert store.read("trial_0003", 9, "examples.png") == picture()
    assert store.read("trial_0003", 9, "other") is None
    assert store.read("trial_0004", 9, "examples.png") is None
    (tmp_path / "scratch_3").rename(tmp_path / "trial_0003")
    assert FolderStore(tmp_path).read("trial_0003", 9, "examples.png") == picture()
    assert FolderStore(tmp_path).read("trial_0003", 9, "other") is None
    assert FolderStore(tmp_path).read("trial_0004", 9, "examples.png") is None


def test_a_checkpoint_that_is_fetched_again_goes_on_with_its_picture_or_without(folder, tmp_path):
    for number, png in ((0, picture()), (1, b"no picture")):
        uploaded(folder, tmp_path, number, 3, png)
        scratch = Scratch(tmp_path / f"again_{number}", Bucket(folder.checkpoint_store.where(f"trial_{number:04d}")))
        assert scratch.fetch(9) == []
        assert (scratch.folder / "epoch_0003" / "state.pt").read_bytes() == b"state"


def test_pictures_come_from_the_bucket_and_are_found_again_from_another_machine(folder, study, tmp_path):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    mirror = BucketSync(folder.root, folder.bucket, lambda: None, every=1e6)
    for number in (0, 1):
        tell(view, history, suggested(number), job(number, 0, 3))
    uploaded(folder, tmp_path, 0, 3, picture(1))
    tell(view, history, rung(0, 3, 50))
    assert shown(folder, 0) == [picture(1)]
    view.close()
    mirror.close()
    # The checkpoint goes, and so does the machine; it had recorded trial 1's rung and not brought its picture.
    folder.checkpoint_store.drop("trial_0000", 3)
    uploaded(folder, tmp_path, 1, 3, picture(2))
    history.apply(rung(1, 3, 60))
    shutil.rmtree(folder.root)
    history.apply(begin(1.0))
    TensorBoardView(StoredStudy(folder, study, history)).close()
    assert [shown(folder, number) for number in (0, 1)] == [[picture(1)], [picture(2)]]


def test_a_bucket_that_is_away_costs_pictures_only(folder, study, tmp_path, monkeypatch, s3_server):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    uploaded(folder, tmp_path, 0, 3, picture())
    monkeypatch.setattr(hcpr_tune.common.buckets.bucket, "PAUSES_S", ())
    s3_server.stop()
    tell(view, history, suggested(0), job(0, 0, 3), rung(0, 3, 50))
    view.close()
    assert shown(folder, 0) == []
    TensorBoardView(StoredStudy(folder, study, history)).close()
    s3_server.start()
    TensorBoardView(StoredStudy(folder, study, history)).close()
    assert shown(folder, 0) == [picture()]


def test_the_copy_has_one_file_of_a_trial_after_a_resume(folder, study):
    history = history_of()
    first = TensorBoardView(StoredStudy(folder, study, history))
    tell(first, history, suggested(0), job(0, 0, 3), rung(0, 3, 50))
    BucketSync(folder.root, folder.bucket, lambda: None, every=1e6).close()
    history.apply(begin(1.0))
    view = TensorBoardView(StoredStudy(folder, study, history))
    mirror = BucketSync(folder.root, folder.bucket, lambda: None, every=1e6)
    mirror.sync()
    tell(view, history, {"event": "end", "time": 2.0, "reason": "finished"})
    # In the order in which a record closes its listeners.
    mirror.close()
    view.close()
    first.close()
    there = {key: size for key, size in folder.bucket.sizes().items() if "tfevents" in key}
    assert len(there) == 2
    assert all(there.values())
