"""Any number of workers that finish in any order, die and fail reach the same verdict; the test images come last."""

from __future__ import annotations

import functools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.verdict.decision.agenda import Task, is_settled, next_task, open_tasks, stages
from hcpr_tune.verdict.decision.selection import select
from hcpr_tune.verdict.state import State
from tests.verdict.facts import MASKED, Facts, candidate, plan_of

SHARES = {"a": 0.4, "b": 0.7, "c": 0.55, "published": 0.5}
MOST = 2000
"""Steps after which a plan that has not ended never will."""


def carry_out(facts, workers=1, seed=0, failing=(), damaged=(), deaths=0.0, stop_after=MOST):
    """Work like a pool: a free worker asks what is next, jobs end in an order drawn from `seed`. Returns the tasks.

    failing: keys of tasks that fail; damaged: keys of tasks that once find weights damaged; deaths: the share of jobs
    whose worker dies.
    """
    draws, running, handed, damage = random.Random(seed), [], [], set(damaged)
    for _ in range(stop_after):
        task = next_task(facts.plan, facts.state, 0.0)
        if isinstance(task, Task) and len(running) < workers:
            facts.start(task)
            running.append(task)
            handed.append(task)
        elif running:
            done = running.pop(draws.randrange(len(running)))
            if done.key in damage:
                damage.remove(done.key)
                facts.over(done, "weights damaged", "cut off")
            elif done.key in failing:
                facts.over(done, "failed", "it broke")
            elif draws.random() < deaths:
                facts.over(done, "worker died", "its worker process died")
            else:
                facts.finish(done)
        elif task == "finished":
            return handed
        else:
            raise AssertionError(f"nothing runs, and yet it is said to {task}")
    return handed


def whole(**settings):
    return plan_of("a", "b", "c", **{"ablations": True, "test": True, "test_images": 30} | settings)


@functools.cache
def undisturbed():
    """What one worker finds to whom nothing happens."""
    return whole_of(whole())


def known(state):
    """All facts, without when and in which order they were found."""
    return (
        {model: (one.finished, one.lost, one.scores) for model, one in state.models.items()},
        {key: chunk.steps for key, chunk in state.chunks.items()},
        {key: (look["broken"], look["images"]) for key, look in state.checks.items()},
    )


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_plan_ends_with_all_models_and_the_test_images_last(workers):
    facts = Facts(whole(), SHARES)
    handed = carry_out(facts, workers)
    assert is_settled(facts.plan, facts.state)
    assert max(Counter(task.key for task in handed).values()) == 1
    trained = Counter(task.model.candidate for task in handed if task.kind == "train")
    parts = {"published coefficients": 2, "pace 0": 2}
    # Winner and baseline: three seeds, and as many fresh ones for the test images.
    assert trained == {"a": 2, "b": 6, "c": 2, "published": 6, **parts}
    on_test = [task.split == "test" for task in handed]
    assert on_test == sorted(on_test), "a validation task came after the first of the test images"
    assert {task.model.candidate for task in handed if task.split == "test"} == {"b", "published"}
    # Two chunks for each of three seeds of two candidates.
    assert sum(on_test) == 12
    chose = {task.model.id for task in handed if task.split == "validation"}
    assert not chose & {task.model.id for task in handed if task.split == "test"}, (
        "a model that took part in the choice"
    )


@given(workers=st.integers(1, 6), seed=st.integers(0, 10**6), deaths=st.sampled_from([0.0, 0.3]))
@settings(max_examples=8, deadline=None, database=None)
def test_the_facts_do_not_depend_on_the_workers(workers, seed, deaths):
    pool, alone = Facts(whole(), SHARES), undisturbed()
    carry_out(pool, workers, seed, deaths=deaths)
    assert known(pool.state) == known(alone.state)
    assert select(pool.plan, pool.state) == select(alone.plan, alone.state)


@given(workers=st.integers(1, 6), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, database=None)
def test_no_job_is_handed_out_while_it_runs_and_no_test_image_before_validation_is_over(workers, seed):
    facts = Facts(whole(), SHARES)
    handed = carry_out(facts, workers, seed)
    running = set()
    ended = 0
    on_validation = sum(task.split != "test" for task in handed)
    for event in facts.events:
        if event["event"] == "job":
            assert event["job"] not in running
            running.add(event["job"])
            assert " test " not in event["job"] or ended >= on_validation
        elif event["event"] == "job_end":
            running.remove(event["job"])
            ended += 1


@given(workers=st.integers(1, 5), seed=st.integers(0, 10**6))
@settings(max_examples=12, deadline=None, database=None)
def test_whatever_fails_a_plan_ends(workers, seed):
    draws = random.Random(seed)
    keys = [event["job"] for event in undisturbed().events if event["event"] == "job"]
    failing, damaged = set(draws.sample(keys, 5)), set(draws.sample(keys, 5))
    facts = Facts(whole(), SHARES)
    carry_out(facts, workers, seed, failing, {key for key in damaged if not key.startswith("train")})
    assert is_settled(facts.plan, facts.state)


