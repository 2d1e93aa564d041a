"""`hcpr_tune export --onnx` from the command line: which model it takes, and what it refuses."""

from __future__ import annotations

import onnxruntime
import pytest

from hcpr_tune.cli import main as cli
from tests.training.test_onnx_file import folder_with
from tests.views.kinds import kind
from tests.written import written


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with a study in results/one that has no model yet."""
    monkeypatch.chdir(tmp_path)
    study, events = kind("one trial")
    written(tmp_path / "results", "one", study, events)
    return tmp_path


def test_the_studys_best_model_is_written(folder, capsys):
    folder_with(folder / "results/one/best")
    assert cli.main(["export", "one", "--onnx", "one.onnx"]) == 0
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first.startswith("the model in results/one/best written to one.onnx, 0.")
    assert second == '"images" (batch, 1, 8, 8), float32 in [0, 1], to "logits" (batch, 10)'
    assert third.startswith("its metadata (JSON texts) has class_names, ")
    assert fourth.startswith("under ONNX Runtime its logits differ from the model's by at most ")
    onnxruntime.InferenceSession("one.onnx", providers=["CPUExecutionProvider"])


def test_a_verdicts_model_goes_before_the_best_of_the_search_and_a_folder_needs_no_study(folder, capsys):
    for name in ("best", "verdict"):
        folder_with(folder / "results/one" / name)
    assert cli.main(["export", "one", "--onnx", "one.onnx"]) == 0
    assert capsys.readouterr().out.startswith("the model in results/one/verdict written to one.onnx")
    assert cli.main(["export", "--model", "results/one/best", "--onnx", "best.onnx"]) == 0
    assert capsys.readouterr().out.startswith("the model in results/one/best written to best.onnx")
    assert (folder / "best.onnx").read_bytes() == (folder / "one.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "--onnx", "new.onnx"], "export one: results/one/best holds no model yet; "),
        (["two", "--onnx", "new.onnx"], 'export "two": there is no study in results/two; known there: one'),
        (["one", "--onnx", "there.onnx"], "--onnx there.onnx exists; choose another file, or delete it"),
        (["one", "--onnx", "a/b.onnx"], "--onnx a/b.onnx: there is no folder "),
        (["--onnx", "new.onnx"], "export needs the NAME of a study, or "),
        (["--optuna", "new.db"], "export needs the NAME of a study"),
        (["one", "--onnx", "new.onnx", "--model", "m"], "--model m goes with --onnx alone, not with NAME one"),
        (["one", "--optuna", "new.db", "--model", "m"], "--model m goes with --onnx alone, not with --optuna"),
        (
            ["--onnx", "new.onnx", "--model", "m"],
            '--model "m": there is no study in results/m; known there: one; or',
        ),
        (["--onnx", "new.onnx", "--model", "results"], "results holds no recipe.toml; give a folder such as"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, folder, capsys):
    (folder / "there.onnx").write_bytes(b"mine")
    assert cli.main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["results", "there.onnx"]
    assert (folder / "there.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("arguments", [["one"], ["one", "--onnx", "a.onnx", "--optuna", "a.db"]])
def test_it_is_one_of_both(arguments, folder, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["export", *arguments])
    assert raised.value.code == 2
    assert "--onnx" in capsys.readouterr().err
