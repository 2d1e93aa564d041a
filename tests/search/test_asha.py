"""ASHA as a pure function of the record: the paper's rule, checked by hand and over random streams of results."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from hcpr_tune.search.record.history import Event, History, Job
from hcpr_tune.search.scheduling.asha import (
    AshaConfig,
    NewTrial,
    bracket_of,
    bracket_shares,
    first_job,
    hopeless,
    most_epochs,
    next_decision,
    usual_epochs,
)
from hcpr_tune.search.scheduling.rung_correlation import rung_correlations
from hcpr_tune.search.spec.objectives import Goal
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, published, reached, suggested

RUNGS = (3, 9, 27)


def decide(history, trials=9, **more):
    return next_decision(history, AshaConfig(RUNGS, trials, **more))


def test_a_search_begins_with_new_trials_in_order():
    assert decide(history_of()) == NewTrial(0)
    assert decide(history_of(published(), job(0, 0, 3))) == NewTrial(1)


def test_the_published_recipe_is_promoted_whatever_its_score():
    events = [published(), *reached(0, 0, 3, 1)]
    events += [e for n, score in ((1, 900), (2, 800)) for e in (suggested(n), *reached(n, 0, 3, score))]
    assert decide(history_of(*events)) == Job(0, 3, 9)
    events += reached(0, 3, 9, 1)
    assert decide(history_of(*events)) == Job(0, 9, 27)


def test_one_in_three_is_promoted_the_best_first():
    events = [published(), *lost(0, 0, 3)]
    events += [e for n in range(1, 6) for e in (suggested(n), *reached(n, 0, 3, 100 * n))]
    # 6 recorded (the lost one is the worst), so 2 may go on: trial 5, then trial 4.
    assert decide(history_of(*events)) == Job(5, 3, 9)
    events += [job(5, 3, 9)]
    assert decide(history_of(*events)) == Job(4, 3, 9)
    events += [job(4, 3, 9)]
    assert decide(history_of(*events)) == NewTrial(6)


def test_the_highest_rung_comes_first():
    events = [published(), *lost(0, 0, 3)]
    events += [e for n in range(1, 10) for e in (suggested(n), *reached(n, 0, 3, 100 * n))]
    for number in (9, 8, 7):
        events += reached(number, 3, 9, 50 * number)
    assert decide(history_of(*events), trials=20) == Job(9, 9, 27)


def test_equal_scores_promote_the_older_trial():
    events = [published(), *lost(0, 0, 3)]
    events += [e for n in (1, 2, 3) for e in (suggested(n), *reached(n, 0, 3, 500))]
    assert decide(history_of(*events)) == Job(1, 3, 9)


def test_it_waits_for_running_jobs_and_then_ends():
    events = [published(), *lost(0, 0, 3), suggested(1), job(1, 0, 3)]
    assert decide(history_of(*events), trials=2) == "wait"
    events += [epoch(1, 1), epoch(1, 2), epoch(1, 3, 500), job_end(1, 0, 3)]
    assert decide(history_of(*events), trials=2) == "finished"


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_lost_trial_is_never_promoted_and_counts_as_the_worst(status):
    events = [
        published(),
        *lost(0, 0, 3, status),
        suggested(1),
        *reached(1, 0, 3, 1),
        suggested(2),
        *lost(2, 0, 3, status),
    ]
    # 3 recorded, 1 may go on: the only one with a score, however low.
    assert decide(history_of(*events)) == Job(1, 3, 9)


def test_a_broken_off_job_is_handed_out_again_first():
    events = [published(), *reached(0, 0, 3, 500), job(0, 3, 9), epoch(0, 4), suggested(1), job(1, 0, 3)]
    history = history_of(*events, begin())
    assert decide(history) == Job(0, 3, 9)
    history.apply(job(0, 3, 9))
    assert decide(history) == Job(1, 0, 3)
    history.apply(job(1, 0, 3))
    assert decide(history) == NewTrial(2)


def test_a_trial_whose_first_job_was_never_recorded_gets_it():
    assert decide(history_of(published(), begin())) == Job(0, 0, 3)


def recorded(*scores, rung=3, clean=None, sources=()):
    """Trials 0, 1, ... with these counts of 1000 at one rung, reached from scratch; trial 0 is no published recipe."""
    events = []
    for number, score in enumerate(scores):
        source = sources[number] if number < len(sources) else "tpe"
        events += [suggested(number, source=source), *reached(number, 0, rung, score, clean=clean and clean[number])]
    return events


def test_calibration_runs_to_the_end_whatever_its_scores():
    events = recorded(1, 900, 800, sources=("calibration",))
    assert decide(history_of(*events)) == Job(0, 3, 9)


def test_an_audited_trial_is_promoted_after_all():
    events = [*recorded(1, 900, 800), *reached(1, 3, 9, 900), *reached(1, 9, 27, 900)]
    assert decide(history_of(*events), trials=3) == "finished"
    assert decide(history_of(*events, {"event": "audit", "time": 0.0, "trials": [0]}), trials=3) == Job(0, 3, 9)


def ends(scores):
    """Trials ranked at rung 3 by their numbers and at the end by `scores`; all ran to the end as calibration."""
    events = []
    for number, score in enumerate(scores):
        events += [suggested(number, source="calibration"), *reached(number, 0, 3, 100 + number)]
        events += [*reached(number, 3, 9, score), *reached(number, 9, 27, score)]
    return events


def test_a_rung_that_does_not_foretell_the_end_stops_nobody():
    foretells = [*ends((300, 350, 400, 450, 500, 550)), suggested(6), *reached(6, 0, 3, 1)]
    misleads = [*ends((550, 500, 450, 400, 350, 300)), suggested(6), *reached(6, 0, 3, 1)]
    assert decide(history_of(*foretells), trials=7) == "finished"
    assert decide(history_of(*misleads), trials=7) == Job(6, 3, 9)
    assert decide(history_of(*misleads), trials=7, min_rank_correlation=-1.0) == "finished"
    # Rung 9 is worth something: there the worst is stopped.
    assert decide(history_of(*misleads, *reached(6, 3, 9, 1)), trials=7) == "finished"


def test_a_rung_stops_where_the_end_tells_nothing():
    """The same order, but of ends that differ less than their counts and seeds do: that proves nothing of the rung."""
    alike = [*ends((505, 504, 503, 502, 501, 500)), suggested(6), *reached(6, 0, 3, 1)]
    assert decide(history_of(*alike), trials=7) == "finished"


def test_with_too_few_points_a_rung_halves_as_usual():
    misleads = [*ends((550, 500, 450, 400)), suggested(4), *reached(4, 0, 3, 1)]
    assert decide(history_of(*misleads), trials=5) == "finished"


def test_a_point_that_somebody_asked_for_comes_before_promotions_and_beyond_the_trials():
    events = [*recorded(900, 800, 700), {"event": "enqueue", "time": 0.0, "params": {"x": 1}, "request": "1"}]
    assert decide(history_of(*events), trials=3) == NewTrial(3)
    events += [suggested(3, {"x": 1}, "enqueued"), *reached(3, 0, 3, 1)]
    assert decide(history_of(*events), trials=3) == Job(0, 3, 9)


def test_a_killed_trial_is_never_promoted_and_does_not_count_as_the_worst():
    events = [*recorded(900, 800, 700), {"event": "kill", "time": 0.0, "trial": 0, "request": "1"}]
    assert decide(history_of(*events), trials=3) == "finished"


def test_time_that_is_up_ends_the_search_and_more_goes_on():
    events = [*recorded(900, 800, 700), begin(), job(0, 3, 9), epoch(0, 4, time=50.0)]
    history = history_of(*events)
    assert decide(history, seconds=50) == decide(history, worker_seconds=50) == "finished"
    assert decide(history, seconds=51, worker_seconds=51) == NewTrial(3)


def test_where_each_rung_is_a_training_of_its_own_a_promotion_starts_from_scratch():
    events = recorded(900, 800, 700)
    assert decide(history_of(*events), restarted=True) == Job(0, 0, 9)
    again = history_of(*events, job(0, 0, 9), epoch(0, 1), begin())
    assert decide(again, restarted=True) == Job(0, 0, 9)
    assert again.trials[0].last_epoch == 1
    assert len(again.trials[0].epochs) == 4
    done = history_of(*events, *reached(0, 0, 9, 950))
    assert done.trials[0].rungs == {3: 0.9, 9: 0.95}
    assert done.trials[0].at_rung(9)["robust_correct_validation"] == 950


def test_a_new_top_rung_reopens_the_trials_that_were_complete():
    events = [*recorded(900, 800, 700), *reached(0, 3, 9, 900), *reached(0, 9, 27, 900)]
    more = {"event": "extend", "time": 0.0, "budget": {"epochs": 81}}
    history = history_of(*events, more)
    assert history.trials[0].status == "waiting"
    assert next_decision(history, AshaConfig((3, 9, 27, 81), 3)) == "finished"  # one of one: no quota yet
    alone = AshaConfig((3, 9, 27, 81), 3, reduction_factor=1.0001)
    assert next_decision(history, alone) == Job(1, 3, 9)  # 27: 1 of 1 is floor(1 / 1.0001) = 0; 3: 2 of 3
    more_at_the_top = history_of(*events, *reached(1, 3, 9, 800), *reached(1, 9, 27, 800), more)
    assert next_decision(more_at_the_top, alone) == Job(0, 27, 81)


def test_several_objectives_promote_the_front_first():
    # (robust, clean): trial 0 is beaten by trial 1 in both; 1 and 2 are the front.
    events = recorded(500, 600, 400, clean=(700, 800, 900))
    history = history_of(*events, goal=Goal(("robust_accuracy", "clean_accuracy")))
    assert decide(history, trials=3, reduction_factor=1.5) == Job(1, 3, 9)
    history.apply(job(1, 3, 9))
    assert decide(history, trials=3, reduction_factor=1.5) == Job(2, 3, 9)


def test_a_trial_below_the_floor_loses_to_all_above_it():
    events = recorded(900, 500, 400, clean=(700, 860, 870))
    history = history_of(*events, goal=Goal(floors={"clean_accuracy": 0.85}))
    assert decide(history, trials=3) == Job(1, 3, 9)
    assert [trial.number for trial in history.ranked()] == [1, 2, 0]


def test_brackets_begin_at_their_rung_and_keep_their_own_quotas():
    asha_config = AshaConfig(RUNGS, 60, brackets=2, seed=3)
    history = history_of(*[suggested(number) for number in range(60)])
    brackets = [bracket_of(trial, asha_config) for trial in history.trials.values()]
    assert {0, 1} == set(brackets)
    assert brackets == [bracket_of(trial, asha_config) for trial in history.trials.values()]
    assert bracket_shares(asha_config) == pytest.approx([0.75, 0.25])
    assert 30 <= brackets.count(0) <= 55
    assert all(
        first_job(trial, asha_config).end == RUNGS[bracket_of(trial, asha_config)] for trial in history.trials.values()
    )
    late = [number for number in range(60) if brackets[number] == 1][:3]
    early = [number for number in range(60) if brackets[number] == 0][:3]
    events = [suggested(number) for number in range(60)]
    for place, number in enumerate(late):
        events += [job(number, 0, 9), epoch(number, 3, 999), epoch(number, 9, 500 + place), job_end(number, 0, 9)]
    history = history_of(*events)
    promoted = [trial.number for trial in history.trials.values() if trial.rungs]
    assert promoted == late
    for number in early:
        for event in reached(number, 0, 3, 10 + number):
            history.apply(event)
    # Broken-off first jobs of the others would come first: they have none recorded here, so give them a target.
    for trial in history.trials.values():
        if not trial.rungs:
            trial.status = "killed"
    assert next_decision(history, asha_config) == Job(late[-1], 9, 27)
    history.apply(job(late[-1], 9, 27))
    # High scores of the other bracket at epoch 3 do not take this bracket's quota.
    assert next_decision(history, asha_config) == Job(early[-1], 3, 9)


def test_random_promotion_does_not_look_at_the_scores():
    high = history_of(*recorded(*range(100, 1000, 100)))
    low = history_of(*recorded(*range(1000, 100, -100)))
    chosen = {decide(history, method="random", seed=5) for history in (high, low)}
    assert len(chosen) == 1
    assert decide(high) != decide(low)


def failures(reasons, first=0):
    return [
        one
        for number, reason in enumerate(reasons, first)
        for one in (suggested(number), job(number, 0, 3), job_end(number, 0, 3, "failed", reason))
    ]


def test_five_trials_lost_for_one_reason_end_the_search():
    same = [f"the loss is not finite in epoch {n} (accuracy nan, consistency {n}.5e-3)" for n in range(1, 6)]
    history = history_of(*failures(same))
    assert hopeless(history) == same[0]
    assert decide(history) == "finished"
    assert not hopeless(history_of(*failures(same[:4])))
    assert not hopeless(history_of(*failures([*same[:4], "KeyError: 'x'"])))


def test_there_is_hope_while_a_trial_comes_on_or_one_has_reached_a_rung():
    same = ["RuntimeError: no"] * 5
    on_its_way = [suggested(0), job(0, 0, 3), epoch(0, 1)]
    assert not hopeless(history_of(*on_its_way, *failures(same, 1)))
    assert hopeless(history_of(*on_its_way[:2], *failures(same, 1)))
    assert not hopeless(history_of(suggested(0), *reached(0, 0, 3, 500), *failures(same, 1)))


def test_a_resumed_search_tries_five_more():
    five = failures(["RuntimeError: no"] * 5)
    end = {"event": "end", "time": 9.0, "reason": "finished"}
    assert decide(history_of(*five, end, begin(10.0))) == NewTrial(5)
    # After a kill it is the same search.
    assert decide(history_of(*five, begin(10.0))) == "finished"


class Play:
    """A search with several workers on random scores; every decision is taken from a history folded anew."""

    def __init__(self, scores, order, trials, shape=(1, 1, False), workers=3):
        self.events: list[Event] = [begin()]
        brackets, self.calibration, restarted = shape
        self.asha_config = AshaConfig(RUNGS, trials, brackets=brackets, restarted=restarted, seed=7)
        self.decisions: list[str] = []
        self.turn = 0
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

        while True:
            decision = next_decision(live, self.asha_config)
            assert next_decision(self.history(), self.asha_config) == decision, "the folded record decides otherwise"
            if isinstance(decision, NewTrial) and len(running) < self.workers:
                source = "calibration" if decision.number < self.calibration else "tpe"
                add(suggested(decision.number, source=source))
                decision = first_job(live.trials[decision.number], self.asha_config)
            if isinstance(decision, Job) and len(running) < self.workers:
                self.decisions.append(repr(decision))
                add(job(decision.trial, decision.start, decision.end))
                running.append(decision)
                continue
            if not running:
                assert decision == "finished"
                return self
            ended = running.pop(self.order[self.turn % len(self.order)] % len(running))
            score = self.scores[(ended.trial * 3 + RUNGS.index(ended.end)) % len(self.scores)]
            self.turn += 1
            if score is None:
                add(job_end(ended.trial, ended.start, ended.end, "diverged", "NaN"))
            else:
                passed = [r for r in RUNGS if ended.start < r < ended.end and not self.asha_config.restarted]
                add(*(epoch(ended.trial, r, score) for r in passed))
                add(epoch(ended.trial, ended.end, score), job_end(ended.trial, ended.start, ended.end))


def check_each_promotion(play):
    """What went on was then in the top third of its bracket, or calibration, or its rung predicted too little."""
    history, asha_config = History(27), play.asha_config
    for event in play.events:
        if event["event"] == "job":
            trial = history.trials[event["trial"]]
            rung, bracket = trial.last_rung, bracket_of(trial, asha_config)
            members = [t for t in history.trials.values() if bracket_of(t, asha_config) == bracket]
            at_rung = [t for t in members if rung in t.rungs]
            worse = sum(t.lost and rung not in t.rungs and t.target == rung for t in members)
            better = (
                sum((-t.rungs[rung], t.number) < (-trial.rungs[rung], trial.number) for t in at_rung) if rung else 0
            )
            in_quota = better < (len(at_rung) + worse) // 3
            worthless = rung in RUNGS[:-1] and not rung_correlations(history, RUNGS)[rung].halves(
                asha_config.min_rank_correlation
            )
            assert not rung or trial.source == "calibration" or worthless or in_quota
        history.apply(json.loads(json.dumps(event)))


streams = st.tuples(
    st.lists(st.one_of(st.none(), st.integers(0, 1000)), min_size=1, max_size=40),
    st.lists(st.integers(0, 7), min_size=1, max_size=20),
    st.integers(1, 20),
    st.tuples(st.integers(1, 3), st.integers(0, 6), st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(streams)
def test_any_search_ends_within_its_bound_and_keeps_the_rule(stream):
    play = Play(*stream).run()
    history, asha_config = play.history(), play.asha_config
    assert len(history.trials) == stream[2] or hopeless(history)
    assert all(trial.job is None for trial in history.trials.values())
    assert len(set(play.decisions)) == len(play.decisions), "a job was handed out twice"
    assert sum(trial.last_rung for trial in history.trials.values()) <= most_epochs(asha_config)
    for trial in history.trials.values():
        if trial.source == "calibration" and not trial.lost:
            assert trial.status == "completed"
    check_each_promotion(play)
    if asha_config.brackets > 1:
        return
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
        decision = next_decision(history, play.asha_config)
        if hopeless(history):
            assert decision == "finished"
            return
        assert isinstance(decision, Job)
        trial = history.trials[decision.trial]
        if decision.end not in [one.end for one in open_jobs if one.trial == decision.trial]:
            assert not trial.target  # its trial was recorded, its job not yet
        history.apply(job(decision.trial, decision.start, decision.end))


@settings(max_examples=40, deadline=None)
@given(streams, st.integers(0, 10_000))
def test_with_one_worker_a_crash_anywhere_changes_no_later_decision(stream, where):
    whole = Play(*stream, workers=1).run()
    cut = 1 + where % len(whole.events)
    while cut < len(whole.events) and whole.events[cut]["event"] == "epoch":
        cut += 1  # the epochs of one report stand together here
    broken = Play(*stream, workers=1)
    broken.events = [*whole.events[:cut], begin()]
    broken.decisions = []
    broken.turn = sum(event["event"] == "job_end" for event in broken.events)
    broken.run()
    # The job that was running is handed out again; from there on the decisions are those of the unbroken search.
    before = [e for e in whole.events[:cut] if e["event"] == "job"]
    open_job = bool(before) and not any(
        e["event"] == "job_end" and e["trial"] == before[-1]["trial"] and e["end"] == before[-1]["end"]
        for e in whole.events[:cut]
    )
    done = len(before) - (open_job and before[-1]["end"] not in whole.history(cut).trials[before[-1]["trial"]].rungs)
    assert broken.decisions == whole.decisions[done:]
    again = [(e["trial"], e["start"], e["end"]) for e in broken.events if e["event"] == "job_end"]
    rungs = {n: t.rungs for n, t in broken.history().trials.items()}
    assert rungs == {n: t.rungs for n, t in whole.history().trials.items()}
    assert len(set(again)) == len(again)


def test_bounds_by_hand():
    # 9 trials: the published one to the end, of the other 8 each rung promotes a third.
    assert usual_epochs(AshaConfig(RUNGS, 9), calibration=1) == round(27 + 8 * 3 + 8 / 3 * 6 + 8 / 9 * 18)
    assert usual_epochs(AshaConfig(RUNGS, 9, restarted=True), calibration=1) == round(
        39 + 8 * 3 + 8 / 3 * 9 + 8 / 9 * 27
    )
    assert usual_epochs(AshaConfig(RUNGS, 9), calibration=9) == most_epochs(AshaConfig(RUNGS, 9)) == 9 * 27
    assert most_epochs(AshaConfig(RUNGS, 9, restarted=True)) == 9 * 39
    assert usual_epochs(AshaConfig((27,), 9), calibration=1) == 9 * 27
    # In brackets three trials in four begin at 3, one at 9, which passes 3 on its way.
    assert usual_epochs(AshaConfig(RUNGS, 9, brackets=2), calibration=1) == round(
        27 + 8 * 3 + (6 / 3 + 2) * 6 + (6 / 9 + 2 / 3) * 18
    )
