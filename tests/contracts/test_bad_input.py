"""Every mistake on the command line: exit code 2, one line on stderr, nothing written, nothing started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT, SMALL_SPACE

MISTAKES = {
    "unknown space": (["--space", "nope"], '--space "nope" is unknown; known: baselines, cifar10, '),
    "empty space": (["--space", ""], '--space "" is unknown'),
    "no such file": (["--space", "no/such.toml"], "there is no such file"),
    "no TOML": (["--space", "broken.toml"], "broken.toml is not valid TOML"),
    "unknown key": (["--set", "budget.trails=3"], "did you mean budget.trials?"),
    "wrong type": (["--trials", "many"], 'budget.trials must be a whole number, got "many"'),
    "out of range": (["--trials", "0"], "budget.trials must be at least 1"),
    "low above high": (["--set", "search.hcpr.scale.low=20"], "must be below high = 16, got 20"),
    "no field": (["--set", "search.hcpr.scle={low=1.0,high=2.0}"], "did you mean search.hcpr.scale?"),
    "no assignment": (["--set", "budget.trials"], "--set must be dotted.name=value"),
    "bad name": (["--name", "../up"], "a study's name must be"),
    "unwritable storage": (["--storage", "small.toml/below"], "small.toml is not a folder that you can write to"),
    "resume nothing": (["--resume", "nothing"], "there is no study in results/nothing"),
    "resume and set": (["--resume", "x", "--seed", "3"], "--resume continues the study as it was begun"),
    "audit without resume": (["--audit", "2"], "--audit goes with --resume NAME"),
    "epochs without resume": (["--epochs", "+9"], "--epochs goes with --resume NAME; set recipe.epochs"),
    "probe without dry run": (["--probe"], "--probe goes with --dry-run"),
    "json of a dry run": (["--json", "--dry-run"], "--json tells of a search that runs here"),
    "more calibration than trials": (
        ["--set", "early_stopping.calibration=9"],
        "early_stopping.calibration must be at most budget.trials = 4, got 9",
    ),
    "rung above the end": (["--set", "early_stopping.first_rung=9"], "first_rung must be at most recipe.epochs = 4"),
    "reduction factor": (["--set", "early_stopping.reduction_factor=1"], "reduction_factor must be above 1"),
    "too many brackets": (["--set", "early_stopping.brackets=4"], "brackets must be at most the number of rungs, 3"),
    "unknown condition": (
        ["--set", 'search.hcpr.margin={low=0.0,high=0.4,when={method="trades"}}'],
        "search.hcpr.margin.when.method is not a dimension of the search",
    ),
    "sampler": (["--set", "sampler.name='best'"], "sampler.name must be one of tpe, random, qmc, gp, nsgaii"),
    "sampler without rungs": (
        ["--set", "sampler.name='optuna.samplers:BruteForceSampler'"],
        "cannot search this study",
    ),
    "warm start from nothing": (["--warm-start", "nowhere"], '--warm-start "nowhere": there is no study'),
    "split": (["--set", "task.validation_fraction=0.001"], "out of a split; choose fractions"),
    "no data": (["--set", "task.dataset='cifar10'"], "run: hcpr_tune data cifar10 --root /"),
    "no cluster": (["--address", "127.0.0.1:9"], "no Ray cluster answers at --address 127.0.0.1:9"),
    "no address": (["--address", "somewhere"], "--address must be HOST:PORT or auto"),
    "unknown option": (["--frobnicate"], "unrecognized arguments: --frobnicate; see hcpr_tune tune --help"),
    "misspelt option": (["--trails", "3"], "did you mean --trials? See hcpr_tune tune --help"),
    "misspelt choice": (["--log-to", "mlfow"], "argument --log-to: 'mlfow' is unknown; did you mean mlflow?"),
    "misspelt space": (["--space", "defalt"], '--space "defalt" is unknown; did you mean default? known: baselines, '),
    "misspelt file": (["--space", "smal.toml"], "there is no such file; did you mean small.toml?"),
    "folder without a study": (["--space", "./"], "--space ./ is a folder without a study"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    (tmp_path / "broken.toml").write_text("a = = 3", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, folder, command):
    arguments, words = MISTAKES[mistake]
    space = [] if "--space" in arguments or "--resume" in arguments else ["--space", "small.toml"]
    done = command("tune", *space, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["broken.toml", "small.toml"]


def test_a_dry_run_says_the_rungs_and_the_cost_and_writes_nothing(folder, command):
    done = command("tune", "--space", "small.toml", "--dry-run")
    assert done.returncode == 0
    assert "# rungs: epochs 1, 2, 4" in done.stdout
    assert "# cost: at most 16 epochs, usually about 10" in done.stdout
    assert not (folder / "results").exists()


def test_a_changed_study_is_not_resumed(folder, command, small_study):
    from hcpr_tune.search.record.record import Record
    from hcpr_tune.search.spec.study import study_to_plain
    from hcpr_tune.search.storage.studies import check_new, create

    study_folder = check_new(folder / "results", "begun")
    record = Record(study_folder.record, create(study_folder, small_study).history)
    begin = {"event": "begin", "time": 0.0, "versions": {}, "workers": 1, "fingerprint": small_study.fingerprint}
    record.append(begin | {"study": study_to_plain(small_study)})
    record.close()
    text = study_folder.study.read_text(encoding="utf-8")
    study_folder.study.write_text(text.replace("batch_size = 128", "batch_size = 64"), encoding="utf-8")
    done = command("tune", "--resume", "begun")
    assert done.returncode == 2
    assert "study.toml was changed since the study began: recipe.batch_size was 128, is 64; undo that" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda path: path.stem)
def test_each_script_is_the_command_of_its_name(path, folder):
    done = subprocess.run([sys.executable, path, "--help"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {path.stem} [-h]" in done.stdout
