"""Real verdicts: real trainings and attacks on a real Ray, killed in the middle, compared with an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import hcpr_tune
from hcpr_tune.cli.main import main
from hcpr_tune.execution.connection.capacity import Share
from hcpr_tune.search.record.lines import sealed_row, unsealed
from hcpr_tune.search.storage.studies import reopen
from hcpr_tune.training.attacks.evaluation import evaluate
from hcpr_tune.training.data.dataset import load_data
from hcpr_tune.training.loop import torch_threads
from hcpr_tune.training.models.classifier import build_model, load_weights
from hcpr_tune.training.recipe import recipe_from_plain
from hcpr_tune.verdict.plan import Candidate, Plan
from hcpr_tune.verdict.run import carry_out
from hcpr_tune.views.verdicts import verdict_lines
from tests.cluster.here import shared_ray
from tests.cluster.test_faults import follow
from tests.cluster.test_search import in_folder, launched, search
from tests.conftest import ROOT, SMALL_SPACE, coloured_digits, run_here, without_dashboard

pytestmark = pytest.mark.cluster

ALL_TO_THE_END = SMALL_SPACE.replace("[early_stopping]", '[early_stopping]\nmethod = "none"').replace(
    "trials = 4", "trials = 3"
)


def on_images(folder: Path) -> str:
    """The same search on the images of a folder."""
    return ALL_TO_THE_END.replace('dataset = "digits"', f'dataset = "folder:{folder}"')


NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")


def named_digits(folder: Path) -> Path:
    """Digits in colour, in folders with names that are no numbers, in the digits' order."""
    coloured_digits(folder)
    for digit, name in enumerate(NAMES):
        (folder / str(digit)).rename(folder / name)
    return folder


FEW = {"finalists": 1, "seeds": 1, "images": 40, "test_images": 20, "chunk": 20}
"""One seed, and few images: AutoAttack's time on so small a network is that of its steps."""


def few(**more: int) -> list[str]:
    return [part for name, value in (FEW | more).items() for part in (f"--{name.replace('_', '-')}", str(value))]


QUICK = few()
NOTHING_SURVIVES = ("--set", "task.epsilon=0.6")
"""Where the numbers do not matter: attacks end as soon as nothing is left."""
UNLIKE = ("written", "study", "fingerprint", "workers", "worker_seconds", "test_accesses", "versions")
"""Values of a verdict that tell when and where it was made."""


