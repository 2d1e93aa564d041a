"""Stretches with checkpoints: what is kept, what is dropped, and damaged files named with the way out."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training import checkpoints, manifest
from hcpr_tune.training.recipe import Model
from hcpr_tune.training.session import DataShelf, check_trainable, train_segment
from tests.training.test_folders import task, write_images


def segment(recipe, folder, start, end):
    return list(train_segment(recipe, DataShelf(), folder, start, end))


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return replace(tiny_recipe, epochs=4, segment_ends=(1,))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The reports of a training that nothing happened to."""
    return segment(recipe, tmp_path_factory.mktemp("whole"), 0, 4)


@pytest.fixture(scope="module")
def three_epochs(recipe, tmp_path_factory):
    """The folder of a training that was cut off after its third epoch."""
    folder = tmp_path_factory.mktemp("three")
    trained = train_segment(recipe, DataShelf(), folder, 0, 4)
    for _ in range(3):
        next(trained)
    trained.close()
    return folder


def test_rungs_keep_their_checkpoints_and_the_others_go(recipe, tmp_path):
    segment(recipe, tmp_path, 0, 4)
    assert checkpoints.saved_epochs(tmp_path) == [1, 4]
    assert all((checkpoints.folder_of(tmp_path, epoch) / "model.safetensors").is_file() for epoch in (1, 4))
    assert not list(tmp_path.glob(".epoch*"))


def test_between_rungs_the_latest_two_are_kept(recipe, tmp_path):
    trained = train_segment(recipe, DataShelf(), tmp_path, 0, 4)
    kept = [checkpoints.saved_epochs(tmp_path) for _ in trained]
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 4]]


def test_with_fewer_checkpoints_what_lies_between_is_trained_again(recipe, tmp_path):
    recipe = replace(recipe, epochs=8, segment_ends=(1, 6))
    whole = list(train_segment(recipe, DataShelf(), tmp_path / "whole", 0, 6))
    trained = train_segment(recipe, DataShelf(), tmp_path / "fewer", 0, 6, 0, 2)
    kept = []
    for report in trained:
        kept.append(checkpoints.saved_epochs(tmp_path / "fewer"))
        assert (report["seconds_checkpoint"] > 0) == (report["epoch"] in (1, 2, 4, 6))
        if report["epoch"] == 5:
            break
    trained.close()
    assert kept == [[1], [1, 2], [1, 2], [1, 2, 4], [1, 2, 4]]
    again = list(train_segment(recipe, DataShelf(), tmp_path / "fewer", 1, 6, 5, 2))
    assert [report["epoch"] for report in again] == [5, 6]
    assert [report["loss"] for report in again] == [report["loss"] for report in whole[4:]]
    assert checkpoints.saved_epochs(tmp_path / "fewer") == [1, 6]


