"""A small verdict ends in time with a statement, or with the reason why there is none, however fast the machine is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.simulation.search import PlannedTiming
from hcpr_tune.simulation.verdict import NOTHING_MASKED, SimulatedModels, VerdictCosts, VerdictJobs, verdict_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool
from hcpr_tune.training.attacks.cascade import CASCADES, gradient_steps
from hcpr_tune.verdict.decision.conclusion import conclude
from hcpr_tune.verdict.decision.statement import reached
from hcpr_tune.verdict.sizing import Speed, Work, size_verdict
from hcpr_tune.views.verdicts import VERDICT, verdict_lines
from tests.search.histories import history_of
from tests.simulation.plays import SECOND
from tests.verdict.facts import plan_of

SHARES = {"a": 0.7, "published": 0.5}
SECONDS, IMAGES = 55.0, 359
WORK = Work(candidates=2, images=IMAGES, batch=512, seeds=5, classes=10, clean=0.9, robust=0.6)


def survival(model, attack):
    """The first attacks break nearly all that can be broken."""
    robust = SHARES[model.candidate]
    return {"clean": 0.9, "apgd-ce": robust + 0.05}.get(attack, robust)


def simulated(study, plan, workers, training, step, masking=lambda model: NOTHING_MASKED):
    """The events of a small verdict and its conclusion; a job's images take the time of one gradient step each."""
    costs = VerdictCosts(
        lambda model: [training / 4] * 4,
        {name: step * steps for name, steps in gradient_steps(10).items()},
        start=2.0,
        job=0.05,
    )
    models = SimulatedModels(
        {"validation": IMAGES, "test": 1}, lambda model, epoch: (0.5, 0.9), survival, masking=masking
    )
    events = []
    timing = PlannedTiming(SECOND, study, workers)
    pool = WorkerPool(workers)
    simulation = verdict_simulation(plan, VerdictJobs(models, costs), timing, pool, listener=events.append)
    state = simulation.run()
    plain = conclude(study, history_of(), "x", reached(plan, state), state)
    VERDICT.check(plain, "")
    return state, events, plain


def small(sized, *names):
    return plan_of(
        *(names or ("a",)),
        seeds=sized.seeds,
        other_seeds=sized.seeds,
        images=0,
        chunk=sized.chunk,
        cascade=sized.cascade,
        size="small",
        seconds=SECONDS,
    )


@given(
    workers=st.integers(1, 12),
    training=st.floats(0.1, 60),
    step=st.floats(-7, -1),
    wrong=st.floats(-1, 1),
)
@settings(max_examples=60, deadline=None, database=None)
def test_it_always_concludes_in_time(small_study_once, workers, training, step, wrong):
    """`step`: the logarithm of the seconds of a gradient step for an image; `wrong`: that by which all is slower."""
    speed = Speed(2.0, training, 0.0, 10**step)
    sized = size_verdict(speed, WORK, workers, SECONDS)
    if isinstance(sized, str):
        assert "seconds" in sized
        return
    slower = 10**wrong
    plan = small(sized)
    state, _, plain = simulated(small_study_once, plan, workers, slower * training, slower * 10**step)
    assert state.seconds <= SECONDS + 0.01, "a running job was not abandoned"
    assert not state.running
    assert plain["size"] == "small"
    assert plain["settled"]
    told = "\n".join(verdict_lines(plain))
    assert "UNFINISHED" not in told
    assert "Nobody" not in told
    assert "No winner" not in told
    numbers = plain["splits"]["validation"]
    if plain["unfinished"]:
        assert "Whether the search gained anything is not known: " in told
        assert "55 seconds" in plain["unfinished"]
        assert slower > 1, "there was time, as planned"
    else:
        assert numbers["differences"]
        part = "" if numbers["images"] == numbers["of"] else f"of the {numbers['of']} "
        assert f"on {numbers['images']} {part}validation images" in told
        assert "seed" in told
        if slower <= 1:
            assert numbers["images"] >= sized.chunk or numbers["images"] == IMAGES
            assert plain["attacks"]["validation"].count(",") == len(CASCADES[sized.cascade]) - 1


@pytest.fixture(scope="module")
def small_study_once(tmp_path_factory):
    """The study of `small_study`, made once for all examples."""
    from hcpr_tune.search.spec.study_file import read_study
    from tests.conftest import SMALL_SPACE

    path = tmp_path_factory.mktemp("space") / "small.toml"
    path.write_text(SMALL_SPACE)
    return read_study(path)


