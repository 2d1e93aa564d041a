"""The test images are opened on the record: each opening once, for what it is for, with its own numbers."""

from __future__ import annotations

import json

import pytest

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.storage.studies import create, reopen
from hcpr_tune.verdict.state import State
from hcpr_tune.verdict.test_access import OpenTest, write_test_access, write_test_numbers


class Lease:
    """Nobody else leads the study."""

    def check(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path, small_study):
    one = StudyFolder(tmp_path / "results" / "one")
    create(one, small_study)
    (one.root / "verdict").mkdir()
    return one


@pytest.fixture
def record(folder):
    made = Record(folder.root / "verdict" / "record.jsonl", State())
    yield made
    made.close()


def history_of(folder) -> History:
    return reopen(folder.root.parent, "one", "load ")[2]


def test_one_that_was_broken_off_goes_on_for_the_same_models_and_images_only(folder, record):
    history = history_of(folder)
    open_test = OpenTest(folder, history, record, Lease(), "hcpr_tune verdict one --test")
    for models, scope, number in (
        ("ab", "test/0/100", 1),
        ("a", "test/0/100", 1),
        ("abc", "test/0/100", 2),
        ("abc", "test/0/50", 3),
    ):
        open_test(set(models), scope)
        assert len(history.test_accesses) == number
    record.append({"event": "test_access_end", "time": 1.0})
    open_test(set("abc"), "test/0/50")
    assert len(history.test_accesses) == 4, "one that has ended does not go on"
    assert [one["number"] for one in history_of(folder).test_accesses] == [1, 2, 3, 4]


def test_numbers_stay_with_the_opening_that_showed_them(folder):
    history = history_of(folder)
    first = write_test_access(folder, history, "hcpr_tune verdict one --test")
    second = write_test_access(folder, history, "hcpr_tune evaluate --split test")
    write_test_numbers(folder, history, second, {"best": 0.5})
    write_test_numbers(folder, history, first, {"trial 1": 0.7})
    assert [one["numbers"] for one in history_of(folder).test_accesses] == [{"trial 1": 0.7}, {"best": 0.5}]


def test_an_opening_takes_no_time_of_the_search(folder):
    history = history_of(folder)
    before = history.seconds, history.worker_seconds_offered
    write_test_access(folder, history, "hcpr_tune verdict one --test")
    after = history_of(folder)
    assert (after.seconds, after.worker_seconds_offered) == before
    assert json.loads(folder.record.read_text().splitlines()[-1])["event"] == "test_access"
