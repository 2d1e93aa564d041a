"""What the driver makes of a worker's reports: damaged weights are trained again, or given up where they cannot be."""

from __future__ import annotations

import json

import pytest

from hcpr_tune.errors import Interrupted
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.scheduling.driver import STOP, Surroundings
from hcpr_tune.search.scheduling.orders import DAMAGED, read_order
from hcpr_tune.search.storage.inbox import Inbox, post
from hcpr_tune.search.storage.object_store import FolderObjectStore
from hcpr_tune.verdict.decision.agenda import Task, is_settled, next_task
from hcpr_tune.verdict.driver import VerdictDriver, training_name
from hcpr_tune.verdict.state import read_state
from tests.verdict.facts import Facts, candidate, plan_of
from tests.verdict.test_agenda import carry_out


class Bench:
    """A driver over the facts of a verdict, with its record and its checkpoints on disk."""

    def __init__(self, folder, facts, opened=list):
        self.facts, self.own = facts, StudyFolder(folder / "one" / "verdict")
        self.own.root.mkdir(parents=True)
        self.record = Record(self.own.record, facts.state)
        requests = Inbox(FolderObjectStore(folder / "one")).stops
        surroundings = Surroundings(self.record.append, self.record.clock, lambda: 1, requests)
        store = self.own.checkpoint_store
        self.driver = VerdictDriver(facts.plan, facts.state, surroundings, "one", store, opened)

    def checkpoints(self, model):
        """Those of a model, as empty folders."""
        place = self.own.checkpoints / training_name(model.id)
        return sorted(int(path.name.removeprefix("epoch_")) for path in place.glob("epoch_*"))

    def put(self, model, epochs):
        for epoch in epochs:
            (self.own.checkpoints / training_name(model.id) / f"epoch_{epoch:04d}").mkdir(parents=True)

    def damaged(self, task, model, epoch):
        self.driver.started(task)
        weights = {"training": training_name(model.id), "epoch": epoch}
        end = {"status": DAMAGED, "reason": f"{weights['training']}: cut off", "damaged": weights}
        assert self.driver.reported(task, {"end": end})


def bench(folder, *names, **more):
    facts = Facts(plan_of(*names, **more), {"a": 0.6, "published": 0.4, "mine": 0.5})
    carry_out(facts, stop_after=11)
    return Bench(folder, facts), facts.plan, facts.state


@pytest.fixture
def closing():
    """Closes the records of benches."""
    made = []
    yield made.append
    for one in made:
        one.record.close()


def test_a_damaged_model_is_trained_again_from_before_the_damage(tmp_path, closing):
    made, plan, state = bench(tmp_path, "a")
    closing(made)
    model = plan.models(plan.candidates[0], 1)[0]
    made.put(model, [2, 3, 4])
    made.damaged(Task("attack", model, "validation", 1, "strong"), model, 4)
    # The last one says that the training is over, and the one before the damage is whole.
    assert made.checkpoints(model) == [2, 3]
    assert not state.models[model.id].finished
    assert next_task(plan, state, 0.0) == Task("train", model)
    made.facts.finish(Task("train", model))
    assert state.models[model.id].finished


def test_where_an_earlier_rung_is_damaged_what_was_trained_after_it_is_no_way_around(tmp_path, closing):
    made, plan, _ = bench(tmp_path, "a")
    closing(made)
    model = plan.models(plan.candidates[0], 1)[0]
    made.put(model, [2, 3, 4])
    made.damaged(Task("attack", model, "validation", 1, "strong"), model, 2)
    assert made.checkpoints(model) == []


def test_where_the_baselines_weights_are_damaged_the_baseline_is_trained_again(tmp_path, closing):
    made, plan, state = bench(tmp_path, "a")
    closing(made)
    model, baseline = (plan.models(one, 1)[0] for one in plan.candidates)
    made.put(model, [4])
    made.put(baseline, [4])
    made.damaged(Task("checks", model, baseline=baseline), baseline, 4)
    assert (made.checkpoints(model), made.checkpoints(baseline)) == ([4], [])
    assert state.models[model.id].finished
    assert not state.models[baseline.id].finished
    assert Task("checks", model, baseline=baseline).key not in state.running


def test_what_two_jobs_find_damaged_is_trained_again_once(tmp_path, closing):
    made, plan, state = bench(tmp_path, "a")
    closing(made)
    model = plan.models(plan.candidates[0], 1)[0]
    tasks = [Task("attack", model, "validation", chunk, "strong") for chunk in (0, 1)]
    made.damaged(tasks[0], model, 4)
    # It is on its way again when the other job's report comes.
    made.driver.started(Task("train", model))
    made.facts.trained(model)
    made.put(model, [4])
    made.damaged(tasks[1], model, 4)
    assert made.checkpoints(model) == [4]
    made.facts.over(Task("train", model))
    assert state.models[model.id].finished
    assert state.models[model.id].last_epoch == 4


