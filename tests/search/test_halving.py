"""ASHA as a pure function of the record: the paper's rule, checked by hand and over random streams of results."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from hcpr_tune.search.halving import ALWAYS_PROMOTED, NewTrial, most_epochs, next_decision, usual_epochs
from hcpr_tune.search.record import Event, History, Job
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, reached, suggested

RUNGS = (3, 9, 27)


def decide(history, trials=9):
    return next_decision(history, RUNGS, 3.0, trials)


def test_a_search_begins_with_new_trials_in_order():
    assert decide(history_of()) == NewTrial(0)
    assert decide(history_of(suggested(0), job(0, 0, 3))) == NewTrial(1)


def test_the_published_recipe_is_promoted_whatever_its_score():
    events = [e for n, score in enumerate((1, 900, 800)) for e in (suggested(n), *reached(n, 0, 3, score))]
    assert decide(history_of(*events)) == Job(0, 3, 9)
    events += reached(0, 3, 9, 1)
    assert decide(history_of(*events)) == Job(0, 9, 27)


def test_one_in_three_is_promoted_the_best_first():
    events = [suggested(0), *lost(0, 0, 3)]
    events += [e for n in range(1, 6) for e in (suggested(n), *reached(n, 0, 3, 100 * n))]
    # 6 recorded (the lost one is the worst), so 2 may go on: trial 5, then trial 4.
    assert decide(history_of(*events)) == Job(5, 3, 9)
    events += [job(5, 3, 9)]
    assert decide(history_of(*events)) == Job(4, 3, 9)
    events += [job(4, 3, 9)]
    assert decide(history_of(*events)) == NewTrial(6)


def test_the_highest_rung_comes_first():
    events = [suggested(0), *lost(0, 0, 3)]
    events += [e for n in range(1, 10) for e in (suggested(n), *reached(n, 0, 3, 100 * n))]
    for number in (9, 8, 7):
        events += reached(number, 3, 9, 50 * number)
    assert decide(history_of(*events), trials=20) == Job(9, 9, 27)


def test_equal_scores_promote_the_older_trial():
    events = [suggested(0), *lost(0, 0, 3)]
    events += [e for n in (1, 2, 3) for e in (suggested(n), *reached(n, 0, 3, 500))]
    assert decide(history_of(*events)) == Job(1, 3, 9)


def test_it_waits_for_running_jobs_and_then_ends():
    events = [suggested(0), *lost(0, 0, 3), suggested(1), job(1, 0, 3)]
    assert decide(history_of(*events), trials=2) == "wait"
    events += [epoch(1, 1), epoch(1, 2), epoch(1, 3, 500), job_end(1, 0, 3)]
    assert decide(history_of(*events), trials=2) == "finished"


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_lost_trial_is_never_promoted_and_counts_as_the_worst(status):
    events = [
        suggested(0),
        *lost(0, 0, 3, status),
        suggested(1),
        *reached(1, 0, 3, 1),
        suggested(2),
        *lost(2, 0, 3, status),
    ]
    # 3 recorded, 1 may go on: the only one with a score, however low.
    assert decide(history_of(*events)) == Job(1, 3, 9)


def test_a_broken_off_job_is_handed_out_again_first():
    events = [suggested(0), *reached(0, 0, 3, 500), job(0, 3, 9), epoch(0, 4), suggested(1), job(1, 0, 3)]
    history = history_of(*events, begin())
    assert decide(history) == Job(0, 3, 9)
    history.apply(job(0, 3, 9))
    assert decide(history) == Job(1, 0, 3)
    history.apply(job(1, 0, 3))
    assert decide(history) == NewTrial(2)


def test_a_trial_whose_first_job_was_never_recorded_gets_it():
    assert decide(history_of(suggested(0), begin())) == Job(0, 0, 3)


class Play:
    """A search with several workers on random scores; every decision is taken from a history folded anew."""

    def __init__(self, scores, order, trials, workers=3):
        self.events: list[Event] = [begin()]
        self.decisions: list[str] = []
        self.scores, self.order, self.trials, self.workers = scores, order, trials, workers

    def history(self, cut=None) -> History:
        history = History(27)
        for event in self.events[:cut]:
            history.apply(json.loads(json.dumps(event)))
        return history

    def run(self):
        running: list[Job] = []
        live = self.history()

        def add(*events):
            for event in events:
                self.events.append(event)
                live.apply(event)

        turn = 0
        while True:
            decision = decide(live, self.trials)
            assert decide(self.history(), self.trials) == decision, "the folded record decides otherwise"
            if isinstance(decision, NewTrial) and len(running) < self.workers:
                add(suggested(decision.number))
                decision = Job(decision.number, 0, RUNGS[0])
            if isinstance(decision, Job) and len(running) < self.workers:
                self.decisions.append(repr(decision))
                add(job(decision.trial, decision.start, decision.end))
                running.append(decision)
                continue
            if not running:
                assert decision == "finished"
                return self
            ended = running.pop(self.order[turn % len(self.order)] % len(running))
            score = self.scores[(ended.trial * 3 + RUNGS.index(ended.end)) % len(self.scores)]
            turn += 1
            if score is None:
                add(job_end(ended.trial, ended.start, ended.end, "diverged", "NaN"))
            else:
                add(epoch(ended.trial, ended.end, score), job_end(ended.trial, ended.start, ended.end))


streams = st.tuples(
    st.lists(st.one_of(st.none(), st.integers(0, 1000)), min_size=1, max_size=40),
    st.lists(st.integers(0, 7), min_size=1, max_size=20),
    st.integers(1, 20),
)


@settings(max_examples=60, deadline=None)
@given(streams)
def test_any_search_ends_within_its_bound_and_keeps_the_rule(stream):
    play = Play(*stream).run()
    history = play.history()
    trials = stream[2]
    assert len(history.trials) == trials
    assert all(trial.job is None for trial in history.trials.values())
    assert len(set(play.decisions)) == len(play.decisions), "a job was handed out twice"
    assert sum(max(t.rungs, default=0) for t in history.trials.values()) <= most_epochs(RUNGS, 3.0, trials)
    for before, rung in ((0, 3), (3, 9)):
        recorded = [t for t in history.trials.values() if rung in t.rungs]
        lost_here = [t for t in history.trials.values() if t.status == "diverged" and t.last_rung == before]
        best = sorted(recorded, key=lambda t: (-t.rungs[rung], t.number))[: (len(recorded) + len(lost_here)) // 3]
        for trial in best:
            assert trial.target > rung, "one of the best third was left behind"


@settings(max_examples=40, deadline=None)
@given(streams, st.integers(0, 10_000))
def test_after_a_crash_anywhere_the_running_jobs_come_first_and_no_result_is_lost(stream, where):
    play = Play(*stream).run()
    cut = 1 + where % len(play.events)
    history = play.history(cut)
    # A job whose rung is recorded has done its work, even if its end is not.
    open_jobs = [t.job for t in history.trials.values() if t.job is not None and t.job.end not in t.rungs]
    before = {n: dict(t.rungs) for n, t in history.trials.items()}
    history.apply(begin())
    assert {n: dict(t.rungs) for n, t in history.trials.items()} == before
    for _ in open_jobs:
        decision = decide(history, stream[2])
        assert isinstance(decision, Job)
        if decision not in open_jobs:  # its trial was recorded, its job not yet
            assert not history.trials[decision.trial].target
        history.apply(job(decision.trial, decision.start, decision.end))


def test_bounds_by_hand():
    # 9 trials of 3 epochs; improving scores promote all but the first 2, plus the published one; and so on.
    assert most_epochs(RUNGS, 3.0, 9) == 9 * 3 + 8 * 6 + 7 * 18
    assert usual_epochs(RUNGS, 3.0, 9) == 9 * 3 + 4 * 6 + 2 * 18
    assert most_epochs((27,), 3.0, 9) == usual_epochs((27,), 3.0, 9) == 9 * 27
    assert len(ALWAYS_PROMOTED) == 1
