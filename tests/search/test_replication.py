"""The best recipes and the published one are trained again on fresh seeds, and these say which is the answer."""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from hcpr_tune.common.schema import Wrong
from hcpr_tune.search.record.answer import answer_of
from hcpr_tune.search.record.answer import survived as survived_images
from hcpr_tune.search.record.events.check import search_event
from hcpr_tune.search.record.results import recipe_of
from hcpr_tune.search.scheduling.asha import next_decision
from hcpr_tune.search.selection.replication import (
    SEEDS_FROM,
    Replicate,
    _graded,
    answer,
    next_replicate,
    replicate_seed,
)
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.simulation.curves.curves import GuessedCurves
from hcpr_tune.simulation.search import Trainings, search_simulation
from hcpr_tune.simulation.suggesting import suggester_of
from hcpr_tune.simulation.worker_pool import WorkerPool
from hcpr_tune.training.session import packed
from hcpr_tune.views.terminal.live_view import result_table
from tests.search.histories import LAST_EPOCH, history_of, lost, reached, suggested


def study_with(**replication) -> StudySpec:
    study = read_study(find_space("default"), [("epochs", LAST_EPOCH), ("budget.trials", 12), ("sampler.name", "qmc")])
    settings = study.settings
    return replace(study, settings=replace(settings, replication=replace(settings.replication, **replication)))


def point(study: StudySpec, scale: float):
    return params_of(study.recipe, study.space) | {"hcpr.scale": scale}


def searched(study: StudySpec, *shares: float):
    """Trial 0 with 600 of 1,000, then trials with these shares at every rung."""
    events = [{**suggested(0, point(study, 8.0), "published"), "single_schedule": True}, *reached(0, 0, 27, 600)]
    for number, share in enumerate(shares, 1):
        events.append(suggested(number, point(study, 4.0 + number)))
        for start, end in ((0, 3), (3, 9), (9, 27)):
            events += reached(number, start, end, round(1000 * share))
    return events


def repeated(number: int, of: int, seed: int, robust: int, clean: int = 900):
    how = {"single_schedule": True, "replicate_of": of, "seed": seed}
    return [{**suggested(number, {}, "replicate"), **how}, *reached(number, 0, 27, robust, clean=clean)]


class Second:
    """Every epoch takes a second."""

    def asking(self):
        return 0.0

    handing_out = answering = asking

    def epoch(self, work, epoch, curve, speed, begins, fresh):
        return 1.0, 1.0

    def death(self, work):
        return float("inf")


def simulated(study: StudySpec, seed: int = 0, workers: int = 2):
    curves = GuessedCurves(10, LAST_EPOCH, 359, 3.0, 0.3)
    trainings = Trainings(study, curves.play(study.rungs, study.settings.budget.trials, seed), Second())
    return search_simulation(trainings, WorkerPool(workers), suggester_of(study, curves)).run()


def test_all_get_their_first_seed_before_one_gets_its_second_and_all_get_the_same():
    study = study_with(replicates=2, finalists=2)
    events = searched(study, 0.60, 0.68, 0.66)
    seeds = [replicate_seed(study, index) for index in (0, 1)]
    assert next_replicate(study, history_of(*events), exploring=True) == Replicate(0, seeds[0])
    events += repeated(4, 0, seeds[0], 600)
    assert next_replicate(study, history_of(*events), exploring=True) == "wait", "a finalist may still come"
    order = []
    while isinstance(found := next_replicate(study, history_of(*events), exploring=False), Replicate):
        order.append(tuple(found))
        events += repeated(4 + len(order), found.of, found.seed, 670)
    assert order == [(2, seeds[0]), (3, seeds[0]), (2, seeds[1]), (3, seeds[1]), (0, seeds[1])]
    assert found == "finished"
    assert min(seeds) >= SEEDS_FROM, "a verdict's seeds are the study's plus small numbers"


