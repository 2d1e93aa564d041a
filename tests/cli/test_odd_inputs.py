"""Inputs of careless or unlucky users to commands that need no Ray: each gives one line, nothing of theirs is lost."""

from __future__ import annotations

import re
import shlex
import unicodedata
from dataclasses import replace

import pytest

from hcpr_tune.api.recorded_study import load_model
from hcpr_tune.cli.main import main
from hcpr_tune.common.files import new_name
from hcpr_tune.common.shell import typed
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.storage.studies import reopen
from hcpr_tune.training.data.folders import read_folder
from hcpr_tune.training.loop import torch_threads
from hcpr_tune.training.recipe import Attack, Model, Recipe, Schedule, Task, recipe_to_toml
from hcpr_tune.views.terminal.console import has_width, make_console
from tests.conftest import coloured_digits
from tests.search.histories import reached, suggested
from tests.views.recorded import recorded
from tests.written import written


@pytest.fixture
def study(tmp_path, monkeypatch, small_study):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "results", "one", small_study, recorded(small_study, 3))
    return small_study


@pytest.mark.parametrize("target", ["results/one/record.jsonl", "/dev/null", "results/one", "page.txt"])
def test_a_report_is_written_over_no_other_kind_of_file(study, tmp_path, target, capsys):
    record = (tmp_path / "results" / "one" / "record.jsonl").read_bytes()
    assert main(["report", "one", "--out", target]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "results" / "one" / "record.jsonl").read_bytes() == record


def test_a_link_that_the_report_is_written_to_stays_one(study, tmp_path):
    (tmp_path / "there.html").touch()
    (tmp_path / "link.html").symlink_to("there.html")
    assert main(["report", "one", "--out", "link.html"]) == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "there.html").stat().st_size > 1000


@pytest.mark.parametrize("name", ["a?b.db", "c%20d.db", "e#f.db"])
def test_an_address_that_names_another_file_is_refused(study, tmp_path, name, capsys):
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["export", "one", "--optuna", name]) == 2
    assert "choose another file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("value", [1e308, "abc", True])
def test_a_record_with_values_that_the_study_does_not_search_is_named(tmp_path, small_study, value):
    params = params_of(small_study.recipe, small_study.space)
    for odd in (params | {"hcpr.scale": value}, params | {"x.y": value}):
        name = f"odd{len(odd)}"
        written(tmp_path, name, small_study, [suggested(0, odd, "published"), *reached(0, 0, 1, 100)])
        with pytest.raises(InputError, match=r"record.jsonl: trial 0 has .* which is not in the study's space"):
            reopen(tmp_path, name)


@pytest.mark.parametrize("columns", ["0", "1", "-5", "abc", "9" * 30])
def test_a_width_that_is_none_hides_nothing(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width >= 80
    assert not has_width()


@pytest.mark.parametrize("stem", ["My Photos", "quo'te $HOME", "-dash", ".hid", "päper", "x" * 200, "'"])
def test_a_default_name_is_one_that_a_study_may_have(stem):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", new_name(stem))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My Photos", "My-Photos"),
        ("Käfig 'bunt' & $HOME", "Kafig-bunt-HOME"),
        (".2024.v1", "2024-v1"),
        ("-dash", "dash"),
        ("猫", "images"),
        ("x.toml", "x-toml"),
        ("default", "default-images"),
        ("y" * 200, "y" * 60),
    ],
)
def test_a_space_is_written_under_a_name_that_its_commands_take(tmp_path, monkeypatch, capsys, folder, name):
    monkeypatch.chdir(tmp_path)
    coloured_digits(tmp_path / folder, 150)
    assert main(["init", f"./{folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    written = f"written      search_spaces/{name}.toml, and space.schema.json beside it, by which editors complete and "
    assert lines[-3].startswith(written)
    looked, searched = (shlex.split(line.partition(typed())[2]) for line in lines[-2:])
    assert looked == ["tune", "--space", name, "--dry-run", "--probe"]
    assert searched == ["tune", "--space", name]
    assert main([*looked[:-1]]) == 0
    assert f'dataset = "folder:{tmp_path / folder}"' in capsys.readouterr().out


def test_a_space_elsewhere_is_told_by_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    coloured_digits(tmp_path / "photos", 150)
    assert main(["init", "photos", "--out", "default"]) == 2
    assert "--out default must end in .toml" in capsys.readouterr().err
    assert main(["init", "photos", "--out", "my own.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" tune --space 'my own.toml'")
    assert main(["tune", "--space", "my own.toml", "--dry-run"]) == 0
    assert main(["init", "photos", "--out", "my own.toml"]) == 2
    assert "--out my own.toml exists; choose another file" in capsys.readouterr().err


def test_what_other_programs_put_among_images_is_no_image(tmp_path):
    coloured_digits(tmp_path, 60)
    alone = read_folder(tmp_path, 0)
    for place in (tmp_path / "0" / "@eaDir" / "x.png", tmp_path / "__MACOSX" / "y.png"):
        place.parent.mkdir()
        place.write_bytes(next((tmp_path / "1").glob("*.png")).read_bytes())
    found = read_folder(tmp_path, 0)
    assert found.files == alone.files
    assert any("1 hidden file or folder" in note and "@eaDir" in note for note in found.notes)
    assert any("__MACOSX" in note for note in found.notes)


def test_two_spellings_of_one_name_are_not_two_classes(tmp_path):
    coloured_digits(tmp_path, 60)
    (tmp_path / "0").rename(tmp_path / unicodedata.normalize("NFC", "café"))
    (tmp_path / "1").rename(tmp_path / unicodedata.normalize("NFD", "café"))
    if len(list(tmp_path.iterdir())) == 10:  # a file system that tells them apart
        with pytest.raises(InputError, match="differ only in their Unicode normalisation"):
            read_folder(tmp_path, 0)


def test_a_model_is_not_judged_on_other_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = coloured_digits(tmp_path / "images", 200)
    (images / "1").rename(images / "one")
    attack = Attack(steps=Schedule(1, 1), epsilon=0.1, step_size=0.1)
    recipe = Recipe(task=Task(dataset=f"folder:{images}"), epochs=1, model=Model(width=4), attack=attack)
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, steps=1, masking_images=0))
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    with torch_threads(1):
        assert main(["train", "--recipe", "recipe.toml", "--out", "model", "--quiet"]) == 0
    assert load_model("model").classes == (*"023456789", "one")
    (images / "0").rename(images / "zero")
    capsys.readouterr()
    assert main(["evaluate", "--model", "model", "--images", "4"]) == 2
    told = capsys.readouterr().err
    assert "was trained on the classes 0, 2" in told
    assert told.count("\n") == 1
