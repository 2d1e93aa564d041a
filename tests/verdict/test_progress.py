"""What a running verdict says of its models: of the rung whose weights it keeps and attacks."""

from __future__ import annotations

import pytest

from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.verdict.decision.agenda import Task
from hcpr_tune.verdict.decision.selection import best_epoch
from hcpr_tune.verdict.progress import Progress
from tests.verdict.facts import Facts, plan_of

COUNTS = {2: (60, 180), 4: (120, 140)}
"""Robust and clean counts of 200 at the two rungs: the second is more robust, and less accurate."""


def news_of_a_training(goal: Goal) -> tuple[int, float]:
    """The rung that is evaluated and the robust accuracy that is reported, after one training."""
    facts = Facts(plan_of("a", goal=goal))
    model, told = facts.plan.models(facts.plan.candidates[0], 1)[0], []
    task = Task("train", model)
    facts.start(task)
    for epoch, (robust, clean) in COUNTS.items():
        facts.write(
            "epoch",
            model=model.id,
            job=task.key,
            epoch=epoch,
            is_rung=True,
            robust_correct_validation=robust,
            clean_correct_validation=clean,
            total_validation=200,
            seconds_attack=0.5,
            seconds_update=0.25,
            seconds_evaluation=0.25,
        )
    facts.over(task)
    Progress(facts.plan, told.append).on_event(facts.events[-1], facts.state)
    (news,) = told
    return best_epoch(facts.plan, facts.state.models[model.id]), news["robust_accuracy"]


@pytest.mark.parametrize(
    ("goal", "rung", "robust"),
    [
        (Goal(), 4, 0.6),
        (Goal(floors={"clean_accuracy": 0.8}), 2, 0.3),
        (Goal(("clean_accuracy", "robust_accuracy")), 2, 0.3),
    ],
    ids=["robust accuracy", "a floor", "clean accuracy first"],
)
def test_the_news_are_of_the_rung_that_is_attacked(goal, rung, robust):
    assert news_of_a_training(goal) == (rung, robust)
