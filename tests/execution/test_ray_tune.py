"""The Ray Tune adapter passes on what its driver decides and what workers report, and stops when it cannot be recorded.

Ray's classes are used, but no Ray is started.
"""

from __future__ import annotations

import json
import pickle

import pytest
from ray.tune.search import Searcher

from hcpr_tune.errors import Interrupted, StorageError
from hcpr_tune.execution.ray_tune import Ends, Halt, RayTuneAdapter
from hcpr_tune.execution.trainable import REPORT
from hcpr_tune.search.scheduling.driver import STOP
from hcpr_tune.search.scheduling.orders import failed
from hcpr_tune.search.storage.inbox import post
from tests.search.histories import epoch_report
from tests.search.test_search_driver import Search


@pytest.fixture
def search(small_study, tmp_path):
    made = Search(small_study, tmp_path)
    made.adapter = RayTuneAdapter(made.driver)
    yield made
    made.record.close()


def result(report):
    return {REPORT: json.dumps(report)}


def reached(epoch, share):
    return result({"epoch": epoch_report(epoch, share), "end": {"status": "reached", "reason": ""}})


def test_a_free_worker_gets_an_order_and_none_more_than_there_are_workers(search):
    first, second, third = (search.adapter.suggest(name) for name in "abc")
    assert [json.loads(one["job"])["name"] for one in (first, second)] == [first["name"], second["name"]]
    assert third is None
    assert len(search.history.running_jobs) == 2


def test_a_search_comes_to_its_end(search):
    count = 0
    while (config := search.adapter.suggest(str(count))) != Searcher.FINISHED:
        order = json.loads(config["job"])
        for epoch in range(order["start"] + 1, order["end"]):
            passed = result({"epoch": epoch_report(epoch, 0.5) | {"is_rung": False}})
            assert not search.adapter.should_stop(str(count), passed)
            search.adapter.on_trial_result(str(count), passed)
        ended = reached(order["end"], 0.5)
        assert search.adapter.should_stop(str(count), ended)
        search.adapter.on_trial_complete(str(count), ended)
        count += 1
    assert len(search.history.trials) == 4
    assert all(trial.ended or trial.status == "waiting" for trial in search.history.trials.values())
    assert search.recorded().count("epoch") == sum(len(trial.epochs) for trial in search.history.trials.values())


def test_a_job_without_a_last_report_has_lost_its_worker(search):
    search.adapter.suggest("a")
    search.adapter.on_trial_complete("a", error=True)
    assert search.recorded()[-1] == "job_end"
    assert search.history.trials[0].failed_starts == 1
    assert json.loads(search.adapter.suggest("b")["job"])["name"].startswith("study one: trial 0")


def test_a_report_that_cannot_be_recorded_fails_its_trial_alone(search):
    search.adapter.suggest("a")
    search.adapter.suggest("b")
    odd = result({"epoch": epoch_report(1, 0.5) | {"seconds_attack": -1}})
    assert search.adapter.should_stop("a", odd), "its worker is free for another job"
    search.adapter.check()
    trial = search.history.trials[0]
    assert (trial.status, trial.epochs) == ("failed", {})
    assert trial.reason.startswith("its worker's report cannot be recorded: seconds_attack must be a finite number")
    assert search.adapter.should_stop("b", reached(1, 0.5))
    assert search.history.trials[1].rungs == {1: 0.5}
    assert search.adapter.suggest("c") is not None


def test_a_failure_is_recorded_with_its_reason(search):
    search.adapter.suggest("a")
    search.adapter.on_trial_complete("a", result(failed("no such layer", "Traceback ...")))
    assert (search.history.trials[0].status, search.history.trials[0].reason) == ("failed", "no such layer")


def test_a_checkpoint_that_cannot_be_stored_ends_the_search_and_not_the_trial(search):
    search.adapter.suggest("a")
    search.adapter.should_stop("a", result({"end": {"status": "unwritable", "reason": "no space left"}}))
    with pytest.raises(Halt) as halt:
        Ends(search.adapter).stop_all()
    assert isinstance(halt.value.cause, StorageError)
    assert search.history.trials[0].status == "running"


def test_after_a_request_to_stop_nothing_more_is_recorded(search):
    search.adapter.suggest("a")
    post(search.folder.objects, {"kind": STOP})
    while search.adapter.halt is None:  # the inbox is only looked into now and then
        search.adapter.suggest("b")
    assert isinstance(search.adapter.halt.cause, Interrupted)
    before = search.recorded()
    assert search.adapter.suggest("c") is None
    assert search.adapter.should_stop("a", reached(1, 0.5))
    search.adapter.on_trial_result("a", reached(1, 0.5))
    search.adapter.on_trial_complete("a", error=True)
    assert search.recorded() == before


def test_a_record_that_cannot_be_written_ends_the_search(search):
    search.folder.record.rename(search.folder.record.with_suffix(".away"))
    assert search.adapter.suggest("a") is None
    with pytest.raises(Halt, match="was moved or deleted"):
        search.adapter.check()


def test_ray_keeps_no_state_of_it(search):
    search.adapter.suggest("a")
    assert search.adapter.__getstate__() == {}
    assert pickle.loads(pickle.dumps(search.adapter)).__dict__ == {}