def test_a_finalist_that_disappoints_makes_room_for_the_next():
    study = study_with(replicates=2, finalists=1)
    events = searched(study, 0.64, 0.66)
    seed = replicate_seed(study, 0)
    events += [*repeated(3, 0, seed, 600), *repeated(4, 0, replicate_seed(study, 1), 600), *repeated(5, 2, seed, 560)]
    assert next_replicate(study, history_of(*events), exploring=False) == Replicate(1, seed)


def test_a_lost_replicate_counts_and_its_recipe_is_not_started_for_ever():
    study = study_with(replicates=1, finalists=1)
    events = searched(study, 0.66)
    how = {"single_schedule": True, "replicate_of": 0, "seed": replicate_seed(study, 0)}
    events += [{**suggested(2, {}, "replicate"), **how}, *lost(2, 0, 27)]
    how = {**how, "replicate_of": 1}
    events += [{**suggested(3, {}, "replicate"), **how}, *lost(3, 0, 27)]
    assert next_replicate(study, history_of(*events), exploring=False) == "finished"


@pytest.mark.parametrize("changes", [{"replicates": 0}, {}])
def test_none_without_replicates_or_with_two_objectives(changes):
    study = study_with(**changes)
    if not changes:
        study = replace(study, settings=replace(study.settings, objective=("robust_accuracy", "clean_accuracy")))
    history = history_of(*searched(study, 0.66))
    assert next_replicate(study, history, exploring=False) == "finished"
    assert (answer(study, history) is None) == (not changes)


def test_the_answer_is_what_fresh_seeds_say_and_not_the_highest_score():
    study = study_with()
    events = searched(study, 0.66, 0.70)
    for place, (of, first, second) in enumerate([(0, 600, 604), (1, 650, 652), (2, 610, 606)]):
        events += repeated(3 + 2 * place, of, replicate_seed(study, 0), first)
        events += repeated(4 + 2 * place, of, replicate_seed(study, 1), second)
    history = history_of(*events)
    chosen, compared = answer(study, history)
    assert history.best_trial.number == 2, "the highest score, as long as nothing was chosen"
    assert chosen == 1
    assert [one["trial"] for one in compared] == [1, 2, 0]
    history.apply({"event": "choice", "time": 1.0, "trial": chosen, "estimates": compared})
    assert history.best_trial.number == 5, "the first fresh seed of the recipe"
    found = answer_of(history)
    assert found.score == pytest.approx(0.651)
    assert found.gain == pytest.approx(4.9)
    assert found.optimism == pytest.approx(0.9)
    history.apply(suggested(9, {}))
    assert history.choice is None, "a further trial withdraws it"


def test_a_collapsed_seed_of_the_published_recipe_wins_no_case_for_the_other():
    study = study_with()
    events = searched(study, 0.66)
    report = {"class_totals_validation": [100] * 10, "attacked_pairs_validation": []}
    collapsed = [
        event | report if event["event"] == "epoch" and event["is_rung"] else event
        for event in repeated(2, 0, replicate_seed(study, 0), 98, clean=98)
    ]
    events += [*collapsed, *repeated(3, 0, replicate_seed(study, 1), 600)]
    events += [*repeated(4, 1, replicate_seed(study, 0), 650), *repeated(5, 1, replicate_seed(study, 1), 640)]
    history = history_of(*events)
    chosen, compared = answer(study, history)
    history.apply({"event": "choice", "time": 1.0, "trial": chosen, "estimates": compared})
    assert history.trials[2].collapsed
    assert answer_of(history).gain == pytest.approx(4.0), "of the seed on which both were trained"


def test_a_whole_search_ends_with_the_replicates_and_an_answer():
    study = study_with()
    history = simulated(study)
    assert len(history.trials) == 12 + study.asha_config.replicates
    published, again = history.trials[0], history.replicates
    assert (published.single_schedule, sorted(published.rungs)) == (True, [27]), "it runs once, to the end"
    assert Counter(trial.replicate_of for trial in again)[0] == 2
    assert history.choice["trial"] == history.best_trial.replicate_of
    assert all(sorted(trial.rungs) == [27] for trial in again)


