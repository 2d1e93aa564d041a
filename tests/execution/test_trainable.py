"""A worker reports what goes wrong in training; nothing of it reaches Ray as an exception."""

from __future__ import annotations

import json
import os
import platform
import sys
from types import SimpleNamespace

import pytest

from hcpr_tune.common.settings import to_plain
from hcpr_tune.execution.search_jobs import values_words
from hcpr_tune.execution.trainable import REPORT, TrainJob
from hcpr_tune.search.scheduling.orders import read_report


@pytest.fixture
def job(small_study, tmp_path):
    return {
        "kind": "train",
        "study": "one",
        "name": "study one: trial 0",
        "values": "scale=8",
        "recipe": to_plain(small_study.recipe),
        "start": 0,
        "end": 2,
        "gpus": 0.0,
        "reported": 0,
        "checkpoint_every": 1,
        "checkpoints": str(tmp_path / "trial_0000"),
    }


def steps(worker):
    """Reports of a whole job."""
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    return [read_report(result[REPORT]) for result in results]


def test_a_job_reports_each_epoch_and_its_end(job):
    worker = TrainJob({"job": json.dumps(job)})
    reports = steps(worker)
    assert [report["epoch"]["epoch"] for report in reports] == [1, 2]
    assert ["end" in report for report in reports] == [False, True]
    assert reports[1]["end"]["splits"].keys() == {"train", "validation"}


def test_the_next_job_on_the_same_process_goes_on_from_the_checkpoint(job):
    worker = TrainJob({"job": json.dumps(job)})
    steps(worker)
    assert worker.reset_config({"job": json.dumps({**job, "start": 2, "end": 4})})
    assert [report["epoch"]["epoch"] for report in steps(worker)] == [3, 4]


def test_what_torch_compiled_for_a_job_is_forgotten_at_its_end(job, monkeypatch):
    # Else its limit on compilations would be reached after some jobs, and the next ones run uncompiled.
    resets = []
    monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace(reset=lambda: resets.append(1)))
    steps(TrainJob({"job": json.dumps(job)}))
    assert resets == [1]


def test_an_epoch_that_was_saved_but_not_reported_is_reported_first(job):
    worker = TrainJob({"job": json.dumps(job)})
    first = json.loads(worker.step()[REPORT])
    again = steps(TrainJob({"job": json.dumps(job)}))
    assert [report["epoch"]["epoch"] for report in again] == [1, 2]
    assert again[0]["epoch"]["loss"] == first["epoch"]["loss"]


def test_the_worker_s_log_says_what_begins_and_how_it_ended(job, capsys):
    worker = TrainJob({"job": json.dumps(job)})
    assert repr(worker) == f"one worker {os.getpid()}"
    reports = steps(worker)
    begins, ends = capsys.readouterr().out.splitlines()
    assert begins.endswith(" study one: trial 0: scale=8")
    share = reports[-1]["epoch"]["robust_correct_validation"] / reports[-1]["epoch"]["total_validation"]
    assert ends.endswith(f" study one: trial 0: reached, robust accuracy {100 * share:.1f} %")


class Full:
    """A log on a disk that is full."""

    def write(self, line):
        raise OSError(28, "No space left on device")


def test_a_worker_that_cannot_write_its_log_trains_on(job, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    assert steps(TrainJob({"job": json.dumps(job)}))[-1]["end"]["status"] == "reached"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"optimiser.lr": 0.04119, "hcpr.scale": 8.3, "method": "hcpr"}, "lr=0.0412 scale=8.3 method=hcpr"),
        ({"pace.shape": "linear", "lr_schedule.shape": "cosine"}, "pace.shape=linear lr_schedule.shape=cosine"),
        ({"optimiser.lr@mart": 0.01, "attack.steps": 10}, "lr@mart=0.01 steps=10"),
        ({}, ""),
    ],
)
def test_values_are_named_as_briefly_as_they_can_be_told_apart(params, words):
    assert values_words(params) == words


def broken(natural, adversarial, labels):
    """A method that does not work."""
    raise KeyError("no such layer\nand more lines")


def test_a_raise_ends_the_job_with_its_reason(job):
    own = {**job, "recipe": {**job["recipe"], "method": "tests.execution.test_trainable:broken"}}
    (report,) = steps(TrainJob({"job": json.dumps(own)}))
    assert report["end"]["status"] == "failed"
    assert "no such layer" in report["end"]["reason"]
    assert "\n" not in report["end"]["reason"]
    assert "Traceback" in report["end"]["traceback"]


def test_a_checkpoint_that_cannot_be_kept_is_no_fault_of_the_trial(job, tmp_path):
    (tmp_path / "trial_0000").write_text("a file where the checkpoints should go")
    (report,) = steps(TrainJob({"job": json.dumps(job)}))
    assert report["end"]["status"] == "unwritable"
    assert "a checkpoint cannot be written to " in report["end"]["reason"]


def test_where_the_checkpoint_is_gone_the_epochs_before_are_trained_again(job):
    reports = steps(TrainJob({"job": json.dumps({**job, "start": 2, "end": 4})}))
    assert [report["epoch"]["epoch"] for report in reports] == [1, 2, 3, 4]
    assert reports[-1]["end"]["status"] == "reached"


def test_divergence_is_a_status_of_its_own_and_the_worker_goes_on(job):
    wild = {
        **job,
        "recipe": {
            **job["recipe"],
            "optimiser": {**job["recipe"]["optimiser"], "lr": 100.0},
            "hcpr": {**job["recipe"]["hcpr"], "scale": 500.0},
        },
    }
    worker = TrainJob({"job": json.dumps(wild)})
    report = steps(worker)[-1]
    assert report["end"]["status"] == "diverged"
    assert "not finite in epoch" in report["end"]["reason"]
    worker.reset_config({"job": json.dumps({**job, "checkpoints": job["checkpoints"] + "_b"})})
    assert steps(worker)[-1]["end"]["status"] == "reached"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "check"}, 'the order\'s kind must be one of train, attack, checks, got "check"'),
        ({"end": 0}, "order.end must be a whole number at least 1, got 0"),
        ({"start": 4, "end": 2, "gpus": None}, "order.gpus must be a finite number at least 0, got null"),
    ],
)
def test_an_order_that_is_not_understood_fails_with_its_field(job, change, words):
    (report,) = steps(TrainJob({"job": json.dumps({**job, **change})}))
    assert report["end"]["status"] == "failed"
    assert words in report["end"]["reason"]


def test_a_search_s_worker_does_not_attack(job, tmp_path):
    weights = {"training": "model_a", "epoch": 4}
    order = {**job, "kind": "attack", "store": str(tmp_path), "weights": weights, "split": "validation", "images": 0}
    order |= {"chunk_size": 10, "chunk": 0, "cascade": "strong", "begun": None}
    (report,) = steps(TrainJob({"job": json.dumps(order)}))
    assert report["end"]["reason"] == "ValueError: a search has no attack jobs"


def test_a_bucket_that_only_this_node_cannot_use_ends_the_search_with_the_node_s_name(job, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://store")
    (report,) = steps(TrainJob({"job": json.dumps(job | {"checkpoints": "s3://b/study/checkpoints/trial_0000"})}))
    assert report["end"]["status"] == "unwritable"
    reason = report["end"]["reason"]
    assert reason.startswith(f"on node {platform.node()} (")
    assert "s3://b: an endpoint must begin with http:// or https://; correct AWS_ENDPOINT_URL" in reason
