"""Every command and function that takes a study takes its name or its path, and one that does not exist is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hcpr_tune
from hcpr_tune.api.finding import find_model, find_recipe
from hcpr_tune.cli import main as cli
from hcpr_tune.common.nearest import did_you_mean, nearest
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.space_files import find_space
from hcpr_tune.search.storage.names import located
from hcpr_tune.search.storage.studies import find_study
from hcpr_tune.training.recipe import recipe_to_toml
from tests.conftest import SMALL_SPACE
from tests.views.recorded import recorded
from tests.written import written


@pytest.fixture
def here(tmp_path, monkeypatch, small_study):
    """A folder to work in, with the study `bear` in results/ and in shared/, and `mine` in the folder itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    for place, name in (("results", "bear"), ("results", "bear-20260102-030405-000000"), ("shared", "bear")):
        written(tmp_path / place, name, small_study, recorded(small_study, 6))
    written(tmp_path, "mine", small_study, recorded(small_study, 6))
    for place in ("results", "shared"):
        best = tmp_path / place / "bear" / "best"
        best.mkdir()
        (best / "recipe.toml").write_text(recipe_to_toml(small_study.recipe), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "storage", "means"),
    [
        ("bear", "results", ("results", "bear")),
        ("bear", "shared", ("shared", "bear")),
        ("mine", "results", (".", "mine")),  # no such study there, but here
        ("none", "results", ("results", "none")),
        ("results/bear/", "shared", ("results", "bear")),
        ("./bear", "results", (".", "bear")),
        (Path("bear"), "results", (".", "bear")),
        ("/at/all", "results", ("/at", "all")),
        ("s3://bucket/studies/one?region=eu", "results", ("s3://bucket/studies?region=eu", "one")),
        ("one", "s3://bucket/studies", ("s3://bucket/studies", "one")),
    ],
)
def test_a_word_is_a_name_and_what_has_a_slash_is_a_path(given, storage, means, here):
    assert located(given, storage) == means


def test_a_study_is_found_from_inside_its_folder(here, monkeypatch):
    monkeypatch.chdir(here / "shared" / "bear" / "best")
    for given in ("..", "../", "./.."):
        assert find_study(given, "results").root == here / "shared" / "bear"
    monkeypatch.chdir(here / "shared" / "bear")
    assert find_study(".", "results").address == str(here / "shared" / "bear")


COMMANDS = {
    "status": ["status", "{}", "--json"],
    "logs": ["logs", "{}"],
    "report": ["report", "{}"],
    "clean": ["clean", "{}", "--dry-run"],
    "enqueue": ["enqueue", "{}", "--set", "hcpr.scale=8"],
    "export": ["export", "{}", "--optuna", "new.log"],
    "transfer": ["transfer", "{}", "--to", "small.toml", "--out", "new.toml"],
    "resume": ["tune", "--resume", "{}", "--dry-run"],
    "warm start": ["tune", "--space", "small.toml", "--warm-start", "{}", "--dry-run"],
    "plan": ["plan", "--space", "small.toml", "--from", "{}", "--repeats", "1", "--out", "page.html"],
    "replay": ["plan", "--replay", "{}", "--json"],
}
"""What works without Ray on a study that has ended."""
REFUSED = {
    "stop": (["stop", "{}"], "{} is not being searched"),
    "kill": (["kill", "{}", "99"], "kill bear 99: there is no trial 99"),
    "verdict": (["verdict", "{}", "--dry-run", "--compare", "mart"], "cannot be simulated"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_takes_both(name, here, capsys):
    code = cli.main([word.format("bear") for word in [*COMMANDS[name], "--storage", "shared"]])
    by_name = capsys.readouterr()
    for new in ("new.log", "new.toml"):
        (here / new).unlink(missing_ok=True)
    again = cli.main([word.format("shared/bear") for word in COMMANDS[name]])
    by_path = capsys.readouterr()
    assert code == again != 2, by_name.err + by_path.err
    if name == "status":
        assert json.loads(by_path.out)["study"] == "shared/bear"
    if name in ("status", "logs", "report", "export", "resume", "replay"):
        assert by_path.out == by_name.out


@pytest.mark.parametrize("name", REFUSED)
def test_so_do_those_that_refuse_this_study(name, here, capsys):
    arguments, words = REFUSED[name]
    for given, more in (("bear", ["--storage", "shared"]), ("shared/bear", [])):
        assert cli.main([word.format(given) for word in [*arguments, *more]]) == 2
        assert words.format("shared/bear") in capsys.readouterr().err


def test_python_takes_both(here):
    for study in (
        hcpr_tune.Study.open("bear"),
        hcpr_tune.Study.open("results/bear"),
        hcpr_tune.load(Path("results/bear")),
    ):
        assert study.folder.address == "results/bear"
    assert hcpr_tune.Study.open("bear", storage="shared").folder.address == "shared/bear"
    assert hcpr_tune.load("mine").storage == "."


def test_a_recipe_is_that_of_a_file_a_folder_or_a_study(here):
    best = Path("results/bear/best/recipe.toml")
    for given in ("bear", "results/bear", "results/bear/best", best):
        assert find_recipe(given) == best
    assert find_recipe("bear", "shared") == Path("shared/bear/best/recipe.toml")
    assert find_space("results/bear") == Path("results/bear/study.toml")
    assert find_space("small") == Path("small.toml")
    for given, words in (("beer", "did you mean bear"), ("mine", "no best recipe yet"), ("a.toml", "no such file")):
        with pytest.raises(InputError, match=words):
            find_recipe(given, option="--recipe")


def test_a_model_is_that_of_a_folder_or_a_study(here):
    for file in ("model.safetensors", "metrics.json"):
        (here / "results/bear/best" / file).touch()
    for given in ("bear", "results/bear", "results/bear/best"):
        assert find_model(given) == Path("results/bear/best")
    with pytest.raises(InputError, match=r"--model shared/bear: .* holds no model yet"):
        find_model("shared/bear", option="--model")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("beer", "there is no study in results/beer; did you mean bear? "),
        ("results/beer", "there is no study in results/beer; did you mean bear? "),
        ("bear-2026", "did you mean bear or bear-20260102-030405-000000? "),
        ("xylophone", "known there: bear, bear-20260102-030405-000000"),
        ("nowhere/bear", "give the name of a study, or its folder"),
        ("a name", "a study's name must be 1 to 100 letters"),
    ],
)
def test_of_an_unknown_study_the_nearest_names_are_told(given, words, here, capsys):
    assert cli.main(["status", given]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_the_most_similar_names_come_first_and_then_the_parts_of_long_ones():
    known = ("default-20260102-030405-1", "defaults", "pace.shape", "wide")
    assert nearest("default", known, 2) == ["defaults", "default-20260102-030405-1"]
    assert nearest("shape", known) == ["pace.shape"]
    assert nearest("", known) == nearest("zzz", known) == []
    assert did_you_mean("wid", known, "--") == "did you mean --wide?"
    assert did_you_mean("default", known, most=2) == "did you mean defaults or default-20260102-030405-1?"
    assert did_you_mean("zzz", known) == ""
