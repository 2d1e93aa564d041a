"""A verdict's worker trains, attacks and checks models, and says which weights are damaged; without Ray."""

from __future__ import annotations

import json

import pytest

from hcpr_tune.common.settings import to_plain
from hcpr_tune.execution.trainable import REPORT
from hcpr_tune.execution.verdict_trainable import VerdictJob
from hcpr_tune.search.scheduling.orders import read_report


def reports(order):
    """Those of a whole job."""
    worker = VerdictJob({"job": json.dumps(order)})
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    return [read_report(result[REPORT]) for result in results]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def common(small_study):
    recipe = to_plain(small_study.recipe)
    return {"study": "one", "name": "verdict on one", "values": "", "recipe": recipe, "gpus": 0.0}


@pytest.fixture
def trained(common, store):
    """The weights of a model that a worker has trained."""
    where = store / "model_a"
    if not where.exists():
        order = {"kind": "train", "start": 0, "end": 4, "reported": 0, "checkpoint_every": 1}
        last = reports(common | order | {"checkpoints": str(where)})[-1]
        assert last["end"]["status"] == "reached"
        assert last["epoch"]["masking_validation"]["images"] > 0
    return {"training": "model_a", "epoch": 4}


def attack(common, store, trained, **more):
    order = {"kind": "attack", "store": str(store), "weights": trained, "split": "validation", "images": 24}
    return common | order | {"chunk_size": 10, "chunk": 2, "cascade": "strong", "begun": None} | more


def test_a_chunk_is_attacked_one_attack_after_the_other(common, store, trained):
    *steps, end = reports(attack(common, store, trained))
    assert [step["attack"]["attack"] for step in steps] == ["clean", "apgd-ce", "apgd-t"]
    assert {(len(step["attack"]["labels"]), step["attack"]["total"]) for step in steps} == {(4, 24)}, "the last images"
    assert end["end"]["status"] == "reached"
    assert end["end"]["model_inputs"]["classes"] == 10
    begun = {"attack": "apgd-ce", "classes": steps[1]["attack"]["classes"]}
    (again, _) = reports(attack(common, store, trained, begun=begun))
    assert again["attack"] == steps[2]["attack"]


def test_a_model_is_checked(common, store, trained):
    order = {"kind": "checks", "store": str(store), "weights": trained, "images": 24, "chunk_size": 10}
    baseline = {"recipe": common["recipe"], "weights": trained}
    order |= {"survive": [True, False] * 5, "baseline": baseline, "with_masking": True}
    (report,) = reports(common | order)
    assert report["end"]["status"] == "reached"
    checks = report["checks"]
    assert (checks["images"], checks["masking"]["images"]) == (10, 128)
    assert 0 <= checks["broken"] <= 5, "only survivors can be broken"
    (alone,) = reports(common | order | {"baseline": None, "with_masking": False})
    assert alone["checks"] == {"broken": 0, "images": 0, "masking": None}


def test_weights_that_are_missing_are_named(common, store, trained):
    gone = {"training": "model_b", "epoch": 4}
    (report,) = reports(attack(common, store, gone))
    assert (report["end"]["status"], report["end"]["damaged"]) == ("weights damaged", gone)
    assert "model_b, epoch 4" in report["end"]["reason"]
