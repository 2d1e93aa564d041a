"""Which trial is the best: one answer for all that ask."""

from __future__ import annotations

from hcpr_tune.search.record.ranking import Ranking
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.views.terminal.live_view import result_words
from hcpr_tune.views.terminal.search_output import best_words
from tests.search.histories import history_of, reached, suggested

CLEAN_FIRST = Goal(("clean_accuracy", "robust_accuracy"))


def history_with(*pairs: tuple[int, int], goal: Goal):
    """Trials with a robust and a clean count of 1000 at the first rung."""
    events = []
    for number, (robust, clean) in enumerate(pairs):
        events += [suggested(number), *reached(number, 0, 3, robust, clean=clean)]
    return history_of(*events, goal=goal)


def test_with_two_objectives_the_best_is_the_one_on_the_front_that_is_best_in_the_first():
    history = history_with((500, 600), (300, 900), (400, 800), (299, 899), goal=CLEAN_FIRST)
    assert [trial.number for trial in history.best_trials] == [1, 2, 0]
    assert history.best_trial is history.trials[1]
    # In the order of NSGA-II both ends of the front come first, the older trial before the other.
    assert history.ranked()[0] is history.trials[0]


def test_the_lines_of_a_search_name_the_best_trial(small_study):
    history = history_with((500, 600), (300, 900), goal=CLEAN_FIRST)
    assert best_words(history) == "30.0 % by trial 1"
    assert "NO trial reaches" not in result_words(small_study, history)


def test_where_no_trial_reaches_the_floor_the_best_is_the_one_that_misses_least():
    history = history_with((900, 300), (500, 700), (400, 600), goal=Goal(floors={"clean_accuracy": 0.8}))
    assert (history.best_trials, history.best_trial) == ([], history.trials[1])


def test_without_a_score_there_is_no_best_trial():
    history = history_of(suggested(0))
    assert (history.ranked(), history.best_trials, history.best_trial) == ([], [], None)


def test_each_event_brings_a_new_ranking():
    history = history_with((500, 900), goal=Goal())
    before = history.ranking
    assert history.ranking is before
    for event in (suggested(1), *reached(1, 0, 3, 600)):
        history.apply(event)
    assert history.best_trial is history.trials[1]
    assert history.ranked() == Ranking(history.goal, history.trials.values()).order
