"""A whole verdict is played without Ray, with deaths, doubts and limits, to its conclusion; and how long it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.simulation.search import PlannedTiming
from hcpr_tune.simulation.verdict import NOTHING_MASKED, SimulatedModels, VerdictCosts, VerdictJobs, verdict_simulation
from hcpr_tune.simulation.verdict_forecast import forecast_verdict
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool
from hcpr_tune.verdict.decision.agenda import is_settled
from hcpr_tune.verdict.decision.conclusion import conclude
from hcpr_tune.verdict.plan import full_plan
from hcpr_tune.verdict.state import State
from tests.search.histories import history_of
from tests.simulation.plays import SECOND, simulation
from tests.verdict.facts import candidate, plan_of

SHARES = {"a": 0.45, "b": 0.8, "published": 0.3, "mine": 0.5}
COSTS = VerdictCosts(
    lambda model: [10.0] * model.recipe.epochs,
    {"clean": 0.0, "apgd-ce": 1.0, "apgd-t": 2.0, "fab-t": 2.0, "square": 4.0},
    masking=3.0,
    start=100.0,
    job=5.0,
)


def share_of(model):
    """Its candidate's share, of ablations one between."""
    return SHARES.get(model.candidate, 0.4)


def models_of(plan, **more):
    values = {
        "images": {"validation": plan.images, "test": plan.test_images or 1},
        "scores": lambda model, epoch: (share_of(model) * epoch / 4, min(1.0, share_of(model) + 0.1)),
        "survival": lambda model, attack: share_of(model) + 0.1 * (attack == "clean"),
    }
    return SimulatedModels(**values | more)


def verdict_of(study, plan, workers=1, costs=COSTS, lives=None, state=None, **more):
    """The simulation of a verdict, with a list of its events."""
    events = []
    pool = workers if isinstance(workers, WorkerPool) else WorkerPool(workers)
    jobs, timing = VerdictJobs(models_of(plan, **more), costs), PlannedTiming(SECOND, study, pool.workers)
    return verdict_simulation(plan, jobs, timing, pool, lives, state, events.append), events


def concluded(study, plan, state):
    return conclude(study, history_of(), "x", plan, state)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_whole_verdict_ends_in_a_conclusion(small_study, workers):
    plan = plan_of("a", "b", ablations=True, test=True, test_images=60, images=60)
    played, events = verdict_of(small_study, plan, workers)
    plain = concluded(small_study, plan, played.run())
    assert (plain["settled"], plain["winner"], plain["baseline"]) == (True, "b", "published")
    assert plain["splits"]["test"]["candidates"]["b"]["robust_accuracy"]["mean"] == pytest.approx(0.8, abs=0.05)
    assert plain["splits"]["test"]["differences"]["published"]["found"]
    kinds = {event["kind"] for event in events if event["event"] == "job_end"}
    assert kinds == {"train", "attack", "checks"}
    assert sum(event["event"] == "test_access" for event in events) == 1
    assert played.jobs == sum(event["event"] == "job" for event in events)


def test_one_worker_takes_what_its_epochs_and_attacks_take(small_study):
    plan = plan_of(seeds=1, other_seeds=1)
    # All images survive being predicted, none the first attack; the others have nothing left to do.
    survival = lambda model, attack: 2.0 if attack == "clean" else -1.0  # noqa: E731
    played, _ = verdict_of(small_study, plan, survival=survival)
    state = played.run()
    # A training of four epochs and two chunks of twenty images: three jobs.
    assert played.jobs == 3
    assert state.seconds == pytest.approx(100 + 4 * 10 + 2 * (5 + 20))
    assert state.worker_seconds == pytest.approx(state.seconds)
    assert played.useful_seconds == pytest.approx(4 * 10 + 2 * 20)


def test_more_workers_take_less_time_for_the_same_verdict(small_study):
    plan = plan_of("a", "b")
    one, four = (verdict_of(small_study, plan, workers)[0] for workers in (1, 4))
    first, second = one.run(), four.run()
    assert second.seconds < 0.5 * first.seconds
    assert four.useful_seconds == pytest.approx(one.useful_seconds)
    assert second.chunks == first.chunks


def test_deaths_cost_time_and_change_nothing(small_study):
    plan = plan_of("a", "b", test=True, test_images=40, worker_deaths=1000)
    pool = WorkerPool(3, deaths_per_hour=30.0)
    undisturbed = verdict_of(small_study, plan, 3)[0]
    played = verdict_of(small_study, plan, pool, lives=FailureModel(pool, 1))[0]
    expected, state = undisturbed.run(), played.run()
    assert played.deaths > 5
    assert state.chunks == expected.chunks
    assert state.seconds > expected.seconds
    ours, theirs = (concluded(small_study, plan, one) for one in (state, expected))
    assert ours["winner"] == theirs["winner"]
    assert ours["splits"] == theirs["splits"]


