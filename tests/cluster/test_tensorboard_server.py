"""A real TensorBoard shows what a search's listeners write: by its HTTP interface, live and after a resume."""

from __future__ import annotations

import shutil

import pytest

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import ResultFiles, StoredStudy, StudyFolder
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.views.tensorboard.hparams import METRICS
from hcpr_tune.views.tensorboard.writer import CONFUSION, CURVES, EXAMPLES, RATE, TensorBoardView
from tests.search.histories import begin, epoch, job, job_end, lost, published, suggested
from tests.views.boards import checkpoint_with, picture, rung, served

STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
NAMES = {"model_inputs": {"class_names": ["cat", "dog", "frog"]}}


class Search:
    """A study's folder with the listeners that a search has, told what a search would tell them."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.study = folder, read_study(find_space("default"))
        self.history = History(self.study.recipe.epochs, self.study.goal)
        self.begin()

    def begin(self) -> None:
        """A session, of the same record."""
        self.history.apply(begin())
        self.files = ResultFiles(StoredStudy(self.folder, self.study, self.history))
        self.view = TensorBoardView(StoredStudy(self.folder, self.study, self.history))

    def tell(self, *events) -> None:
        for event in events:
            if self.history.apply(event):
                self.files.on_event(event, self.history)
                self.view.on_event(event, self.history)


@pytest.fixture
def search(tmp_path):
    (tmp_path / "one").mkdir()
    one = Search(StudyFolder(tmp_path / "one"))
    params = params_of(one.study.recipe, one.study.space)
    checkpoint_with(one.folder, one.study, 0, 3, picture(3))
    one.tell(published(params), job(0, 0, 3), epoch(0, 1), epoch(0, 2), rung(0, 3, 50), job_end(0, 0, 3) | NAMES)
    checkpoint_with(one.folder, one.study, 0, 9, picture(9))
    one.tell(job(0, 3, 9), rung(0, 9, 60), job_end(0, 3, 9))
    linear = params | {"hcpr.scale": 5.5, "pace.shape": "linear", "pace.start": 0.5, "pace.ramp": 0.25}
    one.tell(
        suggested(1, linear), *lost(1, 0, 3), suggested(2, params | {"hcpr.scale": 12.0}), job(2, 0, 3), epoch(2, 1)
    )
    shutil.rmtree(one.folder.checkpoints)
    yield one
    one.view.close()


def test_tensorboard_shows_all_of_a_search_and_what_is_recorded_meanwhile(search):
    with served(search.folder.root) as board:
        runs = board.until(
            "data/plugin/scalars/tags", lambda tags: {"trials/trial_0000", "trials/trial_0002"} <= set(tags)
        )
        assert set(runs["trials/trial_0000"]) == {
            *CURVES.values(),
            *METRICS,
            RATE,
            "accuracy_validation/robust",
            "accuracy_validation/clean",
        }
        assert board.curve(0, "accuracy_validation/robust", 2) == [(3, 0.5), (9, pytest.approx(0.6))]
        assert board.curve(0, "best/epoch", 2) == [(3, 3), (9, 9)]
        assert board.curve(0, RATE, 4)[0] == (1, pytest.approx(1079 / 0.75, rel=1e-6))
        check_table(board, search)
        check_pictures(board)
        check_texts(board)
        # An epoch that is recorded while it runs. It reads every two seconds; how long that takes is the machine's
        # affair.
        board.curve(2, "loss/total", 1)
        search.tell(epoch(2, 2))
        assert [step for step, _ in board.curve(2, "loss/total", 2)] == [1, 2]
        # A trial that begins meanwhile.
        search.tell(suggested(3), job(3, 0, 3), epoch(3, 1))
        board.until("data/plugin/scalars/tags", lambda tags: "trials/trial_0003" in tags)


def check_table(board, search):
    experiment = board.ask("data/plugin/hparams/experiment", {"experimentName": ""})
    assert {info["name"] for info in experiment["hparamInfos"]} == set(search.study.space)
    (shape,) = (info for info in experiment["hparamInfos"] if info["name"] == "pace.shape")
    assert shape["domainDiscrete"] == ["constant", "linear", "cosine"]
    assert {one["name"]["tag"]: one["displayName"] for one in experiment["metricInfos"]} == METRICS
    rising = {"hparam": "hcpr.scale", "order": "ORDER_ASC"}
    question = {"allowedStatuses": STATUSES, "startIndex": 0, "sliceSize": 50, "colParams": [rising]}
    answer = board.until("data/plugin/hparams/session_groups", lambda found: len(found["sessionGroups"]) == 3, question)
    rows = answer["sessionGroups"]
    assert [row["name"] for row in rows] == ["trial_0001", "trial_0000", "trial_0002"]
    assert [row["hparams"]["hcpr.scale"] for row in rows] == [5.5, 8.0, 12.0]
    assert [row["hparams"]["pace.ramp"] for row in rows] == [0.25, 0.4, 0.4]
    assert all(set(row["hparams"]) == set(search.study.space) for row in rows)
    statuses = [row["sessions"][0]["status"] for row in rows]
    assert statuses == ["STATUS_FAILURE", "STATUS_SUCCESS", "STATUS_UNKNOWN"]
    reached = {one["name"]["tag"]: one["value"] for one in rows[1]["metricValues"]}
    assert reached == {
        "best/robust_accuracy_validation": pytest.approx(0.6),
        "best/clean_accuracy_validation": pytest.approx(0.9),
        "best/epoch": 9,
    }


def check_pictures(board):
    tags = board.ask("data/plugin/images/tags")
    assert set(tags["trials/trial_0000"]) == {EXAMPLES, CONFUSION}
    assert "amplified" in tags["trials/trial_0000"][EXAMPLES]["description"]
    found = board.ask(f"data/plugin/images/images?run=trials/trial_0000&tag={EXAMPLES}&sample=0")
    assert [one["step"] for one in found] == [3, 9]
    files = [board.bytes(f"data/plugin/images/individualImage?{one['query']}") for one in found]
    assert files == [picture(3), picture(9)]


def check_texts(board):
    tags = board.ask("data/plugin/text/tags")
    assert tags["."] == ["study"]
    assert tags["trials/trial_0001"] == ["recipe"]
    (one,) = board.ask("data/plugin/text/text?run=trials/trial_0001&tag=recipe")
    assert "<pre><code>" in one["text"]
    assert "scale = 5.5" in one["text"]


@pytest.mark.parametrize("fast", ["auto", "false"])
def test_a_tensorboard_that_runs_on_sees_a_resumed_search_once(search, fast):
    """By both of its readers: the fast one is not there on every machine."""
    with served(search.folder.root, f"--load_fast={fast}") as board:
        board.curve(0, "loss/total", 4)
        # The driver is killed with an epoch recorded that its view had not seen.
        search.history.apply(epoch(2, 2))
        search.view.close()
        search.begin()
        search.tell(job(2, 0, 3), rung(2, 3, 70), job_end(2, 0, 3))
        steps = [step for step, _ in board.curve(2, "loss/total", 3)]
        assert steps == [1, 2, 3]
        # And again, while it is at the file of this session.
        search.view.close()
        search.begin()
        search.tell(job(2, 3, 9), epoch(2, 4))
        assert [step for step, _ in board.curve(2, "loss/total", 4)] == [1, 2, 3, 4]
        assert [step for step, _ in board.curve(0, "loss/total", 4)] == [1, 2, 3, 9]
        found = board.ask(f"data/plugin/images/images?run=trials/trial_0000&tag={EXAMPLES}&sample=0")
        assert [one["step"] for one in found] == [3, 9]
