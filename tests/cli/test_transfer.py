"""`hcpr_tune transfer` from the command line: what it prints, writes, and refuses."""

from __future__ import annotations

import pytest

from hcpr_tune.cli import main as cli
from hcpr_tune.search.spec.study_file import read_study
from tests.conftest import ROOT
from tests.views.kinds import kind
from tests.written import written


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with a study of digits in results/small and one without a score."""
    monkeypatch.chdir(tmp_path)
    for name, words in (("small", "500 trials"), ("empty", "all failed")):
        study, events = kind(words)
        written(tmp_path / "results", name, study, events)
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_study_of_digits_narrows_the_search_on_cifar10(folder, capsys):
    assert cli.main(["transfer", "small", "--to", "cifar10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("trial ")
    assert lines[1].split() == ["dimension", "winner", "centre", "strength"]
    scale = next(line.split() for line in lines if line.startswith("hcpr.scale"))
    assert lines[-1].startswith("wrote cifar10-from-small.toml; look at it, then: ")
    assert lines[-1].endswith("hcpr_tune tune --space cifar10-from-small.toml")
    made = read_study(folder / "cifar10-from-small.toml")
    prior = made.space["hcpr.scale"].prior
    assert prior is not None
    assert scale[1:] == [f"{prior.centre:.3g}", f"{prior.centre:.3g}", f"{prior.strength:.2f}"]
    assert cli.main(["tune", "--space", "cifar10-from-small.toml", "--dry-run"]) == 0
    assert f"centre = {prior.centre}" in capsys.readouterr().out


def test_it_goes_into_search_spaces_where_there_is_one_and_can_be_named_then(folder, capsys):
    (folder / "search_spaces").mkdir()
    assert cli.main(["transfer", "small", "--to", str(ROOT / "search_spaces/svhn.toml"), "--trial", "3"]) == 0
    assert capsys.readouterr().out.startswith("trial 3 of small: robust accuracy ")
    assert (folder / "search_spaces/svhn-from-small.toml").is_file()
    assert cli.main(["tune", "--space", "svhn-from-small", "--dry-run"]) == 0


def test_what_was_clipped_dropped_and_left_is_printed(folder, capsys):
    text = (ROOT / "search_spaces/default.toml").read_text(encoding="utf-8")
    text = text.replace('"hcpr.scale" = { low = 4.0, high = 16.0', '"hcpr.scale" = { low = 7.9, high = 8.1')
    text = text.replace('"hcpr.margin" = { low = 0.0, high = 0.4 }', "")
    (folder / "narrow.toml").write_text(text, encoding="utf-8")
    assert cli.main(["transfer", "small", "--to", "narrow.toml", "--trial", "1", "--out", "new.toml"]) == 0
    out = capsys.readouterr().out
    assert "clipped to the end of 7.9 to 8.1" in out
    assert "hcpr.margin is not searched there and stays 0.2 (winner: 0." in out
    assert "clipped to the end of 7.9 to 8.1" in (folder / "new.toml").read_text(encoding="utf-8")


def test_trial_0_of_a_space_into_itself_adds_no_point(folder, capsys):
    assert cli.main(["transfer", "small", "--to", "default", "--trial", "0"]) == 0
    assert "no first point: these are the values of the recipe of " in capsys.readouterr().out
    assert read_study(folder / "default-from-small.toml").first_points == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--to", "cifar10"], 'transfer "nothing": there is no study in results/nothing; known there: '),
        (["empty", "--to", "cifar10"], 'transfer "empty": none of its 12 trials has a score'),
        (["small", "--to", "nope"], '--to "nope" is unknown; known: '),
        (["small", "--to", "no/such.toml"], "--to no/such.toml: there is no such file"),
        (["small", "--to", "cifar10", "--trial", "9999"], "--trial must be a trial of small, 0 to 499, got 9999"),
        (["small", "--to", "other.toml"], "--to other.toml shares no dimension with the study"),
        (["small", "--to", "cifar10", "--out", "other.toml"], "--out other.toml exists; choose another file"),
        (["small", "--to", "cifar10", "--out", "a/b.toml"], "--out a/b.toml: there is no folder "),
        (["small", "--to", "cifar10", "--out", "space"], "--out space must end in .toml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, folder, capsys):
    (folder / "other.toml").write_text("[search]\nlabel_smoothing = { low = 0.0, high = 0.2 }\n", encoding="utf-8")
    before = files(folder)
    assert cli.main(["transfer", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert files(folder) == before


def test_a_second_time_is_refused(folder, capsys):
    assert cli.main(["transfer", "small", "--to", "cifar10"]) == 0
    text = (folder / "cifar10-from-small.toml").read_text(encoding="utf-8")
    assert cli.main(["transfer", "small", "--to", "cifar10", "--trial", "0"]) == 2
    assert "--out cifar10-from-small.toml exists" in capsys.readouterr().err
    assert (folder / "cifar10-from-small.toml").read_text(encoding="utf-8") == text