def test_where_every_training_fails_it_ends_and_no_test_image_is_opened():
    plan = whole()
    every = {Task("train", model).key for one in plan.candidates for model in plan.models(one, plan.seeds)}
    facts = Facts(plan, SHARES)
    handed = carry_out(facts, 2, failing=every)
    # Two seeds of four candidates.
    assert len(handed) == 8
    assert is_settled(plan, facts.state)


def test_where_nobody_can_win_no_more_is_trained_and_the_test_images_stay_shut():
    plan = plan_of("a", more=[candidate("trades", "compared")], test=True, test_images=30)
    facts = Facts(plan, SHARES, masking=MASKED)
    handed = carry_out(facts)
    assert is_settled(plan, facts.state)
    assert {task.split for task in handed} == {"", "validation"}
    assert max(task.model.seed for task in handed if task.model.candidate != "trades") == plan.other_seeds


@given(stops=st.lists(st.integers(1, 40), max_size=4), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, database=None)
def test_broken_off_and_gone_on_with_it_comes_to_the_same(stops, seed):
    facts = Facts(whole(), SHARES)
    for number, stop in enumerate(stops):
        carry_out(facts, 3, seed + number, stop_after=stop)
        facts.begin(3)  # the driver was killed: what ran is gone
    carry_out(facts, 2, seed)
    assert known(facts.state) == known(undisturbed().state)


def test_the_fold_of_what_was_written_is_the_state():
    facts, again = Facts(whole(), SHARES), State()
    carry_out(facts, 2)
    for event in facts.events:
        again.apply(event)
    assert again == facts.state


def test_a_larger_plan_does_only_what_a_smaller_one_did_not():
    small, large = plan_of("a", "b"), plan_of("a", "b", "c", seeds=4, other_seeds=3, ablations=True)
    facts = Facts(small, SHARES)
    before = {task.key for task in carry_out(facts)}
    facts.plan = large
    facts.begin()
    after = {task.key for task in carry_out(facts)}
    assert not before & after
    fresh = Facts(large, SHARES)
    # The smaller one gave its winner and its baseline a third seed, which the larger one gives to all.
    assert after == {task.key for task in carry_out(fresh)} - before
    assert known(facts.state) == known(fresh.state)


def test_other_images_are_attacked_anew_and_no_model_is_trained_again():
    facts = Facts(plan_of("a", images=40), SHARES)
    carry_out(facts)
    facts.plan, facts.totals["validation"] = replace(facts.plan, images=60), 60
    again = carry_out(facts)
    assert {task.kind for task in again} == {"attack"}
    assert len(again) == 3 * 2 * facts.plan.seeds


@pytest.mark.parametrize("workers", [1, 3])
def test_time_that_is_spent_ends_it(workers):
    facts = Facts(whole(), SHARES)
    assert next_task(replace(facts.plan, seconds=60), facts.state, 59.9) != "finished"
    assert next_task(replace(facts.plan, seconds=60), facts.state, 60.0) == "finished"
    facts.plan = replace(facts.plan, worker_seconds=100.0)
    carry_out(facts, workers)
    assert not is_settled(facts.plan, facts.state)
    assert facts.state.worker_seconds >= 100.0


def test_where_it_is_broken_off_all_models_were_attacked_on_nearly_the_same_images():
    plan = plan_of("a", "b", "c", seeds=1, other_seeds=1, images=100, chunk=20, cascade="autoattack")
    facts = Facts(plan, SHARES)
    for stop in range(5, 80, 5):
        facts = Facts(plan, SHARES)
        carry_out(facts, 1, stop_after=stop)
        done = Counter(model for model, _, _ in facts.state.chunks)
        if len(done) == len(plan.candidates):
            assert max(done.values()) - min(done.values()) <= 1
    assert is_settled(plan, facts.state)


def test_two_workers_wait_for_the_last_of_a_stage():
    facts = Facts(plan_of("a", seeds=1, other_seeds=1), SHARES)
    first, second = (next_and_start(facts) for _ in range(2))
    assert {first.kind, second.kind} == {"train"}
    assert next_task(facts.plan, facts.state, 0.0) == "wait"
    facts.finish(first)
    attack = next_and_start(facts)
    assert (attack.kind, attack.model) == ("attack", first.model)
    # How many chunks there are is known once one was attacked.
    assert next_task(facts.plan, facts.state, 0.0) == "wait"
    facts.finish(attack)
    assert next_task(facts.plan, facts.state, 0.0).chunk == 1


def next_and_start(facts):
    task = next_task(facts.plan, facts.state, 0.0)
    facts.start(task)
    return task


def test_the_first_chunk_of_validation_goes_through_all_of_autoattack_and_the_test_images_too():
    handed = carry_out(Facts(whole(), SHARES))
    cascades = {(task.split, task.chunk): task.cascade for task in handed if task.kind == "attack"}
    assert cascades == {
        ("validation", 0): "autoattack",
        ("validation", 1): "strong",
        ("test", 0): "autoattack",
        ("test", 1): "autoattack",
    }