def test_a_share_of_a_time_budget_is_kept_back():
    study = study_with(budget_share=0.4)
    settings = study.settings
    budget = replace(settings.budget, trials=1000, worker_hours=400 / 3600)
    history = simulated(replace(study, settings=replace(settings, budget=budget)))
    searching = sum(trial.worker_seconds for trial in history.trials.values() if trial.replicate_of is None)
    assert 240 <= searching <= 240 + 2 * 27, "running jobs end at their rung"
    assert history.worker_seconds <= 402
    assert history.replicates
    assert history.choice is not None


def test_a_replicate_has_the_single_schedule_its_own_seed_and_the_recipes_values():
    study = study_with()
    history = history_of(*searched(study, 0.66))
    how = {"single_schedule": True, "replicate_of": 1, "seed": 77}
    history.apply({**suggested(2, history.trials[1].params, "replicate"), **how})
    recipe = recipe_of(study, history.trials[2])
    assert recipe.seed == 77
    assert recipe.lr_schedule == study.settings.replication.lr_schedule
    assert recipe.rungs == (27,)
    assert recipe.hcpr.scale == history.trials[1].params["hcpr.scale"]
    assert recipe_of(study, history.trials[1]).lr_schedule == study.recipe.lr_schedule


def test_asha_neither_counts_replicates_as_trials_nor_waits_for_them():
    study = study_with()
    events = searched(study, *[0.6] * 11)
    how = {"single_schedule": True, "replicate_of": 0, "seed": 1}
    running = {"event": "job", "time": 0.0, "trial": 12, "start": 0, "end": 27}
    history = history_of(*events, {**suggested(12, {}, "replicate"), **how}, running)
    assert next_decision(history, study.asha_config) == "finished"


def test_the_gains_interval_comes_from_the_same_images_of_both_recipes():
    study = study_with()
    events = searched(study, 0.66)
    draws = random.Random(0)
    numbers = iter(range(2, 6))
    for of, share in ((0, 0.60), (1, 0.66)):
        for index in (0, 1):
            survived = [draws.random() < share for _ in range(1000)]
            bits = packed(survived)
            number, seed = next(numbers), replicate_seed(study, index)
            events += [
                event | {"survived_validation": bits} if event["event"] == "epoch" and event["is_rung"] else event
                for event in repeated(number, of, seed, sum(survived))
            ]
    history = history_of(*events)
    for event in events:
        search_event(event)  # as the record would
    chosen, compared = answer(study, history)
    history.apply({"event": "choice", "time": 1.0, "trial": chosen, "estimates": compared})
    found = answer_of(history)
    assert found.difference.value == pytest.approx(found.gain / 100)
    assert found.difference.low < 0.06 < found.difference.high
    assert sum(survived_images(history.trials[5])) == history.trials[5].at_rung(27)["robust_correct_validation"]


def test_the_terminal_shows_means_over_the_fresh_seeds_that_did_not_collapse():
    study = study_with()
    totals = {"class_totals_validation": [100] * 10, "attacked_pairs_validation": []}
    events = searched(study, 0.66)
    for number, (of, index, robust, clean) in enumerate(
        [(0, 0, 98, 98), (0, 1, 600, 900), (1, 0, 650, 920), (1, 1, 640, 910)], start=2
    ):
        events += [
            event | totals if event["event"] == "epoch" and event["is_rung"] else event
            for event in repeated(number, of, replicate_seed(study, index), robust, clean=clean)
        ]
    history = history_of(*events)
    chosen, compared = answer(study, history)
    history.apply({"event": "choice", "time": 1.0, "trial": chosen, "estimates": compared})
    console = Console(width=120, file=io.StringIO())
    console.print(result_table(study, history))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["best", "1", "2", "64.5", "%", "91.5", "%"] in lines
    assert ["published", "0", "1", "of", "2", "60.0", "%", "90.0", "%"] in lines
    assert "a gain of +4.0 points" in " ".join(" ".join(line) for line in lines), "on the seed that both have"


