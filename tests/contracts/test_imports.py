"""What must not be imported: the test images by a search, and heavy packages by what must answer at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hcpr_tune.common.settings import to_plain


def modules_after(code: str) -> set[str]:
    """The modules that a fresh process holds after running `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200)
    return set(done.stdout.splitlines())


def test_a_job_of_a_search_trains_without_the_module_that_opens_the_test_images(small_study, tmp_path):
    job = {
        "kind": "train",
        "study": "one",
        "name": "study one: trial 0",
        "values": "scale=8",
        "recipe": to_plain(small_study.recipe),
        "start": 0,
        "end": 1,
        "gpus": 0.0,
        "reported": 0,
        "checkpoint_every": 1,
        "checkpoints": str(tmp_path / "t"),
    }
    loaded = modules_after(
        "from hcpr_tune.execution.trainable import TrainJob\n"
        f"worker = TrainJob({{'job': {json.dumps(json.dumps(job))}}})\n"
        "assert worker.step()['done']"
    )
    assert "hcpr_tune.training.session" in loaded
    assert "hcpr_tune.training.data.heldout" not in loaded


def test_the_driver_of_a_search_does_not_import_it_either():
    loaded = modules_after(
        "import hcpr_tune.execution.runner, hcpr_tune.execution.search_jobs, hcpr_tune.views.tensorboard.writer,"
        " hcpr_tune.cli.commands.tune"
    )
    assert "hcpr_tune.training.data.heldout" not in loaded


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["tune", "--help"], ["tune", "--dry-run"], ["tune", "--space", "nope"], ["tune", "--trials", "x"]],
)
def test_help_dry_run_and_errors_import_nothing_heavy(arguments):
    code = (
        "from hcpr_tune.cli.main import main\nimport contextlib, io\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n  try: main({arguments})\n  except SystemExit: pass"
    )
    heavy = {"torch", "ray", "optuna", "sklearn", "tensorboard", "torchvision", "numpy"}
    assert not heavy & modules_after(code)