def test_damaged_weights_from_elsewhere_are_given_up(tmp_path, closing):
    made, plan, state = bench(tmp_path, published=False, more=[candidate("mine", "given", weights="abc")])
    closing(made)
    (model,) = plan.models(plan.candidates[0], 1)
    made.damaged(Task("attack", model, "validation", 1, "strong"), model, 0)
    assert state.models[model.id].lost.startswith("the weights of mine are damaged")
    assert is_settled(plan, state), "it is not tried for ever"


def test_the_test_images_are_opened_before_the_first_of_them_is_attacked(tmp_path, closing):
    order = []
    facts = Facts(plan_of("a", test=True, test_images=20), {"a": 0.6, "published": 0.4})
    while not isinstance(task := next_task(facts.plan, facts.state, 0.0), str) and task.split != "test":
        facts.start(task)
        facts.finish(task)
    made = Bench(tmp_path, facts, lambda models, scope: order.append(sorted(facts.state.running)))
    closing(made)
    made.driver.started(task)
    assert order == [[]], "the job was on the record before the opening was"
    assert list(facts.state.running) == [task.key]


def test_where_the_opening_cannot_be_recorded_no_test_image_is_attacked(tmp_path, closing):
    def refuse(models, scope):
        raise OSError("no space left")

    facts = Facts(plan_of("a", test=True, test_images=20), {"a": 0.6, "published": 0.4})
    while not isinstance(task := next_task(facts.plan, facts.state, 0.0), str) and task.split != "test":
        facts.start(task)
        facts.finish(task)
    made = Bench(tmp_path, facts, refuse)
    closing(made)
    with pytest.raises(OSError, match="no space left"):
        made.driver.started(task)
    assert facts.state.running == {}


def test_a_worker_that_dies_too_often_loses_the_model(tmp_path, closing):
    facts = Facts(plan_of("a", worker_deaths=2))
    made = Bench(tmp_path, facts)
    closing(made)
    task = next_task(facts.plan, facts.state, 0.0)
    for _ in range(3):
        assert facts.state.models.get(task.model.id) is None or not facts.state.models[task.model.id].lost
        made.driver.started(task)
        made.driver.died(task)
    assert "died 3 times; resources.worker_deaths allows 2" in facts.state.models[task.model.id].lost


def test_the_record_on_disk_folds_to_the_same_state(tmp_path, closing):
    facts = Facts(plan_of("a"))
    facts.state.apply({"event": "begin", "format": 1, "time": 0.0, "workers": 1, "versions": {}})
    made = Bench(tmp_path, facts)
    closing(made)
    task = next_task(facts.plan, facts.state, 0.0)
    made.driver.started(task)
    made.driver.died(task)
    again = read_state(made.own.record)
    assert again.models == facts.state.models
    assert again.deaths == facts.state.deaths == {task.key: 1}


def test_orders_are_understood_by_workers(tmp_path, closing):
    made, plan, _ = bench(tmp_path, "a")
    closing(made)
    model, baseline = (plan.models(one, 1)[0] for one in plan.candidates)
    for task in (Task("train", model), Task("attack", model, "validation", 1, "strong")):
        assert read_order(json.dumps(made.driver.started(task)))["kind"] == task.kind
    order = read_order(json.dumps(made.driver.started(Task("checks", model, baseline=baseline))))
    assert (order["kind"], len(order["survive"]), order["baseline"]["weights"]["epoch"]) == ("checks", 20, 4)


def test_a_report_about_other_images_fails_its_job_and_not_the_verdict(tmp_path, closing):
    made, plan, state = bench(tmp_path, "a")
    closing(made)
    model = plan.models(plan.candidates[1], 2)[1]
    made.facts.model(model)
    task = Task("attack", model, "validation", 0, "autoattack")
    made.driver.started(task)
    values = {"attack": "clean", "classes": [0] * 20, "warnings": [], "labels": [9] * 20, "of_classes": 10}
    assert made.driver.reported(task, {"attack": {**values, "total": 40}})
    reason = "its worker's report cannot be recorded: labels must be those of the chunk's earlier attacks"
    assert state.failed[task.key] == reason
    assert task.key not in state.running
    assert not state.models[model.id].lost


def test_requests_to_stop_are_obeyed_and_others_left_for_the_search(tmp_path, closing):
    made, _, _ = bench(tmp_path, "a")
    closing(made)
    inbox = FolderObjectStore(tmp_path / "one")
    kill, stop = (post(inbox, request) for request in ({"kind": "kill", "trial": 1}, {"kind": STOP}))
    with pytest.raises(Interrupted, match="stopped on request"):
        made.driver.poll()
    assert inbox.keys("inbox") == [kill] != [stop]


def test_joining_workers_are_recorded(tmp_path, closing):
    made, _, state = bench(tmp_path, "a")
    closing(made)
    state.workers = 3
    made.driver.poll()
    assert made.driver.workers == state.workers == 1