def verdict(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """In this process, on its Ray."""
    shared_ray()
    return run_here(folder, "verdict", *arguments)


def verdict_apart(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with its own Ray, whose workers find the modules in the folder."""
    command = [sys.executable, str(ROOT / "launch" / "verdict.py"), *without_dashboard(arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def judged(
    folder: Path, *arguments: str | Path, run: Callable[..., subprocess.CompletedProcess[str]] = verdict
) -> dict[str, Any]:
    """The verdict as plain values."""
    done = run(folder, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    plain: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return plain


def numbers(plain: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when and where a verdict was made."""
    kept = {name: value for name, value in plain.items() if name not in UNLIKE and name != "news"}
    for candidate in kept["candidates"]:
        for model in candidate["models"]:
            model.pop("seconds", None)
    return kept


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search on colour images whose trials all completed, and what it printed, its small verdict included."""
    folder = tmp_path_factory.mktemp("searched")
    in_folder(folder, on_images(named_digits(folder / "images")))
    done = search(folder, "--space", "small.toml", "--name", "one", "--set", "verdict.seconds_at_end=60")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture(scope="module")
def whole(searched, tmp_path_factory):
    """The folder of a full verdict with the test images that nothing happened to, and its values."""
    folder = copied(searched[0], tmp_path_factory.mktemp("whole"))
    return folder, judged(folder, "one", *QUICK, "--test")


def copied(source: Path, target: Path, with_verdict: bool = False) -> Path:
    shutil.copytree(source / "results", target / "results")
    if not with_verdict:
        shutil.rmtree(target / "results" / "one" / "verdict", ignore_errors=True)
    return target


def test_a_search_ends_with_a_small_verdict_on_validation_images(searched):
    folder, done = searched
    plain = hcpr_tune.load(folder / "results" / "one").verdict_result
    assert plain["size"] == "small"
    assert plain["settled"]
    assert list(plain["splits"]) == ["validation"]
    told = flat(done.stdout)
    assert "UNFINISHED" not in told
    assert "attacked in chunks of" in told
    if plain["unfinished"]:  # a machine too slow for a minute says so
        assert "Whether the search gained anything is not known: " in told
        assert "within 55 seconds" in told
    else:
        numbers = plain["splits"]["validation"]
        assert 0 < numbers["images"] <= numbers["of"]
        assert f"on {numbers['images']} validation images" in told
        assert {*numbers["candidates"]} == {one["name"] for one in plain["candidates"]}
    seeds = {model["seed"] for one in plain["candidates"] for model in one["models"]}
    assert 0 not in seeds, "the search trained with seed 0"
    assert "The test images were not used." in done.stdout
    assert not [e for e in events_of(folder / "results" / "one") if e["event"].startswith("test_")]


def flat(printed: str) -> str:
    """What was printed, without the line breaks of the terminal."""
    return " ".join(printed.split())


def test_what_runs_when_the_time_is_over_is_abandoned(tmp_path):
    folder = in_folder(tmp_path)
    assert search(folder, "--space", "small.toml", "--name", "one", "--trials", "1").returncode == 0
    study = reopen(str(folder / "results"), "one", "verdict ")
    recipe = study.spec.recipe.replace({"model.name": "tests.slow:minutes"})
    seconds = 15.0
    plan = Plan((Candidate("published", "published", recipe, 0),), study.spec.goal, size="small", seconds=seconds)
    began = time.monotonic()
    plain = carry_out(study, plan, Share(1, 1.0, 0.0), "")
    assert time.monotonic() - began < seconds + 45, "an epoch lasts nine minutes"
    assert plain["settled"]
    assert verdict_lines(plain)[0] == (
        "Whether the search gained anything is not known: published was not trained to its end within 15 seconds."
    )
    *_, job_end, end = events_of(folder / "results" / "one" / "verdict")
    assert (job_end["status"], end["reason"]) == ("broken off", "finished")
    # The worker is gone, and its place is free: the next verdict on this Ray needs no more time.
    again = replace(
        plan, candidates=(Candidate("published", "published", study.spec.recipe, 0),), seeds=1, other_seeds=1
    )
    again = replace(again, seconds=100.0, images=20, cascade="first")
    plain = carry_out(reopen(str(folder / "results"), "one", "verdict "), again, Share(1, 1.0, 0.0), "")
    assert verdict_lines(plain)[0].startswith("The best recipe of the search is the published one itself")
    assert plain["splits"]["validation"]["images"] == 20


def test_the_test_images_are_opened_once_last_and_on_record(whole):
    folder, plain = whole
    study, events = events_of(folder / "results" / "one"), events_of(folder / "results" / "one" / "verdict")
    opened, seen = [event for event in study if event["event"].startswith("test_")]
    assert (opened["event"], opened["number"], seen["event"]) == ("test_access", 1, "test_numbers")
    assert "--test" in opened["command"]
    steps = [event for event in events if event["event"] == "step"]
    last_on_validation = max(e["time"] for e in steps if e["scope"].startswith("validation"))
    first_on_test = min(e["time"] for e in steps if e["scope"].startswith("test"))
    assert last_on_validation <= opened["time"] <= first_on_test
    shown = plain["splits"]["test"]["candidates"]
    assert seen["numbers"] == {name: one["robust_accuracy"]["mean"] for name, one in shown.items()}
    fresh = {e["model"]: e["candidate"] for e in events if e["event"] == "model" and e["seed"] > 1000}
    assert set(fresh.values()) == {plain["winner"], plain["baseline"]}, "models of seeds that chose nothing"
    assert {e["model"] for e in steps if e["scope"].startswith("test")} == set(fresh)
    assert set(shown) <= set(fresh.values()), "one that collapsed in so short a training is in no mean"


@pytest.mark.long
def test_what_was_done_is_not_done_again_and_more_counts_as_another_opening(whole, tmp_path):
    folder = copied(whole[0], tmp_path, with_verdict=True)
    own = folder / "results" / "one" / "verdict"
    before = [event for event in events_of(own) if event["event"] == "job"]
    again = judged(folder, "one", *QUICK, "--test")
    assert numbers(again) == numbers(whole[1])
    assert [event for event in events_of(own) if event["event"] == "job"] == before
    assert len(again["test_accesses"]) == 1
    more = judged(folder, "one", *few(seeds=2), "--other-seeds", "1", "--test", *NOTHING_SURVIVES)
    assert len(more["test_accesses"]) == 2
    for path in (own / "verdict.md", own / "model_card.md", folder / "results" / "one" / "report.html"):
        assert "used 2 times" in path.read_text()
    jobs = [event["job"] for event in events_of(own) if event["event"] == "job"]
    assert len(set(jobs)) == len(jobs), "something was done twice"
    assert {len(one["of_each_seed"]) for one in more["splits"]["test"]["candidates"].values()} == {2}


def test_looking_at_the_test_images_by_evaluate_counts_too(whole, tmp_path):
    copied(whole[0], tmp_path, with_verdict=True)
    done = run_here(tmp_path, "evaluate", "--model", "results/one/verdict", "--split", "test", "--images", "40")
    assert done.returncode == 0, done.stderr
    study = hcpr_tune.load(tmp_path / "results" / "one")
    assert [one["number"] for one in study.history.test_accesses] == [1, 2]
    assert len(study.verdict_result["test_accesses"]) == 2
    for name in ("verdict.md", "model_card.md"):
        assert "used 2 times" in (tmp_path / "results" / "one" / "verdict" / name).read_text()


def test_evaluate_runs_autoattack_on_colour_images(whole, tmp_path):
    copied(whole[0], tmp_path, with_verdict=True)
    words = ("--model", "results/one/verdict", "--attack", "autoattack", "--images", "20", "--json")
    done = run_here(tmp_path, "evaluate", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["robust_accuracy_validation"]["total"] == 20
    assert found["robust_accuracy_validation"]["count"] <= found["clean_accuracy_validation"]["count"]


def test_what_one_takes_away_is_the_winner_and_can_be_trained_again(whole, tmp_path):
    folder, plain = whole
    own = folder / "results" / "one" / "verdict"
    model = hcpr_tune.load_model(own)
    metrics = json.loads((own / "metrics.json").read_text())
    recipe = recipe_from_plain(
        next(one["recipe"] for one in plain["candidates"] if one["name"] == plain["winner"]), "winner"
    )
    data = load_data(recipe.task)
    images = data.validation.fetch(torch.arange(32))
    assert not model.training
    assert model(images).equal(model(images))
    best = max(plain["splits"]["validation"]["candidates"][plain["winner"]]["robust_accuracy"]["per_seed"])
    assert metrics["robust_accuracy_validation"]["share"] == best
    done = run_here(tmp_path, "train", "--recipe", own / "recipe.toml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (own / "model.safetensors").read_bytes()


def test_the_names_of_the_class_folders_go_with_all_that_is_taken_away(whole, tmp_path):
    folder, plain = whole
    root = folder / "results" / "one"
    study = hcpr_tune.Study.open(root)
    for model in (hcpr_tune.load_model(root / "best"), hcpr_tune.load_model(root / "verdict"), study.load_model()):
        assert model.classes == NAMES
    states = list(root.glob("**/state.pt"))
    assert states
    assert all(torch.load(path, weights_only=True)["class_names"] == [*NAMES] for path in states)
    assert set(plain["splits"]["validation"]["pairs"]["after"]["by_class"]) <= {*NAMES}
    assert f"10 classes ({', '.join(NAMES)})" in (root / "verdict" / "model_card.md").read_text(encoding="utf-8")
    shown = [word for label in study.figure("pairs").data[0].y for word in label.split(" → ")]
    assert shown
    assert {*shown} <= {*NAMES}
    session = onnxruntime.InferenceSession(study.export(tmp_path / "model.onnx"))
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["class_names"] == [*NAMES]
    assert metadata["threat_model"] == {"norm": "linf", "epsilon": 0.15}
    of_file = json.loads((root / "verdict" / "metrics.json").read_text())
    assert metadata["scores"]["robust_accuracy_validation"] == of_file["robust_accuracy_validation"]
    assert metadata["scores"]["attacks_validation"] == of_file["attacks_validation"]
    done = run_here(folder, "evaluate", "--model", "results/one/verdict", "--images", "20", "--json")
    assert {pair["true"] for pair in json.loads(done.stdout)["hard_pairs"]} <= {*NAMES}


@pytest.mark.faults
def test_a_killed_worker_and_a_killed_driver_end_with_the_same_verdict_on_one_worker(
    whole, searched, background, tmp_path
):
    folder = copied(searched[0], tmp_path)
    study, own = folder / "results" / "one" / "study.toml", folder / "results" / "one" / "verdict"
    study.write_text(study.read_text().replace("workers = 0", "workers = 1"))
    process = background("verdict", "one", *QUICK, "--test", "--dashboard-host", "none")
    events = follow(own / "record.jsonl", lambda events: any(e["event"] == "step" for e in events), process)
    os.kill(next(int(e["worker"].rpartition(":")[2]) for e in events if e["event"] == "step"), signal.SIGKILL)
    refused = verdict(folder, "one", *QUICK)
    assert refused.returncode == 2
    assert "is being searched by process" in refused.stderr
    follow(own / "record.jsonl", lambda events: any(e.get("attack") == "fab-t" for e in events), process)
    process.kill()
    process.communicate()
    assert numbers(judged(folder, "one", *QUICK, "--test")) == numbers(whole[1])
    events = events_of(own)
    assert any(e["event"] == "job_end" and e["status"] == "worker died" for e in events)
    steps = [(e["model"], e["scope"], e["chunk"], e["attack"]) for e in events if e["event"] == "step"]
    assert len(steps) == len(set(steps)), "an attack on a batch that was recorded was done again"


@pytest.mark.long
def test_damaged_weights_are_trained_again(whole, tmp_path):
    folder = copied(whole[0], tmp_path, with_verdict=True)
    own = folder / "results" / "one" / "verdict"
    for path in own.glob("checkpoints/*/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-7])
    plain = judged(folder, "one", *few(images=20))
    assert plain["settled"]
    assert not any(one["lost"] for one in plain["candidates"])
    assert (own / "model.safetensors").is_file()
    assert any(e.get("status") == "weights damaged" for e in events_of(own))


MASKED = """
import torch
from torch import nn
from hcpr_tune.training.models.architectures import CosineHead, SmallCnn


class Masked(nn.Module):
    '''Logits that saturate the softmax: cross-entropy has no gradient, so attacks on it find nothing.'''

    def __init__(self, classes, channels):
        super().__init__()
        self.network = SmallCnn(channels, 4, lambda features: CosineHead(features, classes))

    def forward(self, images):
        logits = self.network(images)
        return logits if self.training else 1e6 * logits


def masked(classes, channels):
    return Masked(classes, channels)
"""
PLANTED = """
[[first_points]]
"model.name" = "planted:masked"
"""


def test_a_planted_masked_recipe_that_wins_under_cross_entropy_is_caught(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(MASKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    space = ALL_TO_THE_END.replace("trials = 3", "trials = 2").replace("steps = 2", "steps = 5") + PLANTED
    space = space.replace('"pace.shape"', '"model.name" = { choices = ["small_cnn", "planted:masked"] }\n"pace.shape"')
    folder = in_folder(tmp_path, space)
    done = launched(folder, "--space", "small.toml", "--name", "one", "--set", "epochs=8")
    assert done.returncode == 0, done.stderr
    plain = judged(folder, "one", *few(finalists=2, images=60, chunk=60), run=verdict_apart)
    honest, planted = (next(e for e in plain["candidates"] if e["trial"] == number) for number in (0, 1))
    assert naive(folder, planted) > naive(folder, honest) + 0.1, (
        "cross-entropy is not fooled: there is nothing to catch"
    )
    assert plain["winner"] == honest["name"]
    assert any("gradient" in reason or "cross-entropy" in reason for reason in planted["unreliable"])
    assert honest["unreliable"] == []
    assert f"{planted['name']} is unreliable and cannot win" in (folder / "results/one/verdict/verdict.md").read_text()


def naive(folder: Path, candidate: dict[str, Any]) -> float:
    """The share that survives PGD on cross-entropy."""
    recipe, model = recipe_from_plain(candidate["recipe"], "candidate"), candidate["models"][0]
    data = load_data(recipe.task)
    network = build_model(recipe.network, data.channels, data.classes, 0, data.image_size)
    weights = (
        folder / f"results/one/verdict/checkpoints/model_{model['id']}/epoch_{model['epoch']:04d}/model.safetensors"
    )
    load_weights(network, weights)
    with torch_threads(1):
        found = evaluate(network.eval(), data.validation, recipe.task, recipe.evaluation, data.classes, "cross_entropy")
    return found.robust_correct / found.total


@pytest.mark.long
def test_a_model_from_elsewhere_is_judged_on_its_own(whole, tmp_path):
    shutil.copyfile(whole[0] / "results" / "one" / "best" / "model.safetensors", tmp_path / "mine.safetensors")
    folder = in_folder(tmp_path, on_images(coloured_digits(tmp_path / "images")))
    own = ("--model", "mine.safetensors", "--arch", "small_cnn", "--set", "model.head=cosine", "--set", "model.width=4")
    plain = judged(folder, *own, "--space", "small.toml", *few(images=20), "--test")
    assert plain["winner"] == "model mine"
    assert plain["splits"]["test"]["images"] == 20
    assert len(plain["test_accesses"]) == 1
    assert plain["candidates"][0]["unreliable"] == []
    model = hcpr_tune.load_model(folder / "results" / plain["study"] / "verdict")
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.long
def test_a_baseline_gets_the_same_worker_seconds(whole, tmp_path):
    folder = copied(whole[0], tmp_path, with_verdict=True)
    plain = judged(folder, "one", *QUICK, *NOTHING_SURVIVES, "--compare", "trades")
    ours, theirs = (hcpr_tune.load(folder / "results" / name) for name in ("one", "one-vs-trades"))
    assert theirs.history.worker_seconds >= ours.history.worker_seconds
    assert theirs.study.recipe.method == "trades"
    compared = [one for one in plain["candidates"] if one["role"] == "compared"]
    assert [one["name"].split(",")[0] for one in compared] == ["trades"]
    assert compared[0]["name"] in plain["splits"]["validation"]["differences"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "--finalists", "9"], "--finalists must be at most the 3 trials that reached their last epoch, got 9"),
        (["one", "--compare", "sgd"], "--compare must name methods of"),
        (["one", "--compare", "hcpr"], "--compare must name methods of"),
        (["one", "--model", "nothing.pt", "--arch", "small_cnn"], "--model nothing.pt: there is no such file"),
        (["one", "--model", "nothing.pt"], "--model PATH and --arch NAME go together"),
        (["one", "--space", "default"], "--space goes with --model"),
        (["one", "--seeds", "0"], "seeds must be at least 1"),
        (["one", "--set", "optimiser.lrr=1"], "optimiser.lrr"),
        (["one", "--set", "task.dataset=svhn", "--test"], "the files of svhn are not in task.root"),
        (["two"], "there is no study"),
        ([], "name a study"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(whole, monkeypatch, capsys, arguments, words):
    folder = whole[0]
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert main(["verdict", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert words in told.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_verdict_of_another_version_and_a_study_without_a_complete_trial_are_refused(
    whole, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(copied(whole[0], tmp_path, with_verdict=True))
    record = Path("results/one/verdict/record.jsonl")
    lines = record.read_bytes()
    begin, *rest = map(unsealed, lines.splitlines())
    record.write_bytes(sealed_row([begin | {"format": 99}, *rest]))
    assert main(["verdict", "one"]) == 2
    assert "it is of format 99, this version reads" in (told := capsys.readouterr().err)
    assert "move the folder results/one/verdict away" in told
    events = [event for event in events_of(Path("results/one")) if event["event"] in ("begin", "end")]
    for event in events:
        del event["crc32"], event["after"]
    Path("results/one/record.jsonl").write_bytes(sealed_row(events))
    shutil.rmtree(record.parent)
    assert main(["verdict", "one"]) == 2
    assert "no trial of this study reached its last epoch" in capsys.readouterr().err
    assert not record.parent.exists()
