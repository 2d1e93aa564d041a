"""A played search takes the time that one can work out by hand, and loses nothing when workers die."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool
from tests.conftest import SMALL_SPACE
from tests.simulation.plays import SECOND, simulation, with_budget

# Of four trials, each worse than the one before, rungs at 1, 2 and 4: trial 0 goes to the end, and with the fourth
# trial at the first rung two of four go on, so that trial 1 comes to the second one. Eight epochs in seven jobs.
EPOCHS, JOBS = 8, 7


def test_one_worker_takes_what_its_epochs_and_jobs_take(small_study):
    played = simulation(small_study)
    history = played.run()
    assert [sorted(trial.rungs) for trial in history.trials.values()] == [[1, 2, 4], [1, 2], [1], [1]]
    assert (sum(len(trial.epochs) for trial in history.trials.values()), played.jobs) == (EPOCHS, JOBS)
    assert history.seconds == pytest.approx(10 + EPOCHS + (JOBS - 1) * 0.5)
    assert played.useful_seconds == pytest.approx(EPOCHS)
    assert history.worker_seconds == pytest.approx(history.seconds)
    assert history.ended == "finished"
    assert history.ranked()[0].number == 0


def test_a_worker_of_half_the_speed_takes_twice_as_long(small_study):
    whole, half = simulation(small_study), simulation(small_study, worker_pool=WorkerPool(1, (0.5,)))
    assert half.run().seconds == pytest.approx(2 * whole.run().seconds)


def test_what_the_driver_takes_is_waited_for(small_study):
    costs = replace(SECOND, driver_report=0.25, driver_job=0.125)
    played = simulation(small_study, costs)
    assert played.run().seconds == pytest.approx(10 + EPOCHS + (JOBS - 1) * 0.5 + EPOCHS * 0.25 + JOBS * 0.125)
    assert played.driver_seconds == pytest.approx(EPOCHS * 0.25 + JOBS * 0.125)


def test_a_driver_that_answers_ten_reports_a_second_makes_a_hundred_workers_wait(small_study):
    stopping = replace(small_study.settings.early_stopping, method="none")
    study = with_budget(
        replace(small_study, settings=replace(small_study.settings, early_stopping=stopping)), trials=100
    )
    study = replace(study, recipe=replace(study.recipe, segment_ends=()))
    played = simulation(study, replace(SECOND, driver_report=0.1), WorkerPool(100))
    history = played.run()
    # 400 reports, a tenth of a second each, after the first has come.
    assert history.seconds == pytest.approx(11 + 40, rel=0.01)
    assert played.useful_seconds / history.worker_seconds_offered == pytest.approx(400 / 5100, rel=0.01)


def test_workers_that_come_late_are_not_there_before(small_study):
    study = with_budget(small_study, trials=3)
    history = simulation(study, worker_pool=WorkerPool(2, join_seconds=1000.0)).run()
    assert history.workers == 1
    assert history.worker_seconds_offered == pytest.approx(history.seconds)
    assert simulation(study, worker_pool=WorkerPool(2)).run().seconds < history.seconds


class Planned(FailureModel):
    """Lives of so many seconds, one after the other; then nobody dies."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = [*seconds]

    def seconds(self) -> float:
        return self._seconds.pop(0) if self._seconds else float("inf")


def test_a_job_goes_on_from_its_last_epoch_where_its_worker_died(small_study):
    # The third job, trial 0's epochs 3 and 4, begins at 12.5 and has reported epoch 3 at 14: at 14.5 half of epoch 4 is
    # lost.
    played = simulation(small_study, lives=Planned(14.5))
    history = played.run()
    assert (played.deaths, played.jobs) == (1, JOBS + 1)
    assert played.lost_seconds == pytest.approx(0.5)
    assert history.trials[0].epochs.keys() == {1, 2, 3, 4}
    # A new process begins the job again, with epoch 4.
    assert history.seconds == pytest.approx(14.5 + 10 + (EPOCHS - 3) + (JOBS - 3) * 0.5)