def sized_for(training, step, workers=2):
    sized = size_verdict(Speed(2.0, training, 0.0, step), WORK, workers, SECONDS)
    assert not isinstance(sized, str)
    return sized


def test_on_a_fast_machine_all_images_count_and_nothing_is_left(small_study):
    sized = sized_for(0.1, 1e-7)
    state, _, plain = simulated(small_study, small(sized), 2, 0.1, 1e-7)
    assert state.seconds < SECONDS
    assert plain["splits"]["validation"]["images"] == IMAGES
    assert plain["seeds"]["winner_and_baseline"] == 5
    assert plain["splits"]["validation"]["differences"]["published"]["found"]
    assert "On fresh seeds, a is more robust than the published recipe." in verdict_lines(plain)


def test_images_are_added_until_the_time_is_over(small_study):
    sized = sized_for(10.0, 2e-4)
    state, events, plain = simulated(small_study, small(sized), 2, 10.0, 1e-4)
    assert state.seconds == pytest.approx(SECONDS, abs=0.01)
    assert sized.chunk < plain["splits"]["validation"]["images"] < IMAGES
    ended = [event for event in events if event["event"] == "job_end" and event["status"] == "broken off"]
    assert ended
    assert [event["time"] for event in ended] == pytest.approx([SECONDS] * len(ended))


@pytest.mark.parametrize("workers", [1, 2])
def test_both_are_attacked_in_step_and_the_cheapest_attacks_come_first(small_study, workers):
    plan = small(sized_for(1.0, 1e-4, workers))
    _, events, _ = simulated(small_study, plan, workers, 1.0, 1e-4)
    ahead = {}
    for event in events:
        if event["event"] != "step":
            continue
        ahead.setdefault(event["model"], 0)
        ahead[event["model"]] += event["attack"] != "clean"
        if len(ahead) == 2 * plan.seeds:
            assert max(ahead.values()) - min(ahead.values()) <= workers
    assert len(ahead) == 2 * plan.seeds


def test_where_it_was_slower_than_thought_the_attacks_that_were_made_are_named(small_study):
    sized = sized_for(1.0, 1e-4)
    assert sized.cascade == "autoattack"
    _, _, plain = simulated(small_study, small(sized), 2, 1.0, 4e-4)
    assert not plain["unfinished"]
    assert plain["attacks"]["validation"] in (
        "AutoAttack's first two attacks (apgd-ce, apgd-t)",
        "AutoAttack's first three attacks (apgd-ce, apgd-t, fab-t)",
    )
    assert plain["splits"]["validation"]["images"] >= sized.chunk


def test_a_training_that_does_not_end_in_time_is_named(small_study):
    _, _, plain = simulated(small_study, small(sized_for(10.0, 1e-4, 1)), 1, 40.0, 1e-4)
    assert plain["settled"]
    assert verdict_lines(plain)[0] == (
        "Whether the search gained anything is not known: published was not trained to its end within 55 seconds."
    )


def test_unreliable_numbers_are_no_statement(small_study):
    alarm = {**NOTHING_MASKED, "survive_margin_10": 80}
    masked = lambda model: alarm if model.candidate == "a" else NOTHING_MASKED  # noqa: E731
    _, _, plain = simulated(small_study, small(sized_for(0.1, 1e-6)), 2, 0.1, 1e-6, masked)
    assert plain["winner"] == "published"
    assert (
        verdict_lines(plain)[0] == "Whether the search gained anything is not known: the numbers of a are unreliable."
    )


def test_where_the_published_recipe_is_the_best_that_is_said(small_study):
    sized = sized_for(0.1, 1e-6)
    plan = plan_of(seeds=2, other_seeds=2, images=0, chunk=sized.chunk, size="small", seconds=SECONDS)
    _, _, plain = simulated(small_study, plan, 2, 0.1, 1e-6)
    said = "The best recipe of the search is the published one itself: there is nothing to compare it with."
    assert verdict_lines(plain)[0] == said


def test_one_seed_is_said_to_be_one(small_study):
    sized = sized_for(15.0, 1e-5)
    assert sized.seeds == 1
    _, _, plain = simulated(small_study, small(sized), 2, 15.0, 1e-5)
    told = verdict_lines(plain)
    assert told[0] == "With one fresh seed each, the model of a is more robust than that of the published recipe."
    assert any("an interval over the images only: the noise of a single seed is not in it" in line for line in told)
    assert math.isclose(plain["splits"]["validation"]["images"], IMAGES)
