"""The driver of a search records each decision before it takes effect, and ends jobs for a reason that it records."""

from __future__ import annotations

import json

import pytest

from hcpr_tune.common.schema import Wrong
from hcpr_tune.errors import Interrupted
from hcpr_tune.execution.search_jobs import search_driver
from hcpr_tune.search.record.record import Record, read_history
from hcpr_tune.search.scheduling.driver import STOP
from hcpr_tune.search.scheduling.orders import read_order, read_report, refused
from hcpr_tune.search.storage.inbox import post
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.training.recipe import recipe_from_plain
from tests.search.histories import epoch_report


class Search:
    """A search over a record on disk; `fitting`: how many jobs fit now."""

    def __init__(self, study, storage):
        self.folder, self.fitting = check_new(storage, "one"), 2
        self.history = create(self.folder, study).history
        self.record = Record(self.folder.record, self.history)
        self.record.append(
            {"event": "begin", "time": self.record.clock(), "workers": 2, "versions": {}, "fingerprint": ""}
        )
        self.driver = search_driver(study, self.record, self.folder, lambda: self.fitting, gpus=0.5)

    def recorded(self):
        """The events on disk."""
        return [json.loads(line)["event"] for line in self.folder.record.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def search(small_study, tmp_path):
    made = Search(small_study, tmp_path)
    yield made
    made.record.close()


def test_a_job_is_recorded_before_its_order_is_given(search, small_study):
    job = search.driver.next_job()
    assert search.recorded() == ["begin", "trial"]
    order = read_order(json.dumps(search.driver.started(job)))
    assert search.recorded() == ["begin", "trial", "job"]
    assert (order["kind"], order["start"], order["end"], order["reported"]) == ("train", 0, 1, 0)
    assert order["name"] == "study one: trial 0, epochs 1 to 1 (rung 1)"
    assert order["gpus"] == 0.5
    assert recipe_from_plain(order["recipe"], "the order") == small_study.recipe, "trial 0 is the published recipe"


def test_reports_are_recorded_and_the_last_one_ends_the_job(search):
    job = search.driver.next_job()
    search.driver.started(job)
    assert not search.driver.reported(job, {"losses": ["epoch_0001 was damaged"]})
    assert search.history.losses == ["epoch_0001 was damaged"]
    report = {"epoch": epoch_report(1, 0.5), "end": {"status": "reached", "reason": ""}}
    assert search.driver.reported(job, read_report(json.dumps(report)))
    assert search.history.trials[0].rungs == {1: 0.5}
    assert not search.history.running_jobs
    assert read_history(search.folder.record, 4).trials == search.history.trials


def test_a_job_whose_worker_died_is_the_next_one_until_that_happened_too_often(search, small_study):
    job = search.driver.next_job()
    allowed = small_study.settings.resources.worker_deaths
    for _ in range(allowed + 1):
        assert search.driver.next_job() == job
        search.driver.started(job)
        search.history.trials[0].fresh = False  # as after an epoch
        search.driver.died(job)
    assert search.history.trials[0].status == "failed"
    assert f"died {allowed + 1} times; resources.worker_deaths allows {allowed}" in search.history.trials[0].reason


def test_requests_become_events_and_a_killed_trial_s_job_ends(search):
    job = search.driver.next_job()
    search.driver.started(job)
    assert not search.driver.should_end(job)
    post(search.folder.objects, {"kind": "kill", "trial": 0})
    search.driver.poll()
    assert search.driver.should_end(job)
    assert (search.history.trials[0].status, search.history.trials[0].reason) == ("killed", "killed on request")


def test_a_request_to_stop_is_raised_and_leaves_no_file_behind(search):
    post(search.folder.objects, {"kind": STOP})
    with pytest.raises(Interrupted, match="stopped on request"):
        search.driver.poll()
    assert search.folder.objects.keys("inbox") == []


def test_workers_that_join_or_leave_are_recorded(search):
    search.driver.poll()
    assert search.recorded() == ["begin"]
    search.fitting = 5
    search.driver.poll()
    assert search.driver.workers == 5
    assert search.recorded() == ["begin", "workers"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": "low"}, 'loss must be a finite number, got "low"'),
        ({"epoch": 0}, "epoch must be a whole number at least 1"),
        ({"robust_correct_validation": 300}, "robust_correct_validation must be a whole number at least 0 and at most"),
        ({"total_validation": None}, "total_validation must be"),
    ],
)
def test_a_report_that_the_record_would_not_take_is_refused_with_its_field(change, words):
    with pytest.raises(Wrong) as wrong:
        read_report(json.dumps({"epoch": epoch_report(1, 0.5) | change}))
    assert words in str(wrong.value)
    end = refused(wrong.value)["end"]
    assert (end["status"], end["reason"]) == ("failed", f"its worker's report cannot be recorded: {wrong.value}")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ([], "report must be a table"),
        ({"end": {"status": "lost", "reason": ""}}, "report.end.status must be one of reached, diverged"),
        ({"end": {"status": "weights damaged", "reason": ""}}, "damaged must be a table"),
        ({"checks": {"broken": 1, "images": -1, "masking": None}}, "images must be a whole number"),
        ({"attack": {"attack": "clean"}}, "labels is missing"),
    ],
)
def test_so_is_any_other_report(report, words):
    with pytest.raises(Wrong, match=words):
        read_report(json.dumps(report))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"kind": "look"}, 'the order\'s kind must be one of train, attack, checks, got "look"'),
        ({"kind": "train"}, "order.study is missing"),
        ([], "must be a table"),
    ],
)
def test_an_order_that_this_version_does_not_understand_is_refused(order, words):
    with pytest.raises(Wrong, match=words):
        read_order(json.dumps(order))