def test_what_has_no_checkpoint_is_trained_again(small_study):
    resources = replace(small_study.settings.resources, checkpoint_every=5)
    study = replace(small_study, settings=replace(small_study.settings, resources=resources))
    assert simulation(study).run().seconds == pytest.approx(10 + EPOCHS + (JOBS - 1) * 0.5)
    # Epochs 1, 2 and 4 are rungs: epoch 3 is lost with the worker, half of epoch 4 too.
    played = simulation(study, lives=Planned(14.5))
    history = played.run()
    assert played.lost_seconds == pytest.approx(1.5)
    assert played.useful_seconds == pytest.approx(EPOCHS)
    assert history.seconds == pytest.approx(14.5 + 10 + (EPOCHS - 2) + (JOBS - 3) * 0.5)
    # Two rungs of trials 0 and 1, one of 2 and 3, and the end of trial 0.
    assert played.checkpoints == 2 + 2 + 1 + 1 + 1


def test_a_dead_worker_s_place_is_empty_until_another_one_comes(small_study):
    played = simulation(small_study, worker_pool=WorkerPool(1, back_seconds=100.0), lives=Planned(14.5))
    history = played.run()
    assert history.seconds == pytest.approx(14.5 + 100 + 10 + (EPOCHS - 3) + (JOBS - 3) * 0.5)
    assert history.worker_seconds_offered == pytest.approx(history.seconds - 100)


def test_a_trial_whose_workers_die_too_often_fails_as_in_a_search(small_study):
    played = simulation(small_study, lives=Planned(5.0, 5.0, 5.0, 5.0))
    history = played.run()
    assert history.trials[0].status == "failed"
    assert "died 4 times; resources.worker_deaths allows 3" in history.trials[0].reason


def test_a_trial_that_was_lost_when_it_was_recorded_is_lost_again(small_study):
    history = simulation(small_study, lost=0).run()
    assert (history.trials[0].status, history.trials[0].last_epoch) == ("diverged", 1)


def test_the_budget_of_hours_ends_the_jobs_with_their_epochs(small_study):
    played = simulation(with_budget(small_study, hours=14 / 3600))
    history = played.run()
    assert 14 <= history.seconds <= 15.5
    assert "the budget is spent" in {trial.reason for trial in history.trials.values()}


STUDIES = st.fixed_dictionaries(
    {
        "budget.trials": st.integers(1, 30),
        "early_stopping.reduction_factor": st.sampled_from([2, 3.5]),
        "early_stopping.method": st.sampled_from(["asha", "random", "none"]),
        "early_stopping.brackets": st.sampled_from([1, 2]),
        "lr_schedule.mode": st.sampled_from(["annealed", "restarted"]),
        "objective": st.sampled_from([["robust_accuracy"], ["robust_accuracy", "clean_accuracy"]]),
        "constraints.clean_accuracy": st.sampled_from([0.0, 0.2]),
        "seed": st.integers(0, 3),
    }
)
FLEETS = st.builds(
    WorkerPool,
    st.integers(1, 12),
    st.sampled_from([(1.0,), (1.0, 0.3), (2.0, 1.0, 0.5)]),
    st.sampled_from([0.0, 30.0]),
    st.sampled_from([0.0, 60.0, 400.0]),
    st.sampled_from([0.0, 7.0]),
)


@settings(max_examples=60, deadline=None)
@given(values=STUDIES, worker_pool=FLEETS, seed=st.integers(0, 1000))
def test_whatever_the_workers_do_every_search_comes_to_its_end(small_file, values, worker_pool, seed):
    if values["early_stopping.method"] == "none":
        values = values | {"early_stopping.brackets": 1}
    study = read_study(small_file, [*values.items(), ("resources.worker_deaths", 1000)])

    def play():
        played = simulation(study, worker_pool=worker_pool, lives=FailureModel(worker_pool, seed))
        return played, played.run()

    (played, history), (_, again) = play(), play()
    assert len(history.trials) == study.settings.budget.trials
    assert not history.running_jobs
    for trial in history.trials.values():
        assert trial.state in ("completed", "stopped")
        assert sorted(trial.epochs) == [*range(1, len(trial.epochs) + 1)]
    trained = sum(len(trial.epochs) for trial in history.trials.values())
    slowest = 1 / min(worker_pool.speeds)
    assert played.useful_seconds <= trained * slowest + 1e-6
    assert played.useful_seconds <= history.worker_seconds + 1e-6
    assert history.worker_seconds <= history.worker_seconds_offered + 1e-6
    assert (again.seconds, again.trials) == (history.seconds, history.trials)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("played") / "small.toml"
    path.write_text(SMALL_SPACE, encoding="utf-8")
    return path
