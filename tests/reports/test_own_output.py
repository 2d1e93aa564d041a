"""Standard output belongs to the product, and what a user's code raises or says cannot break what is written."""

from __future__ import annotations

import json
import sys
import tomllib

import pytest

from hcpr_tune.common.text import clean, encodable, first_line, named, one_line
from hcpr_tune.execution.trainable import REPORT, TrainJob
from tests.reports.foreign import foreign_model, module_in, ran


@pytest.fixture(autouse=True)
def module_of_this_test(monkeypatch):
    """Each test imports the module from its own folder."""
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    yield
    sys.modules.pop("theirs", None)


STEER = "a\x1b[31mb\x07\x00\ud800\u202e\r"


def test_text_of_others_keeps_its_letters_and_loses_what_steers_a_terminal():
    assert clean(STEER) == r"a\x1b[31mb\x07\x00\ud800\u202e\r"
    assert clean("two\nlines\tand größer") == "two\nlines\tand größer"
    assert one_line("two\n lines" + "x" * 1000, 20) == "two linesxxxxxxx ..."
    assert json.loads(json.dumps(encodable({"a": ["\ud800", 1]}))) == {"a": ["\\ud800", 1]}


def test_an_error_that_cannot_say_its_message_is_named_all_the_same():
    class Odd(Exception):
        def __str__(self):
            raise SystemExit(3)

    assert named(Odd()) == "Odd: (its message cannot be read: SystemExit)"
    assert first_line(ValueError("\n\nlater")) == "later"
    assert first_line(ValueError()) == "ValueError"


def test_a_dry_run_prints_a_space_and_nothing_of_what_others_print(tmp_path):
    module_in(tmp_path)
    done = ran("tune", "--set", "sampler.name=theirs:sampler", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout.decode())["sampler"]["name"] == "theirs:sampler"
    assert b"words of a module" in done.stderr
    assert b"\xff bytes of a module" in done.stderr
    assert b"words of a thread" in done.stderr
    assert b"last words of a module" in done.stderr


def test_json_of_an_evaluation_is_alone_on_standard_output(tmp_path):
    module_in(tmp_path)
    done = ran("evaluate", "--model", foreign_model(tmp_path), "--trust", "--images", "20", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["attack"] == "margin-3"
    assert b"words of a factory" in done.stderr


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("leaves", "model.name theirs:leaves: calling it with classes=10, channels=1 ended with SystemExit: enough"),
        ("ctrl_c", "ended with KeyboardInterrupt: mine"),
        ("odd", "ended with Odd: (its message cannot be read: SystemExit)"),
        ("half", r"raised ValueError: half \ud800 of it, \x1b]0;a title\x07 and \x00; fix it"),
    ],
)
def test_a_factory_that_ends_the_process_or_speaks_in_riddles_is_named(factory, words, tmp_path, monkeypatch, capsys):
    from hcpr_tune.cli.main import main

    module_in(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'epochs = 1\nmethod = "pgd_at"\nmodel = {{ name = "theirs:{factory}", head = "linear" }}\n')
    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1]
    assert "\x1b" not in said
    assert not (tmp_path / "out").exists()


def test_a_sampler_that_leaves_in_mid_search_ends_it_by_its_name(tmp_path, monkeypatch):
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.spec.study_file import read_study
    from hcpr_tune.search.suggestion.sampler import Suggester
    from hcpr_tune.training.plugins import PluginError
    from tests.conftest import SMALL_SPACE

    module_in(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    space = tmp_path / "own.toml"
    space.write_text(SMALL_SPACE.replace("[search]", '[sampler]\nname = "theirs:leaving_sampler"\n\n[search]'))
    study = read_study(space)
    history = History(study.recipe.epochs, study.goal)
    with pytest.raises(
        PluginError, match="theirs:leaving_sampler: suggesting trial 7 ended with SystemExit: no more points"
    ):
        Suggester(study)._of_user(7, 0, history)


def test_a_model_that_leaves_in_an_epoch_is_named_by_train(tmp_path, monkeypatch, capsys):
    from hcpr_tune.cli.main import main

    module_in(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('epochs = 1\nmethod = "pgd_at"\nmodel = { name = "theirs:leaves_later", head = "linear" }\n')
    assert main(["train", "--recipe", "recipe.toml", "--out", "out"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in said
    assert said[-1].startswith(
        "hcpr_tune: error: the model or the method ended with SystemExit: in an epoch (theirs.py, line"
    )


def job(recipe, folder):
    order = {
        "kind": "train", "study": "s", "name": "t", "values": "", "recipe": recipe, "start": 0, "end": 1, "reported": 0,
        "checkpoints": str(folder), "checkpoint_every": 1, "gpus": 0,
    }  # fmt: skip
    return TrainJob({"job": json.dumps(order)})


@pytest.mark.parametrize(
    ("factory", "words"), [("leaves_later", "ended with SystemExit: in an epoch (theirs.py, line"), ("half", r"\ud800")]
)
def test_a_worker_survives_what_a_model_does_and_reports_it_in_letters(factory, words, tmp_path, monkeypatch, capsys):
    module_in(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = {"epochs": 1, "method": "pgd_at", "model": {"name": f"theirs:{factory}", "head": "linear"}}
    worker = job(recipe, tmp_path / "checkpoints")
    report = json.loads(worker.step()[REPORT])
    assert report["end"]["status"] == "failed"
    assert words in report["end"]["reason"]
    json.dumps(report, ensure_ascii=False).encode()
    worker.cleanup()