def test_a_search_that_is_extended_trains_its_new_finalists_again_too():
    study = study_with(replicates=1, finalists=1)
    seed = replicate_seed(study, 0)
    events = [*searched(study, 0.66), *repeated(2, 0, seed, 600), *repeated(3, 1, seed, 640)]
    assert next_replicate(study, history_of(*events), exploring=False) == "finished"
    events.append(suggested(4, point(study, 15.0)))
    for start, end in ((0, 3), (3, 9), (9, 27)):
        events += reached(4, start, end, 780)
    assert next_replicate(study, history_of(*events), exploring=False) == Replicate(4, seed)
    events += repeated(5, 4, seed, 700)
    assert next_replicate(study, history_of(*events), exploring=False) == "finished"


def test_the_published_recipe_alone_is_not_trained_again():
    study = study_with()
    alone = replace(study, settings=replace(study.settings, budget=replace(study.settings.budget, trials=1)))
    history = simulated(alone)
    assert (len(history.trials), alone.asha_config.replicates) == (1, 0)
    assert history.choice["trial"] == history.best_trial.number == 0


def with_survivors(events, number: int, counts: tuple[int, ...]):
    """The events with the survivors of a trial at half, whole and one and a half epsilon, of 1,000."""
    pairs = [list(pair) for pair in zip((0.5, 1.0, 1.5), counts, strict=True)]
    return [
        {**event, "survivors_validation": pairs}
        if event["event"] == "epoch" and event["trial"] == number and event["epoch"] == 27
        else event
        for event in events
    ]


def test_survivors_at_several_radii_say_more_than_those_at_epsilon():
    study = study_with(replicates=0)
    events = searched(study, 0.64, 0.65)
    assert answer(study, history_of(*events))[0] == 2
    events = with_survivors(with_survivors(events, 1, (850, 640, 460)), 2, (800, 650, 400))
    chosen, estimates = answer(study, history_of(*events))
    assert chosen == 1
    # What is said is still an accuracy at epsilon.
    assert 0.6 < estimates[0]["mean"] < 0.67


def test_the_variance_of_an_image_s_mean_over_radii_follows_from_the_counts():
    draws = np.random.default_rng(0)
    survive = draws.random((5000, 1)) < np.array([0.8, 0.6, 0.35])
    survive = np.minimum.accumulate(survive, axis=1)
    counts = survive.sum(axis=0).tolist()
    events = with_survivors(searched(study_with(), 0.64), 1, tuple(counts))
    events = [
        {**event, "total_validation": 5000, "clean_correct_validation": 5000}
        if event["event"] == "epoch" and event["is_rung"]
        else event
        for event in events
    ]
    found = _graded(history_of(*events).trials[1], 27)
    assert found.value == pytest.approx(survive.mean())
    assert found.variance == pytest.approx(survive.mean(axis=1).var())


@pytest.mark.parametrize("counts", [(640, 700, 400), (2000, 640, 400)])
def test_survivors_that_cannot_be_are_refused(counts):
    events = with_survivors(searched(study_with(), 0.64), 1, counts)
    with pytest.raises(Wrong, match="survivors_validation must be rising radii, with counts that do not rise"):
        for event in events:
            search_event(event)


def test_where_the_recipes_trained_again_disappoint_the_answer_may_be_another():
    # Time was short: one finalist has a fresh seed, and it is worse than the published recipe.
    study = study_with()
    events = searched(study, 0.66, 0.70, 0.65) + repeated(4, 0, 11, 600) + repeated(5, 1, 11, 550)
    chosen, estimates = answer(study, history_of(*events))
    assert chosen == 2
    ended = history_of(*events, {"event": "choice", "time": 0.0, "trial": chosen, "estimates": estimates})
    assert ended.best_trial.number == 2
    assert answer_of(ended) is None
    out = io.StringIO()
    Console(file=out, width=120).print(result_table(study, ended))
    assert "optimistic" in out.getvalue(), "its score was not measured again"
