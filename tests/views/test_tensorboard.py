"""TensorBoard's own reader finds every recorded epoch once, live and after a resume."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcpr_tune.search.results import StudyFolder
from hcpr_tune.views.tensorboard import CURVES, TensorBoardView
from tests.search.histories import begin, epoch, history_of, job, job_end, reached, suggested


def curves(folder):
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def tell(view, history, *events):
    for event in events:
        if history.apply(event):
            view.on_event(event, history)


def test_a_curve_is_there_as_soon_as_its_epoch_is_recorded(tmp_path):
    folder, history = StudyFolder(tmp_path), history_of()
    view = TensorBoardView(folder, history)
    tell(view, history, suggested(0), job(0, 0, 3), epoch(0, 1), epoch(0, 2, 500))
    seen = curves(folder.trial(0))
    assert set(seen) == {*CURVES.values(), "accuracy_validation/robust", "accuracy_validation/clean"}
    assert seen["loss/total"] == [(1, 1.0), (2, 1.0)]
    assert seen["accuracy_validation/robust"] == [(2, 0.5)]
    view.close()


def test_a_promoted_trial_goes_on_in_its_curves(tmp_path):
    folder, history = StudyFolder(tmp_path), history_of()
    view = TensorBoardView(folder, history)
    tell(view, history, suggested(0), *reached(0, 0, 3, 500), *reached(0, 3, 9, 600))
    assert curves(folder.trial(0))["accuracy_validation/robust"] == [(3, 0.5), (9, pytest.approx(0.6))]
    assert [step for step, _ in curves(folder.trial(0))["loss/total"]] == list(range(1, 10))
    view.close()


def test_after_a_kill_no_step_is_missing_or_doubled(tmp_path):
    folder, history = StudyFolder(tmp_path), history_of()
    view = TensorBoardView(folder, history)
    tell(view, history, suggested(0), job(0, 0, 3), epoch(0, 1))
    # The driver dies after the record has the second epoch and before the view has it.
    history.apply(epoch(0, 2))
    history.apply(begin(1.0))
    again = TensorBoardView(folder, history)
    tell(again, history, job(0, 0, 3), epoch(0, 3, 500), job_end(0, 0, 3))
    assert [step for step, _ in curves(folder.trial(0))["loss/total"]] == [1, 2, 3]
    again.close()
    view.close()
