"""Nobody takes what is printed: a reader that went away, a full disk, a stream that was closed from the beginning."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from hcpr_tune.common.output import Outlet, Unheard, outlets
from tests.conftest import SMALL_SPACE
from tests.views.recorded import recorded
from tests.written import written

COMMANDS = (["schema"], ["list"], ["tune", "--help"], ["status", "one"])
MAIN = [sys.executable, "-X", "dev", "-m", "hcpr_tune"]


@pytest.fixture
def folder(tmp_path, small_study):
    (tmp_path / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    written(tmp_path / "results", "one", small_study, recorded(small_study, 6))
    return tmp_path


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_goes_away_ends_it_quietly(arguments, folder):
    process = subprocess.Popen([*MAIN, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, said = process.communicate(timeout=200)
    assert (process.returncode, said) == (141, b"")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(arguments, folder):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*MAIN, *arguments], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=200
        )
    assert done.returncode == 1
    assert done.stderr.startswith("hcpr_tune: error: stdout cannot be written: No space left on device;")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_a_closed_stream_is_no_trouble(closed, folder):
    shell = f'exec "$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", shell, "sh", *MAIN, "status", "one"], cwd=folder, capture_output=True, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, b"")
    wrong = subprocess.run(
        ["bash", "-c", shell, "sh", *MAIN, "status", "none"], cwd=folder, capture_output=True, timeout=200
    )
    assert (wrong.returncode, wrong.stdout) == (2, b"")


def test_a_file_of_ours_does_not_get_the_number_of_a_closed_stream(folder):
    code = (
        "import os, hcpr_tune.common.output as output; output.open_streams();"
        " os._exit(10 + os.open('small.toml', os.O_RDONLY))"
    )
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", code], cwd=folder, timeout=200
    )
    assert done.returncode == 13


def test_what_no_locale_can_write_is_written_otherwise(folder):
    command = ["env", "PYTHONIOENCODING=ascii", *MAIN, "report", "one", "--out", "b\u00e4r.html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, rb"report       b\xe4r.html" + b"\n"), done.stderr


class Full(io.StringIO):
    """A stream that takes so many writes."""

    def __init__(self, room: int, error: OSError) -> None:
        super().__init__()
        self.room, self.error = room, error

    def write(self, text: str) -> int:
        if self.room == 0:
            raise self.error
        self.room -= 1
        return super().write(text)


def test_work_goes_on_and_says_once_that_nobody_hears_it(monkeypatch):
    said, full = io.StringIO(), Full(1, OSError(28, "No space left on device"))
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(sys, "stdout", full)
    with outlets(forgiving=False), outlets(forgiving=True):
        for word in ("heard", "lost", "lost"):
            sys.stdout.write(word)
        full.room = 1
        sys.stdout.write(" again")  # there is space again
    assert (full.getvalue(), sys.stdout) == ("heard again", full)
    assert said.getvalue().count("\n") == 1
    assert "the work continues" in said.getvalue()


def test_a_reader_that_went_away_is_not_spoken_of(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(sys, "stdout", Full(0, BrokenPipeError(32, "Broken pipe")))
    with outlets(forgiving=True):
        sys.stdout.write("nobody")
    assert said.getvalue() == ""


def test_it_is_not_taken_for_trouble_with_the_results():
    outlet = Outlet(Full(0, OSError(28, "No space left on device")), forgiving=False)
    with pytest.raises(Unheard, match="stdout cannot be written: No space left on device"):
        outlet.write("x")
    assert not issubclass(Unheard, OSError)


def test_a_training_goes_on_without_a_reader(folder):
    """A recipe of a few seconds: it ends with its results, though nobody reads from the first line on."""
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.training.recipe import recipe_to_toml

    (folder / "recipe.toml").write_text(recipe_to_toml(read_study(folder / "small.toml").recipe), encoding="utf-8")
    arguments = [*MAIN, "train", "--recipe", "recipe.toml", "--out", "trained"]
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert (folder / "trained" / "model.safetensors").is_file()