def test_a_model_whose_workers_die_too_often_is_lost(small_study):
    plan = plan_of("a", seeds=1, other_seeds=1, worker_deaths=1)
    pool = WorkerPool(1, deaths_per_hour=1000.0)
    state = verdict_of(small_study, plan, pool, lives=FailureModel(pool, 1))[0].run()
    assert all("died 2 times; resources.worker_deaths allows 1" in model.lost for model in state.models.values())
    assert is_settled(plan, state)
    assert concluded(small_study, plan, state)["winner"] is None


def test_a_recipe_with_masked_gradients_cannot_win(small_study):
    plan = plan_of("a", "b")
    alarm = {**NOTHING_MASKED, "survive_margin_10": 80}
    masked, _ = verdict_of(small_study, plan, masking=lambda model: alarm if model.candidate == "b" else NOTHING_MASKED)
    assert concluded(small_study, plan, masked.run())["winner"] == "a"


def test_nor_can_one_that_transferred_images_break(small_study):
    plan = plan_of("a", "b")
    broken, events = verdict_of(small_study, plan, transfer=lambda model: 0.2 * (model.candidate == "b"))
    assert concluded(small_study, plan, broken.run())["winner"] == "a"
    assert {event["broken"] for event in events if event["event"] == "checks"} == {0, 4}


def test_a_model_from_elsewhere_is_checked_and_not_trained(small_study):
    plan = plan_of(published=False, more=[candidate("mine", "given", weights="abc")])
    played, events = verdict_of(small_study, plan)
    state = played.run()
    assert [event["kind"] for event in events if event["event"] == "job_end"] == ["attack", "checks", "attack"]
    (check,) = (event for event in events if event["event"] == "checks")
    assert check["masking"] == NOTHING_MASKED
    assert is_settled(plan, state)


def test_a_limit_ends_it_and_a_later_session_goes_on_where_it_was(small_study):
    plan = plan_of("a", "b")
    whole = verdict_of(small_study, plan, 2)[0].run()
    limited = replace(plan, seconds=0.6 * whole.seconds)
    state = verdict_of(small_study, limited, 2)[0].run()
    assert limited.seconds <= state.seconds < limited.seconds + 1, "what ran was abandoned"
    plain = concluded(small_study, limited, state)
    assert not plain["settled"]
    assert "seconds is over" in plain["unfinished"]
    again, events = verdict_of(small_study, plan, 2, state=state)
    assert again.run().chunks == whole.chunks
    assert concluded(small_study, plan, state)["settled"]
    started = [event["job"] for event in events if event["event"] == "job"]
    assert 0 < len(started) < again.jobs + 1
    assert len(started) == len(set(started))


def test_worker_hours_are_a_limit_too(small_study):
    plan = plan_of("a", "b", worker_seconds=700.0)
    state = verdict_of(small_study, plan, 2)[0].run()
    assert 700 <= state.worker_seconds < 900
    assert not is_settled(plan, state)


@pytest.fixture
def study(small_study):
    """A study whose verdict trains one finalist on two seeds."""
    verdict = replace(small_study.settings.verdict, finalists=1, seeds=2, other_seeds=2, images=100, chunk=50)
    return replace(small_study, settings=replace(small_study.settings, verdict=verdict))


@pytest.fixture
def searched(small_study):
    """A search that was played: an epoch of a second, of which a tenth is the evaluation."""
    costs = replace(SECOND, update=0.9, evaluation=0.1, last_evaluation=0.1)
    history = simulation(small_study, costs).run()
    for trial in history.trials.values():
        for event in trial.epochs.values():
            event |= {"seconds_attack": 0.0, "seconds_update": 0.9, "seconds_evaluation": 0.1, "attack_steps": 2}
    return history


def test_a_forecast_says_what_a_plan_takes(study, searched):
    plan = full_plan(study, searched, test=False)
    one, four = (forecast_verdict(study, searched, plan, workers) for workers in (1, 4))
    assert (one.trainings, one.attacked, one.finished) == (2, 200, True)
    # Two models of four epochs of a second each.
    assert one.training_hours == pytest.approx(2 * 4 / 3600, rel=0.01)
    assert one.worker_hours == pytest.approx(one.hours, rel=0.01)
    assert four.hours < one.hours < four.worker_hours * 1.5
    assert four.to_plain()["workers"] == 4
    assert forecast_verdict(study, searched, replace(plan, test=True), 1).attacked > 2 * 200


def test_what_is_done_already_is_not_forecast_again(study, searched):
    plan = replace(full_plan(study, searched, test=False), images=40)
    done = verdict_of(study, plan, images={"validation": 40, "test": 1})[0].run()
    before = done.version
    rest = forecast_verdict(study, searched, plan, 2, done)
    assert (rest.hours, rest.worker_hours, rest.trainings, rest.attacked) == (0.0, 0.0, 0, 0)
    assert done.version == before


def test_a_limit_on_worker_hours_shows_in_the_forecast(study, searched):
    plan = replace(full_plan(study, searched, test=False), worker_seconds=5.0)
    assert not forecast_verdict(study, searched, plan, 1).finished


def test_without_an_evaluated_epoch_nothing_can_be_foretold(small_study):
    with pytest.raises(InputError, match="no trial of this study was evaluated"):
        forecast_verdict(small_study, History(4), plan_of("a"), 1, State())
