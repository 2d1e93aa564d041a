"""From a folder of images to a search space, a training and an evaluation, all from the command line."""

from __future__ import annotations

import json
import time

import pytest

from hcpr_tune.api.datasets.downloads import download
from hcpr_tune.api.datasets.starter import starter_space
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.data.dataset import load_data
from tests.training.test_folders import write_idx, write_images


@pytest.mark.parametrize(
    ("size", "mode", "model", "image_size", "epsilon"),
    [((8, 8), "L", "small_cnn", 0, 0.15), ((28, 28), "L", "small_cnn", 0, 0.1),
     ((32, 32), "RGB", "small_cnn", 0, 8 / 255),
     ((64, 60), "RGB", "resnet18", 64, 8 / 255), ((130, 120), "RGB", "torchvision:resnet18", 128, 4 / 255)],
)  # fmt: skip
def test_the_starter_fits_the_images_and_can_be_run(tmp_path, size, mode, model, image_size, epsilon):
    (tmp_path / "space.toml").write_text(starter_space(write_images(tmp_path / "f", size=size, mode=mode)))
    study = read_study(tmp_path / "space.toml")
    assert study.recipe.model.name == model
    assert study.recipe.task.image_size == image_size
    assert study.recipe.task.epsilon == pytest.approx(epsilon, abs=1e-6)
    assert study.recipe.augmentation.flip == (mode == "RGB")
    assert len(study.space) == 10
    assert load_data(study.recipe.task).classes == 3


def test_a_folder_of_jpegs_is_searched_trained_and_attacked_without_code(command, tmp_path):
    write_images(tmp_path / "pets", size=(16, 16), count=20, suffix="jpg")
    made = command("init", "pets", "--out", "pets.toml")
    assert made.returncode == 0, made.stderr
    (tmp_path / "recipe.toml").write_text(
        f'method = "trades"\nepochs = 2\nbatch_size = 16\n[task]\ndataset = "folder:{tmp_path / "pets"}"\n'
        "[model]\nwidth = 4\n[attack]\nsteps = 2\n[evaluation]\nsteps = 2\n[averaging]\nhalf_life = 0.5\n"
    )
    trained = command("train", "--recipe", "recipe.toml", "--out", "out")
    assert trained.returncode == 0, trained.stderr
    assert "best rung    epoch 2" in trained.stdout
    for attack in ("margin", "pgd", "autoattack"):
        found = command("evaluate", "--model", "out", "--attack", attack, "--images", "9", "--json")
        assert found.returncode == 0, found.stderr
        counted = json.loads(found.stdout)
        assert counted["robust_accuracy_validation"]["total"] == 9
    # Three classes are too few for targeted attacks, and the result says so.
    assert "3 classes are too few" in counted["warnings"][0]
    test = command("evaluate", "--model", "out", "--split", "test")
    assert "margin-2 on 12 test images" in test.stdout


def test_a_training_goes_on_where_it_was_stopped(command, tmp_path, background):
    recipe = "[task]\nepsilon = 0.15\n[model]\nwidth = 4\n[attack]\nsteps = 1\n[evaluation]\nsteps = 1\nperiod = 100\n"
    (tmp_path / "recipe.toml").write_text("epochs = 12\nbatch_size = 360\nsegment_ends = [4]\n" + recipe)
    whole = command("train", "--recipe", "recipe.toml", "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    process = background("train", "--recipe", "recipe.toml", "--out", "cut")
    while (
        not (tmp_path / "cut" / "metrics.jsonl").exists()
        or (tmp_path / "cut" / "metrics.jsonl").read_text().count("\n") < 6
    ):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = command("train", "--recipe", "recipe.toml", "--out", "cut", "--resume")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line)["epoch"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 13))
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    other = command("train", "--recipe", "recipe.toml", "--out", "cut", "--resume", "--set", "hcpr.scale=5")
    assert other.returncode == 2
    assert "was started with another recipe" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "none.toml"), "--recipe none.toml: there is no such file"),
        (("--recipe", "r.toml", "--set", "epochs=0"), "epochs must be at least 1 and at most 1000000, got 0"),
        (("--recipe", "r.toml", "--set", "task.epsilon=2"), "task.epsilon must be above 0 and at most 1, got 2.0"),
        (("--recipe", "r.toml", "--set", "task.epsilon=0"), "task.epsilon must be above 0 and at most 1, got 0.0"),
        (("--recipe", "r.toml", "--set", "method='best'"), "method must be one of hcpr, pgd_at"),
        (("--recipe", "r.toml", "--set", "model.head='linear'"), 'model.head must be "cosine" for method hcpr'),
        (("--recipe", "r.toml", "--set", "task.dataset='folder:none'"), "there is no folder none"),
        (("--recipe", "r.toml", "--set", "task.dataset='cifar10'"), "run: hcpr_tune data cifar10 --root data"),
        (("--recipe", "r.toml", "--set", "model.name='torchvision:nothing'"), "torchvision has no such classifier"),
        (("--recipe", "r.toml", "--set", "model.name='own:factory'"), "importing own raised ModuleNotFoundError"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_in_one_line(command, tmp_path, arguments, words):
    (tmp_path / "r.toml").write_text("epochs = 1\n")
    done = command("train", *arguments, "--out", "out")
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_what_is_there_needs_no_download(tmp_path):
    said: list[str] = []
    download("digits", tmp_path, said.append)
    write_idx(tmp_path)
    download("fashion_mnist", tmp_path, said.append)
    assert said[0] == "digits are part of scikit-learn: nothing to download"
    assert said[1].startswith("fashion_mnist is in")


def test_what_cannot_be_downloaded_says_so(tmp_path):
    with pytest.raises(InputError, match="data imagenet cannot be downloaded; known: digits, fashion_mnist"):
        download("imagenet", tmp_path, print)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="check --root"):
        download("cifar10", tmp_path / "file" / "below", print)
