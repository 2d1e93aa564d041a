"""Shared by all tests: how the command line is run, and a small study that trains in seconds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import pytest

from hcpr_tune.execution.connection.cluster import RAY_SETTINGS
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from tests.browser import artefacts, browser

__all__ = ["artefacts", "browser"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are so small that threads would wait for each other

# Ray reads these when it is first imported, which a test of something else may do before one of a search.
for name, value in RAY_SETTINGS.items():
    os.environ.setdefault(name, value)

ROOT = Path(__file__).parent.parent

SMALL_SPACE = """
description = "a real search of a few seconds"

[budget]
trials = 4

[task]
dataset = "digits"
epsilon = 0.15

[recipe]
epochs = 4
batch_size = 128
attack = { epsilon = 0.15, steps = 2, step_size = 0.1 }
model = { width = 4 }
lr_schedule = { mode = "annealed", shape = "cosine" }
evaluation = { steps = 3, relative_step_size = 0.5 }

[early_stopping]
first_rung = 1
reduction_factor = 2
calibration = 1

[replication]
replicates = 0
lr_schedule = { shape = "cosine" }

[verdict]
seconds_at_end = 0

[search]
"hcpr.scale" = { low = 4.0, high = 16.0, log = true }
"pace.shape" = { choices = ["constant", "linear"] }
"""


SLOW_SPACE = SMALL_SPACE.replace("model = { width = 4 }", 'model = { name = "tests.slow:second" }')
"""The same with epochs long enough for something to happen in the middle of one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-rounds", type=int, default=1, help="how often each fault is caused")
    parser.addoption("--kill-moments", type=int, default=2, help="at how many moments the driver is killed")
    parser.addoption("--first-fault-round", type=int, default=0, help="to spread the rounds over several runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Faults happen at moments drawn from a seed: `moment` for the driver's kill, `fault_round` for all others."""
    for name, option in (("moment", "--kill-moments"), ("fault_round", "--fault-rounds")):
        if name in metafunc.fixturenames:
            first = metafunc.config.getoption("--first-fault-round") if name == "fault_round" else 0
            metafunc.parametrize(name, range(first, metafunc.config.getoption(option)))


def coloured_digits(folder: Path, images: int = 600) -> Path:
    """The first of scikit-learn's digits in class folders, each image in its own colour: RGB PNGs of 8x8."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch, rng = load_digits(), np.random.default_rng(0)
    for number in range(images):
        place = folder / str(bunch.target[number]) / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shares = bunch.images[number][..., None] / 16 * rng.uniform(0.5, 1.0, 3)
        Image.fromarray((255 * shares).astype(np.uint8)).save(place)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests run on Ray come first: they last longest, and none of them may be the last to begin."""
    on_ray = {item.path for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in on_ray)


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    """A study file of a few seconds."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL_SPACE, encoding="utf-8")
    return path


@pytest.fixture
def small_study(space_file: Path) -> StudySpec:
    return read_study(space_file)


def run_here(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`hcpr_tune ARGUMENTS` in this folder, in this process: to import torch takes longer than most tests."""
    from hcpr_tune.cli.main import main

    out, err, words = io.StringIO(), io.StringIO(), [*map(str, arguments)]
    with pytest.MonkeyPatch.context() as patched, chdir(folder), redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", [sys.argv[0], *words])  # what the record says of the command
        try:
            code = main(words)
        except SystemExit as ended:  # argparse
            code = ended.code if isinstance(ended.code, int) else 1
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `hcpr_tune ARGUMENTS` in an empty folder, in this process."""
    return partial(run_here, tmp_path)


@pytest.fixture(autouse=True)
def state_of_a_new_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was begun on this machine before, and nothing is kept of the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def no_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs the tests may have set the width of a terminal that there is not."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def without_dashboard(arguments: Sequence[str | Path]) -> list[str]:
    """A search's arguments, without Ray's dashboard (several processes of seconds each) unless one is asked for."""
    given = [*map(str, arguments)]
    return given if "--dashboard-host" in given else [*given, "--dashboard-host", "none"]


@contextmanager
def in_background(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python launch/NAME.py ARGUMENTS` in its own session; what is left is ended, by its id, in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "launch" / f"{name}.py"),
                *(without_dashboard(arguments) if name == "tune" else map(str, arguments)),
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """In the test's folder."""
    with in_background(tmp_path) as start:
        yield start