def test_each_model_is_attacked_from_the_published_one_and_that_from_another():
    handed = carry_out(Facts(plan_of("a", "b"), SHARES))
    looks = {task.model.candidate: task.baseline.candidate for task in handed if task.kind == "checks"}
    assert looks == {"a": "published", "b": "published", "published": "a"}
    assert all(task.baseline.seed == 1 for task in handed if task.kind == "checks")


def test_a_model_from_elsewhere_is_attacked_and_looked_at_but_not_trained():
    given_one = candidate("mine", "given", weights="abc")
    alone = Facts(plan_of(published=False, more=[given_one], test=True, test_images=20), {"mine": 0.4})
    handed = carry_out(alone)
    assert [(task.kind, task.split) for task in handed] == [
        ("attack", "validation"),
        ("checks", ""),
        ("attack", "validation"),
        ("attack", "test"),
    ]
    assert is_settled(alone.plan, alone.state)
    assert select(alone.plan, alone.state).winner.name == "mine"
    beside = Facts(plan_of("a", more=[given_one]), SHARES | {"mine": 0.9})
    kinds = Counter(task.kind for task in carry_out(beside, 2) if task.model.weights)
    assert kinds == {"attack": 2, "checks": 1}


def test_a_model_from_elsewhere_is_looked_at_where_its_baseline_is_lost():
    plan = plan_of(more=[candidate("mine", "given", weights="abc")])
    facts = Facts(plan, {"mine": 0.4})
    every = {Task("train", model).key for model in plan.models(plan.candidates[0], plan.seeds)}
    handed = carry_out(facts, failing=every)
    assert [task.baseline for task in handed if task.kind == "checks"] == [None]
    assert is_settled(plan, facts.state)


def test_one_that_is_compared_gets_all_seeds_and_is_shown_the_test_images():
    plan = plan_of("a", more=[candidate("trades", "compared")], test=True, test_images=20)
    handed = carry_out(Facts(plan, SHARES | {"trades": 0.3}), 2)
    assert Counter(task.model.candidate for task in handed if task.split == "test") == {
        "a": 3,
        "published": 3,
        "trades": 3,
    }


def test_a_model_whose_training_failed_is_tried_again_by_the_next_session():
    plan = plan_of("a")
    lost = Task("train", plan.models(plan.candidates[0], 1)[0])
    facts = Facts(plan, SHARES)
    carry_out(facts, failing={lost.key})
    assert facts.state.models[lost.model.id].lost == "it broke"
    facts.begin()
    assert lost.key in {task.key for task in carry_out(facts)}
    assert known(facts.state) == known(whole_of(plan).state)


def whole_of(plan):
    facts = Facts(plan, SHARES)
    carry_out(facts)
    return facts


def test_weights_that_are_damaged_are_trained_again_once():
    plan = plan_of("a")
    model = plan.models(plan.candidates[0], 1)[0]
    attack = Task("attack", model, "validation", 1, "strong")
    facts = Facts(plan, SHARES)
    handed = carry_out(facts, damaged={attack.key})
    assert Counter(task.key for task in handed)[Task("train", model).key] == 2
    assert known(facts.state) == known(whole_of(plan).state)


def test_no_stage_has_open_tasks_at_the_end():
    facts = whole_of(whole())
    found = list(stages(facts.plan, facts.state))
    assert [stage.split for stage in found] == ["validation", "validation", "", "test"]
    assert not any(open_tasks(facts.plan, facts.state, stage) for stage in found)


def test_what_fails_on_the_test_images_changes_neither_the_winner_nor_who_is_attacked():
    facts = Facts(whole(), SHARES)
    before = None
    for _ in range(MOST):
        task = next_task(facts.plan, facts.state, 0.0)
        if task == "finished":
            break
        assert isinstance(task, Task)
        facts.start(task)
        if task.split == "test":
            before = before or select(facts.plan, facts.state).winner
            facts.over(task, "failed", "out of memory")
        else:
            facts.finish(task)
    assert before is not None
    assert select(facts.plan, facts.state).winner == before
    attacked = {event["job"] for event in facts.events if event["event"] == "job" and " test " in event["job"]}
    fresh = (1001, 1002, 1003)
    judged_here = {one.id for seed in fresh for one in (before.model(seed), facts.plan.candidates[-1].model(seed))}
    assert {job.split()[1] for job in attacked} == judged_here


def test_seeds_that_cannot_be_trained_bar_a_recipe():
    facts = Facts(whole(), SHARES)
    best = facts.plan.candidates[1]
    carry_out(facts, failing={Task("train", facts.plan.models(best, 2)[0]).key})
    found = select(facts.plan, facts.state)
    assert found.winner is not None
    assert found.winner.name == "c", "a mean over the seeds that are left would flatter b"
