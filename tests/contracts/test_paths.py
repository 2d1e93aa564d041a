"""Unreadable and impossible paths in every option that takes one: one line with the option's name, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.recipe import recipe_to_toml
from tests.conftest import ROOT, SMALL_SPACE
from tests.views.recorded import recorded
from tests.written import written

BAD = {
    "in a shut folder": "shut/inside/it",
    "too long": "a" * 300,
    "too long, in a folder to come": "to-come/" + "a" * 300,
    "through a file": "small.toml/inside/it",
    "a loop of links": "loop/it",
    "with a NUL": "a\0b",
}
OPTIONS = {
    "--space": (
        ["tune", "--space", "{}.toml"],
        ["plan", "--space", "{}.toml"],
        ["verdict", "--model", "weights", "--arch", "x", "--space", "{}.toml"],
    ),
    "--storage": (
        ["tune", "--space", "small.toml", "--storage", "{}"],
        *([command, "one", "--storage", "{}"] for command in ("status", "stop", "clean", "logs", "report", "verdict")),
        ["tune", "--resume", "one", "--storage", "{}"],
        ["tune", "--space", "small.toml", "--continue", "--name", "one", "--storage", "{}"],
        ["kill", "one", "0", "--storage", "{}"],
        ["enqueue", "one", "--set", "hcpr.scale=8", "--storage", "{}"],
        ["export", "one", "--optuna", "new.db", "--storage", "{}"],
        ["transfer", "one", "--to", "small.toml", "--storage", "{}"],
    ),
    "--warm-start": (["tune", "--space", "small.toml", "--warm-start", "{}"],),
    "--out": (
        ["report", "one", "--out", "{}.html"],
        ["transfer", "one", "--to", "small.toml", "--out", "{}.toml"],
        ["plan", "--space", "small.toml", "--from", "results/one", "--out", "{}.html"],
        ["train", "--recipe", "recipe.toml", "--out", "{}"],
        ["train", "--recipe", "recipe.toml", "--resume", "--out", "{}"],
        ["init", "images", "--out", "{}.toml"],
    ),
    "--write": (["plan", "--space", "small.toml", "--from", "results/one", "--write", "{}.toml"],),
    "--from": (["plan", "--space", "small.toml", "--from", "{}"],),
    "--replay": (["plan", "--replay", "{}"],),
    "--curves": (["plan", "--space", "small.toml", "--curves", "{}.csv"],),
    "--to": (["transfer", "one", "--to", "{}.toml"],),
    "--optuna": (["export", "one", "--optuna", "{}.db"],),
    "--onnx": (["export", "--onnx", "{}.onnx", "--model", "results"],),
    "--model": (
        ["evaluate", "--model", "{}"],
        ["verdict", "one", "--model", "{}", "--arch", "small_cnn"],
        ["verdict", "--model", "{}", "--arch", "small_cnn"],
    ),
    "FOLDER": (["init", "{}"],),
    "": (["export", "--onnx", "new.onnx", "--model", "{}"], ["train", "--recipe", "{}"]),
}
"""The arguments by the option that the message has to name."""
CHILD = """
import contextlib, ctypes, io, json, sys
# Root without its privileges may do no more than anybody with his own files.
capset = ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
from hcpr_tune.cli.main import main
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(json.loads(line))
        except BaseException as error:
            code = repr(error)
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


@pytest.fixture
def folder(small_study):
    """A folder with one that may not be entered."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
        (root / "recipe.toml").write_text(recipe_to_toml(read_study(root / "small.toml").recipe), encoding="utf-8")
        (root / "weights").write_bytes(b"")
        written(root / "results", "one", small_study, recorded(small_study, 6))
        (root / "images" / "cat").mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / "images" / "cat" / "one.png")
        (root / "shut" / "inside").mkdir(parents=True)
        (root / "loop").symlink_to("loop")
        (root / "shut").chmod(0)
        yield root
        (root / "shut").chmod(0o700)


def answers(folder: Path, lines: list[list[str]]) -> list[tuple[object, str]]:
    """What the commands say to a user without rights, one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=folder,
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if ".cache" not in path.parts)


def test_it_is_told_by_the_option_that_it_came_from(folder):
    asked = [
        (option, [word.format(bad) for word in words])
        for bad in BAD.values()
        for option, all_of in OPTIONS.items()
        for words in all_of
    ]
    before = tree(folder)
    for (option, words), (code, said) in zip(asked, answers(folder, [words for _, words in asked]), strict=True):
        assert (code, said.count("\n")) == (2, 1), (words, code, said)
        assert option in said or "there is no study in small.toml/inside" in said, (words, said)
        assert ";" in said or "there is no study" in said, (words, said)
    assert tree(folder) == before


def test_a_storage_that_may_not_be_read_is_not_an_empty_one(folder):
    (folder / "results" / "one").chmod(0)
    shut, one, none = answers(folder, [["list", "--storage", "shut"], ["list"], ["list", "--storage", "nowhere"]])
    (folder / "results" / "one").chmod(0o755)
    assert shut[0] == 2
    assert "--storage shut cannot be" in shut[1]
    assert (one[0], none[0]) == (0, 0)


def test_a_record_that_may_not_be_read_is_one_line(folder):
    (folder / "results" / "one" / "record.jsonl").chmod(0)
    asked = [
        ["status", "one"],
        ["plan", "--from", "results/one", "--space", "small.toml"],
        ["tune", "--space", "small.toml", "--warm-start", "results/one"],
    ]
    for code, said in answers(folder, asked):
        assert code == 2, said
        assert (
            "record.jsonl cannot be read: Permission denied" in said or "results/one cannot be read: Permission" in said
        )
