"""`hcpr_tune plan` from the command line: what it writes, and that every mistake is one clear error before any work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from hcpr_tune.cli.main import main
from hcpr_tune.search.record.events.fields import Trained
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.search.suggestion.sampler import Suggester
from tests.conftest import SMALL_SPACE
from tests.simulation.plays import simulation

CSV = "run,epoch,score\n" + "".join(
    f"run{run},{epoch},{0.2 + 0.1 * epoch + 0.01 * run:.3f}\n" for run in range(8) for epoch in range(1, 5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A space, curves, and a study that was searched (under a virtual clock, with the record of a real one)."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    (folder / "curves.csv").write_text(CSV, encoding="utf-8")
    study = read_study(folder / "small.toml", [("budget.trials", 24), ("sampler.name", "random")])
    at = check_new(folder / "results", "old")
    create(at, study)
    record = Record(at.record, History(study.recipe.epochs, study.goal))
    trained = dict.fromkeys(Trained.__annotations__, 1) | {
        "attack_steps": 2,
        "device": "cpu",
        "precision": "float32",
        "worker": "here:1",
    }
    played = simulation(
        study,
        suggester=Suggester(study),
        listener=lambda event: record.append({**(trained if event["event"] == "epoch" else {}), **event}),
    )
    record.append({"event": "begin", "time": 0.0, "workers": 1, "versions": {}, "fingerprint": study.fingerprint})
    played.run()
    record.append({"event": "end", "time": played.state.seconds, "reason": "finished"})
    record.close()
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    yield
    shutil.rmtree(folder / "results" / "plans", ignore_errors=True)
    (folder / "new.toml").unlink(missing_ok=True)


def plan(capsys, *arguments):
    """The exit code and what was printed."""
    code = main(["plan", "--space", "small.toml", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_variants_are_compared_and_the_chosen_one_written(folder, capsys):
    arguments = ("--from", "results/old", "--workers", "3", "--repeats", "3")
    vary = ("--vary", "early_stopping.first_rung=1,2", "budget.trials=4,8")
    code, out, err = plan(capsys, *arguments, *vary, "--json", "--write", "new", "--out", "page.html")
    assert (code, err) == (0, "")
    plain = json.loads(out)
    assert len(plain["variants"]) == 4
    assert plain["repeats"] == 3
    assert plain["curves"] == {"from": "results/old (24 trials)", "guess": False}
    chosen = next(variant for variant in plain["variants"] if variant["variant"] == plain["chosen"])
    assert plain["chosen"] in plain["unbeaten"]
    study = read_study(folder / "new.toml")
    foreseen = study.settings.plan
    assert foreseen.workers == 3
    assert 3600 * foreseen.hours == pytest.approx(chosen["wall_clock_seconds"]["mean"], abs=0.02)
    assert f"budget.trials={study.settings.budget.trials}" in chosen["variant"]
    assert json.loads((folder / "page.json").read_text()) == {
        name: value for name, value in plain.items() if name not in ("page", "written")
    }
    assert "<html" in (folder / "page.html").read_text(encoding="utf-8")


def test_the_table_fits_and_says_where_the_page_is(capsys):
    code, out, _ = plan(capsys, "--from", "results/old", "--workers", "2", "--repeats", "2")
    assert code == 0
    assert "the unchanged space" in out
    page = next(line for line in out.splitlines() if line.startswith("page "))
    assert Path(page.split()[1]).is_file()


def test_without_anything_a_probe_is_made_and_the_guess_is_named(capsys):
    code, out, _ = plan(capsys, "--workers", "50", "--trials", "100", "--repeats", "2")
    assert code == 0
    words = " ".join(out.split())
    assert "the learning curves are a guess: trust the plan's times and costs" in words


def test_a_space_that_was_planned_is_a_space(capsys, folder):
    plan(capsys, "--curves", "curves.csv", "--epoch-seconds", "30", "--repeats", "2", "--write", "new.toml")
    assert read_study(folder / "new.toml").settings.plan.workers >= 1
    code, out, err = plan(capsys, "--curves", "curves.csv", "--repeats", "2", "--write", "new.toml")
    assert (code, out) == (2, "")
    assert "--write new.toml exists; choose another file, or delete it" in err


def test_a_record_is_replayed(capsys):
    code = main(["plan", "--replay", "results/old"])
    out = capsys.readouterr().out
    assert code == 0
    same, decisions = map(int, re.findall(r"decisions +(\d+) of (\d+) are the same", out)[0])
    assert same == decisions > 40
    assert "(+0.0 %)" in out
    assert main(["plan", "--replay", "results/old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["departs"] == ""


MISTAKES = {
    "no workers": (["--workers", "0"], "--workers must be a whole number of at least 1, got 0"),
    "negative workers": (["--workers", "-3"], "--workers must be a whole number of at least 1, got -3"),
    "more than the space allows": (
        ["--workers", "8", "--set", "resources.workers=4"],
        "--workers 8 is above resources.workers = 4",
    ),
    "no study": (["--from", "results/none"], '--from "results/none": there is no study in results/none; '),
    "another task": (
        ["--from", "results/old", "--set", "task.epsilon=0.1"],
        "--from results/old: its scores cannot be compared, its task.epsilon is 0.15, here it is 0.1",
    ),
    "another measure": (
        ["--from", "results/old", "--set", "evaluation.steps=9"],
        "its evaluation.steps is 3, here it is 9",
    ),
    "another network": (["--from", "results/old", "--set", "model.width=8"], "its model.width is 4, here it is 8"),
    "a rung without scores": (
        ["--from", "results/old", "--set", "early_stopping.first_rung=3"],
        "has no score at epoch 3, where a rung is (it has 1, 2, 4)",
    ),
    "a longer training": (["--curves", "curves.csv", "--set", "epochs=9"], "its last epoch is 4, but the last rung is"),
    "two accuracies": (
        ["--curves", "curves.csv", "--set", "constraints.clean_accuracy=0.5"],
        "--curves curves.csv has one score per epoch, but the study compares trials by clean and robust accuracy",
    ),
    "no such curves": (["--curves", "none.csv"], "--curves none.csv: there is no such file"),
    "vary a training": (["--vary", "hcpr.scale=4,8"], "cannot vary that"),
    "speeds": (["--speeds", "1,0"], "--speeds must be a number above 0, got 0"),
    "deaths": (["--deaths", "often"], "--deaths must be a number of at least 0, got often"),
    "repeats": (["--repeats", "0"], "--repeats must be at least 1, got 0"),
    "epoch seconds": (["--epoch-seconds", "0"], "--epoch-seconds must be a number above 0, got 0"),
    "out": (["--out", "page.png"], "--out page.png must end in .html"),
    "out in nowhere": (["--out", "no/where.html"], "there is no folder"),
    "replay and more": (["--replay", "results/old"], "--replay DIR takes no other option except --json"),
    "another schedule": (
        ["--from", "results/old", "--set", "lr_schedule.mode='single'"],
        "--from results/old: its scores are of another training, since its lr_schedule is not this study's",
    ),
    "no folder": (["--from", ""], "--from needs the folder of a study"),
    "too many workers": (["--workers", "1000000"], "--workers must be a whole number of at most 100000"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_a_way_out_and_nothing_is_written(mistake, capsys, folder):
    arguments, words = MISTAKES[mistake]
    before = sorted(folder.rglob("*"))
    code, out, err = plan(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