DAMAGES = {
    "truncated": (lambda data: data[: len(data) // 2], "state.pt is cut off"),
    "empty": (lambda data: b"", "state.pt is cut off"),
    "altered": (lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "state.pt was altered"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(recipe, whole, three_epochs, tmp_path, name):
    damage, words = DAMAGES[name]
    shutil.copytree(three_epochs, tmp_path / "hurt")
    path = checkpoints.folder_of(tmp_path / "hurt", 3) / "state.pt"
    path.write_bytes(damage(path.read_bytes()))
    again = segment(recipe, tmp_path / "hurt", 1, 4)
    assert [report["epoch"] for report in again] == [2, 3, 4]
    assert again[0]["losses"] == [
        f"the checkpoint {path.parent} was damaged ({words}); training continues from an earlier state"
    ]
    assert [report["losses"] for report in again[1:]] == [[], []]
    assert [report["loss"] for report in again] == [report["loss"] for report in whole[1:]]


@pytest.mark.parametrize("name", ["report.json", "manifest.json", "model.safetensors"])
def test_every_file_of_a_checkpoint_is_watched(recipe, tmp_path, name):
    segment(recipe, tmp_path, 0, 1)
    path = checkpoints.folder_of(tmp_path, 1) / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (report,) = segment(recipe, tmp_path, 0, 1)
    assert f"{name} was altered" in report["losses"][0]
    path.unlink()
    (report,) = segment(recipe, tmp_path, 0, 1)
    assert f"{name} is missing" in report["losses"][0]


def test_what_was_not_told_of_the_stretch_is_told_again(recipe, whole, tmp_path):
    """A driver may have lost more than the last report."""
    segment(recipe, tmp_path / "told", 0, 1)
    trained = train_segment(recipe, DataShelf(), tmp_path / "told", 1, 4)
    first, second = next(trained), next(trained)
    trained.close()
    for reported, told in ((1, [2, 3, 4]), (2, [3, 4]), (3, [4])):
        folder = tmp_path / f"after_{reported}"
        shutil.copytree(tmp_path / "told", folder)
        again = list(train_segment(recipe, DataShelf(), folder, 1, 4, reported))
        assert [report["epoch"] for report in again] == told
        assert [report["loss"] for report in again] == [report["loss"] for report in whole[reported:]]
    assert (first["epoch"], second["epoch"]) == (2, 3)
    # The end of a segment is told whatever is known: with it the job ends.
    assert [report["epoch"] for report in train_segment(recipe, DataShelf(), folder, 1, 4, 4)] == [4]


@pytest.fixture
def of_folder(recipe, tmp_path):
    """The same training on a folder of cats, dogs and owls, and the folder."""
    images = write_images(tmp_path / "images", size=(8, 8), count=6)
    return replace(recipe, task=replace(task(images), epsilon=recipe.task.epsilon), batch_size=8), images


def test_a_checkpoint_names_its_classes_and_is_not_gone_on_from_with_others(of_folder, tmp_path):
    recipe, images = of_folder
    segment(recipe, tmp_path / "out", 0, 1)
    saved = torch.load(checkpoints.folder_of(tmp_path / "out", 1) / "state.pt", weights_only=True)
    assert saved["class_names"] == ["cat", "dog", "owl"]
    (images / "cat").rename(images / "yak")
    words = "was trained on the classes cat, dog, owl, and the data now have dog, owl, yak; give the class folders"
    with pytest.raises(InputError, match=words):
        segment(recipe, tmp_path / "out", 1, 4)
    with pytest.raises(InputError, match="has the classes dog, owl, yak, and what was trained before has cat, dog, ow"):
        check_trainable(recipe, DataShelf(), ["cat", "dog", "owl"])
    check_trainable(recipe, DataShelf(), [])


def test_a_checkpoint_of_a_version_without_names_is_gone_on_from(recipe, whole, tmp_path):
    segment(recipe, tmp_path, 0, 1)
    folder = checkpoints.folder_of(tmp_path, 1)
    saved = torch.load(folder / "state.pt", weights_only=True)
    del saved["class_names"]
    torch.save(saved, folder / "state.pt")
    (folder / "manifest.json").unlink()
    manifest.write(folder)
    again = segment(recipe, tmp_path, 1, 4)
    assert [report["loss"] for report in again] == [report["loss"] for report in whole[1:]]
    assert all(not report["losses"] for report in again)


@pytest.mark.parametrize("change", ["model", "lr"])
def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(recipe, tmp_path, change):
    segment(recipe, tmp_path, 0, 1)
    wider, faster = Model(width=recipe.model.width + 1), replace(recipe.optimiser, lr=0.01)
    other = replace(recipe, model=wider) if change == "model" else replace(recipe, optimiser=faster)
    reports = segment(other, tmp_path, 1, 4)
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
    assert "epoch_0001 was damaged (it belongs to another recipe)" in reports[0]["losses"][0]


def test_a_longer_training_goes_on_from_a_shorter_one(recipe, tmp_path):
    segment(replace(recipe, stop_epoch=1), tmp_path, 0, 1)
    longer = replace(recipe, epochs=8, segment_ends=(1, 4))
    assert [report["epoch"] for report in segment(longer, tmp_path, 1, 4)] == [2, 3, 4]


def test_what_a_killed_process_left_half_written_is_cleared(recipe, tmp_path):
    left = tmp_path / ".epoch_0001.4321"
    left.mkdir()
    (left / "state.pt").write_bytes(b"half")
    segment(recipe, tmp_path, 0, 1)
    assert not left.exists()


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_values(recipe, tmp_path):
    segment(recipe, tmp_path, 0, 1)
    state = torch.load(checkpoints.folder_of(tmp_path, 1) / "state.pt", weights_only=True)
    assert set(state) == {"epoch", "model", "optimiser", "class_names"}


def test_the_stop_epoch_ends_a_training_with_the_schedules_of_the_whole(recipe, whole, tmp_path):
    stopped = replace(recipe, stop_epoch=1)
    assert stopped.last_epoch == 1
    (only,) = segment(stopped, tmp_path / "stopped", 0, stopped.last_epoch)
    assert only["loss"] == whole[0]["loss"]
    assert only["lr"] == whole[0]["lr"]
    with pytest.raises(InputError, match=r"stop_epoch must be 0 or a rung, one of \[1, 4\], got 3"):
        replace(recipe, stop_epoch=3)


def test_a_picture_that_cannot_be_drawn_costs_no_training(recipe, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr("hcpr_tune.training.session.examples_png", broken)
    reports = segment(recipe, tmp_path, 0, 4)
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
    assert [report.get("picture_failed") for report in reports] == [
        "RuntimeError: no picture",
        None,
        None,
        "RuntimeError: no picture",
    ]
    assert not list(tmp_path.rglob("examples.png"))
    assert len(list(tmp_path.rglob("model.safetensors"))) == 2
