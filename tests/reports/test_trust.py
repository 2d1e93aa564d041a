"""A study of somebody else names code: nothing of it is imported before somebody here has vouched for it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

import hcpr_tune
from hcpr_tune.api import begun
from hcpr_tune.cli.main import main
from hcpr_tune.errors import InputError
from hcpr_tune.training import plugins
from tests.reports.foreign import foreign_model, foreign_study, module_in


@pytest.fixture
def imports(tmp_path, monkeypatch):
    """The file that counts imports; each test imports the module anew, from the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    yield module_in(tmp_path)
    sys.modules.pop("theirs", None)


COMMANDS = (
    ("tune", "--resume", "theirs", "--dry-run"),
    ("tune", "--resume", "theirs"),
    ("tune", "--space", "results/theirs/study.toml", "--dry-run"),
    ("plan", "--space", "results/theirs/study.toml"),
    ("verdict", "theirs"),
    ("train", "--recipe", "results/theirs/best/recipe.toml"),
    ("evaluate", "--model", "results/theirs/best"),
    ("export", "--onnx", "model.onnx", "--model", "results/theirs/best"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_is_imported_and_one_line_says_what_where_and_the_way_out(arguments, imports, tmp_path, capsys):
    foreign_model(tmp_path)
    assert main([*arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "theirs:" in line
    assert "results/theirs/" in line
    assert "--trust" in line
    assert not imports.exists()


@pytest.mark.parametrize(
    "arguments", [("status", "theirs"), ("report", "theirs"), ("list",), ("clean", "theirs")], ids=" ".join
)
def test_what_only_looks_at_a_study_imports_nothing_and_asks_nothing(arguments, imports, tmp_path):
    foreign_study(tmp_path)
    assert main([*arguments]) == 0
    assert not imports.exists()


def test_trust_is_asked_for_once_and_kept_where_nobody_else_can_write(imports, tmp_path):
    foreign_study(tmp_path)
    again = ["tune", "--resume", "theirs", "--dry-run"]
    assert main([*again, "--trust"]) == 0
    assert imports.read_text() == "imported\n"
    assert main(again) == 0
    kept = [*(begun._folder() or tmp_path).iterdir()]
    assert kept
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert kept[0].parent.stat().st_mode & 0o777 == 0o700
    # Written by others it says nothing.
    kept[0].chmod(0o666)
    assert main(again) == 2


def test_another_study_in_its_place_that_names_more_is_asked_about_again(imports, tmp_path):
    root = foreign_study(tmp_path)
    assert main(["tune", "--resume", "theirs", "--dry-run", "--trust"]) == 0
    text = (root / "study.toml").read_text()
    (root / "study.toml").write_text(text.replace("theirs:sampler", "antigravity:geohash"))
    assert main(["tune", "--resume", "theirs", "--dry-run"]) == 2


def test_a_users_own_file_and_his_own_words_need_no_trust(imports, tmp_path):
    foreign_study(tmp_path)
    assert main(["tune", "--space", "theirs.toml", "--dry-run"]) == 0
    assert main(["tune", "--space", "default", "--set", "sampler.name=theirs:sampler", "--dry-run"]) == 0


def test_a_name_that_nobody_thought_of_is_not_imported(imports):
    with plugins.only_vouched(), pytest.raises(InputError, match="not trusted"):
        plugins.load("theirs:net", "model.name")
    assert not imports.exists()


def test_a_model_is_loaded_from_python_once_it_is_trusted(imports, tmp_path):
    folder = foreign_model(tmp_path)
    with pytest.raises(InputError, match="trust=True"):
        hcpr_tune.load_model(folder)
    assert not imports.exists()
    assert hcpr_tune.load_model(folder, trust=True)[1].out_features == 10
    assert hcpr_tune.load_model(folder)[1].out_features == 10


def test_the_images_that_a_model_is_evaluated_on_may_be_code_too(imports, tmp_path, capsys):
    recipe = foreign_model(tmp_path) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('dataset = "digits"', 'dataset = "theirs:images"'))
    assert main(["evaluate", "--model", "results/theirs/best"]) == 2
    assert "recipe.toml names theirs:images, theirs:net, code that" in capsys.readouterr().err
    assert main(["export", "--onnx", "model.onnx", "--model", "results/theirs/best"]) == 2
    assert "recipe.toml names theirs:net, code that" in capsys.readouterr().err
    assert not imports.exists()


@pytest.mark.parametrize("state", ["/dev/null", "/proc/nowhere"])
def test_a_state_that_cannot_be_written_breaks_nothing(state, imports, tmp_path, monkeypatch):
    foreign_study(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    again = ["tune", "--resume", "theirs", "--dry-run"]
    assert main([*again, "--trust"]) == 0
    assert main(again) == 2


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 2)])
def test_somebody_at_a_terminal_is_asked(answer, code, imports, tmp_path):
    foreign_study(tmp_path)
    driver, terminal = pty.openpty()
    os.write(driver, answer)
    asked = subprocess.run(
        [sys.executable, "-m", "hcpr_tune", "tune", "--resume", "theirs", "--dry-run"],
        cwd=tmp_path, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, timeout=150, check=False,
    )  # fmt: skip
    seen = os.read(driver, 65536).decode(errors="replace")
    os.close(terminal)
    os.close(driver)
    assert "Do you trust whoever wrote that code? [y/N]" in seen
    assert asked.returncode == code
    assert imports.exists() == (code == 0)
