"""A module as a user writes one, and a study of somebody else that names it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.studies import create
from tests.conftest import SMALL_SPACE

SOURCE = r"""
import atexit, os, pathlib, sys, threading
import torch
from torch import nn

with pathlib.Path(__file__).with_name("ran").open("a") as file:
    file.write("imported\n")
print("words of a module")
atexit.register(print, "last words of a module")
threading.Timer(1.0, print, ["words of a thread"]).start()
os.write(1, b"\xff bytes of a module\n")

def net(classes, channels):
    print("words of a factory")
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))

def leaves(classes, channels):
    sys.exit("enough")

def ctrl_c(classes, channels):
    raise KeyboardInterrupt("mine")

class Odd(BaseException):
    def __str__(self):
        raise SystemExit(3)

def odd(classes, channels):
    raise Odd

def half(classes, channels):
    raise ValueError("half \ud800 of it, \x1b]0;a title\x07 and \x00")

def leaves_later(classes, channels):
    class Leaving(nn.Sequential):
        def forward(self, images):
            if self.training:
                sys.exit("in an epoch")
            return super().forward(images)
    return Leaving(nn.Flatten(), nn.Linear(64 * channels, classes))

def loss(natural, adversarial, labels):
    return nn.functional.cross_entropy(adversarial, labels, reduction="none")

def sampler(seed):
    import optuna
    return optuna.samplers.RandomSampler(seed=seed)

def leaving_sampler(seed):
    import optuna
    class Leaving(optuna.samplers.RandomSampler):
        def sample_relative(self, study, trial, space):
            sys.exit("no more points")
        def infer_relative_search_space(self, study, trial):
            sys.exit("no more points")
    return Leaving(seed=seed)
"""
OWN = 'model = { name = "theirs:net", head = "linear" }\nmethod = "theirs:loss"'
SPACE = SMALL_SPACE.replace("model = { width = 4 }", OWN).replace(
    "[search]", '[sampler]\nname = "theirs:sampler"\n\n[search]'
)
SPACE = SPACE.replace(
    '"hcpr.scale" = { low = 4.0, high = 16.0, log = true }', '"optimiser.lr" = { low = 0.01, high = 0.1 }'
)


def module_in(folder: Path) -> Path:
    """The module beside which commands are run; returns the file in which it counts its imports."""
    (folder / "theirs.py").write_text(SOURCE, encoding="utf-8")
    return folder / "ran"


def foreign_study(folder: Path) -> Path:
    """A study that names code everywhere, with a trial and its model, as it comes out of somebody's archive."""
    space = folder / "theirs.toml"
    space.write_text(SPACE, encoding="utf-8")
    study = read_study(space)
    root = folder / "results" / "theirs"
    create(StudyFolder(root), study)
    return root


def foreign_model(folder: Path) -> Path:
    """A folder as a search leaves it for its best trial; weights are not reached where nobody vouches."""
    import numpy as np
    from safetensors.numpy import save_file

    from hcpr_tune.training.recipe import recipe_to_toml

    root = foreign_study(folder) / "best"
    root.mkdir()
    (root / "recipe.toml").write_text(recipe_to_toml(read_study(folder / "theirs.toml").recipe), encoding="utf-8")
    weights = {"1.weight": np.eye(10, 64, dtype=np.float32), "1.bias": np.zeros(10, dtype=np.float32)}
    save_file(weights, root / "model.safetensors")
    inputs = {"channels": 1, "classes": 10, "image_size": [8, 8], "class_names": [str(one) for one in range(10)]}
    (root / "metrics.json").write_text(json.dumps({"model_inputs": inputs}), encoding="utf-8")
    return root


def ran(*arguments: str | Path, cwd: Path, timeout: float = 150) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, whose standard output and error are files of the system."""
    return subprocess.run(
        [sys.executable, "-m", "hcpr_tune", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
