"""Decisions that are kept up to date event by event are those of the plain rule, after every event of any search."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from hcpr_tune.search.record.history import WORKER_DIED, Event, History, Job
from hcpr_tune.search.scheduling import rung_correlation
from hcpr_tune.search.scheduling.asha import NewTrial, earned_rungs, first_job, next_decision
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.spec.objectives import Goal
from tests.search import plain_asha
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, reached, suggested

SOURCES = ("tpe", "tpe", "calibration", "calibration", "first point", "prior")
ENDS = ("diverged", "failed", WORKER_DIED, "broken off", "killed")

OWN_RULES = tuple(f"tests.search.own:{name}" for name in ("above_median", "like_asha", "no_one"))


@dataclass
class Search:
    """A search that follows its decisions, or does what no driver would do just now, as `draw` has it."""

    asha_config: AshaConfig
    goal: Goal
    draw: random.Random
    most_points: int
    scores: int
    """How many different scores there are: few make ties."""
    luck: float
    """How often a job reaches its rung."""
    history: History = field(init=False)
    last_epoch: int = field(init=False)
    """The one that the search began with."""
    events: list[Event] = field(default_factory=list)
    arrived: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last_epoch = self.asha_config.rungs[-1]
        self.history = History(self.last_epoch, self.goal)
        self.add(begin())

    def add(self, event: Event) -> None:
        self.events.append(event)
        if self.history.apply(json.loads(json.dumps(event))) and event.get("is_rung"):
            self.arrived.append((event["trial"], event["epoch"]))
        plain = self.arrived, self.most_points
        decided = next_decision(self.history, self.asha_config)
        assert decided == plain_asha.next_decision(self.history, self.asha_config, *plain)
        trial = self.history.trials.get(event.get("trial", 0))
        if trial is not None:
            expected = plain_asha.earned_rungs(self.history, trial, self.asha_config, *plain)
            assert earned_rungs(self.history, trial, self.asha_config) == expected

    def folded_anew(self) -> History:
        history = History(self.last_epoch, self.goal)
        for event in self.events:
            history.apply(event)
        return history

    def step(self) -> None:
        """What a driver does next, mostly; else something from outside."""
        running = list(self.history.running_jobs.values())
        chance = self.draw.random()
        if chance < 0.08:
            self.disturb()
        elif chance < 0.5 or not running:
            self.hand_out()
        else:
            self.report(self.draw.choice(running))

    def hand_out(self) -> None:
        decision: Any = next_decision(self.history, self.asha_config)
        if isinstance(decision, NewTrial):
            source = "published" if decision.number == 0 else self.draw.choice(SOURCES)
            if self.history.queue:
                source = "enqueued"
            self.add(suggested(decision.number, {"x": decision.number}, source))
            decision = first_job(self.history.trials[decision.number], self.asha_config)
        if isinstance(decision, Job) and self.draw.random() < 0.97:
            self.add(job(decision.trial, decision.start, decision.end))

    def report(self, trial: Any) -> None:
        """An epoch that is no rung, a rung, or how the job ends; with its last rung mostly both."""
        work = trial.job
        passed = [rung for rung in self.asha_config.rungs if work.start < rung <= work.end and rung not in trial.rungs]
        if self.asha_config.restarted:
            passed = [work.end]
        if self.draw.random() < 0.05:
            self.add(epoch(trial.number, work.start + 1))
        elif passed and self.draw.random() < self.luck:
            for rung in passed:
                self.add(epoch(trial.number, rung, self.score(), self.scores, clean=self.score()))
            if self.draw.random() < 0.9:
                self.add(job_end(trial.number, work.start, work.end))
        else:
            status = self.draw.choice(ENDS) if passed else "reached"
            reason = self.draw.choice(("it failed", "it failed", "it failed", "it failed otherwise"))
            end = job_end(trial.number, work.start, work.end, status, reason)
            self.add(end | {"failed_start": self.draw.random() < 0.3} if status == WORKER_DIED else end)

    def disturb(self) -> None:
        what = self.draw.choice(("begin", "enqueue", "kill", "audit", "trials", "epochs", "workers", "rules"))
        numbers = list(self.history.trials)
        if what == "begin":
            if self.draw.random() < 0.3:
                self.add({"event": "end", "time": 0.0, "reason": "finished"})
            self.add(begin())
        elif what == "enqueue":
            self.add({"event": "enqueue", "time": 0.0, "params": {"x": -1}, "request": str(len(self.events))})
        elif what == "workers":
            self.add({"event": "workers", "time": 0.0, "workers": 3})
        elif what == "rules":
            # No driver changes these, but a history answers for whatever rules it is asked with.
            self.asha_config = replace(
                self.asha_config, seed=self.draw.randint(0, 3), min_rank_correlation=self.draw.uniform(-1, 1)
            )
        elif what == "trials":
            self.asha_config = replace(self.asha_config, trials=self.asha_config.trials + 5)
            self.add({"event": "extend", "time": 0.0, "budget": {"trials": self.asha_config.trials}})
        elif what == "epochs" and len(self.asha_config.rungs) < 5 and self.draw.random() < 0.3:
            last = 2 * self.asha_config.rungs[-1]
            self.asha_config = replace(self.asha_config, rungs=(*self.asha_config.rungs, last))
            self.add({"event": "extend", "time": 0.0, "budget": {"epochs": last}})
        elif what == "kill" and numbers:
            number = self.draw.choice(numbers)
            self.add({"event": "kill", "time": 0.0, "trial": number, "request": str(len(self.events))})
        elif what == "audit":
            stopped = [one.number for one in self.history.trials.values() if one.state == "stopped"]
            self.add({"event": "audit", "time": 0.0, "trials": stopped[:2]})

    def score(self) -> int:
        return self.draw.randint(0, self.scores)


GOALS = (
    Goal(),
    Goal(),
    Goal(("clean_accuracy",), {"robust_accuracy": 0.5}),
    Goal(floors={"clean_accuracy": 0.6, "robust_accuracy": 0.2}),
    Goal(("robust_accuracy", "clean_accuracy")),
    Goal(("robust_accuracy", "clean_accuracy"), {"clean_accuracy": 0.4}),
)

searches = st.builds(
    Search,
    st.builds(
        AshaConfig,
        st.sampled_from([(1, 3, 9), (2, 6), (1, 2, 4, 8), (5,)]),
        st.integers(1, 60),
        reduction_factor=st.sampled_from([1.0001, 1.5, 2.0, 3.0, 4.0]),
        method=st.sampled_from(["asha", "asha", "random", "none", *OWN_RULES]),
        brackets=st.just(1),
        min_rank_correlation=st.sampled_from([-1.0, 0.0, 0.5, 0.9, 1.0]),
        seed=st.integers(0, 3),
        restarted=st.booleans(),
    ).flatmap(
        lambda asha_config: st.integers(1, min(3, len(asha_config.rungs))).map(
            lambda n: replace(asha_config, brackets=n)
        )
    ),
    st.sampled_from(GOALS),
    st.randoms(use_true_random=False),
    st.sampled_from([6, 1000]),
    st.sampled_from([3, 1000]),
    st.sampled_from([0.3, 0.9, 0.9]),
)


@settings(max_examples=40, deadline=None)
@given(search=searches, steps=st.integers(50, 160))
def test_after_every_event_the_decision_is_that_of_the_plain_rule(search, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rung_correlation, "MOST_POINTS", search.most_points)
        for _ in range(steps):
            search.step()
        anew = search.folded_anew()
        assert anew == search.history
        assert next_decision(anew, search.asha_config) == next_decision(search.history, search.asha_config)


def test_fronts_do_not_depend_on_who_came_first():
    # (robust, clean) of one front: the ends first, then of the two equals the older one, whichever of them came to the
    # rung first.
    values = {0: (600, 400), 1: (500, 500), 2: (500, 500), 3: (300, 600)}
    asha_config, goal = AshaConfig((3, 9, 27), 4, reduction_factor=1.3), Goal(("robust_accuracy", "clean_accuracy"))
    for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
        history = history_of(*[suggested(number) for number in values], goal=goal)
        events = [one for number in order for one in reached(number, 0, 3, values[number][0], clean=values[number][1])]
        for event in (*events, job(0, 3, 9), job(3, 3, 9)):
            next_decision(history, asha_config)
            history.apply(event)
        assert next_decision(history, asha_config) == Job(1, 3, 9)


def test_a_decision_looks_at_what_has_changed_only():
    class Counting(dict):
        looks = 0

        def __getitem__(self, number):
            Counting.looks += 1
            return super().__getitem__(number)

        def values(self):
            raise AssertionError("all trials were gone through")

    asha_config = AshaConfig((3, 9, 27), 1000)
    events = [one for number in range(300) for one in (suggested(number), *reached(number, 0, 3, 7 * number % 1000))]
    history = history_of(*events, *lost(0, 3, 9))
    next_decision(history, asha_config)
    history.trials = Counting(history.trials)
    for number in range(300, 330):
        for event in (suggested(number), *reached(number, 0, 3, 500)):
            history.apply(event)
        next_decision(history, asha_config)
    assert Counting.looks < 30 * 12


def test_another_score_for_the_same_rung_counts():
    # No search of today records one; a history that is asked all the time must answer as one that is folded at once.
    events = [one for number in range(6) for one in (suggested(number), *reached(number, 0, 3, 100 + number))]
    asha_config, kept = AshaConfig((3, 9, 27), 6), history_of(*events)
    assert next_decision(kept, asha_config) == Job(5, 3, 9)
    kept.trials[5].epoch_offset = 1
    kept.apply(epoch(5, 3, 1))
    assert next_decision(kept, asha_config) == Job(4, 3, 9)
