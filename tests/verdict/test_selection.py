"""Who wins on validation, whose numbers are not believed, and what is made of it in plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.common.settings import to_plain
from hcpr_tune.common.statistics import mcnemar
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.training.recipe import Optimiser, Schedule
from hcpr_tune.verdict.decision.agenda import Task
from hcpr_tune.verdict.decision.conclusion import best_model, conclude, optimism
from hcpr_tune.verdict.decision.selection import select, survive, unreliable
from hcpr_tune.verdict.plan import Candidate, ablations, full_plan, published, small_plan
from hcpr_tune.views.verdicts import table_rows, verdict_lines
from tests.search.histories import begin, epoch, history_of, job, job_end, reached, suggested
from tests.verdict.facts import BASE, HONEST, Facts, candidate, judged, plan_of

SHARES = {"a": 0.4, "b": 0.7, "c": 0.55, "published": 0.5}


def concluded(study, facts):
    """The verdict in plain values, through JSON's types alone."""
    return conclude(study, history_of(), "x", facts.plan, facts.state)


def names(found):
    return [one.name for one in found.order]


def winner_with(plan, facts):
    """Who wins, and what speaks against b."""
    facts_of_b = plan.models(plan.candidates[1], plan.other_seeds)
    found = select(plan, facts.state)
    return found.winner.name, unreliable(plan, facts.state, facts_of_b)


def test_the_best_mean_over_the_first_seeds_wins_and_the_published_recipe_is_its_baseline():
    plan = plan_of("a", "b", "c")
    found = select(plan, judged(plan, SHARES).state)
    assert names(found) == ["b", "c", "published", "a"]
    assert (found.winner.name, found.baseline.name) == ("b", "published")


def test_where_the_published_recipe_wins_the_best_finalist_is_its_baseline():
    plan = plan_of("a", "b")
    found = select(plan, judged(plan, SHARES | {"published": 0.9}).state)
    assert (found.winner.name, found.baseline.name) == ("published", "b")


def test_further_seeds_do_not_change_the_winner():
    plan = plan_of("a", "b", seeds=4)
    facts = judged(plan, {"a": 0.6, "b": 0.7, "published": 0.5})
    for model in plan.models(plan.candidates[1], 4)[2:]:
        facts.model(model)
        facts.trained(model)
        for chunk in (0, 1):
            facts.attacked(model, [False] * 20, chunk=chunk)
    assert select(plan, facts.state).winner.name == "b"


def test_candidates_for_comparison_and_ablations_cannot_win():
    plan = plan_of("a", more=[candidate("baseline", "compared"), candidate("part", "ablation")])
    found = select(plan, judged(plan, {"a": 0.3, "published": 0.2, "baseline": 0.9, "part": 0.9}).state)
    assert names(found) == ["a", "published"]


def test_below_the_floor_one_loses_to_all_that_are_above():
    # The clean accuracy of a is 1, that of b 0.75, as the first ten images of its chunks of 20 are wrong or right.
    plan = plan_of("a", "b", published=False, goal=Goal(floors={"clean_accuracy": 0.9}))
    facts = Facts(plan, SHARES)
    for one, wrong in zip(plan.candidates, (0, 5), strict=True):
        facts.attacked_all(facts.in_place(one), wrong=wrong)
    assert names(select(plan, facts.state)) == ["a", "b"]
    assert names(select(replace(plan, goal=Goal()), facts.state)) == ["b", "a"]


def masked(facts, models):
    for model in models:
        facts.state.models[model.id].epochs[4]["masking_validation"] |= {"survive_margin_10": 80}


BARS = {
    "masking": (masked, "50 steps break 21.0 points more than 10"),
    "transfer": (
        lambda facts, models: [facts.looked(model, broken=3, images=20) for model in models],
        "images attacked on another model break 6 of 40 images",
    ),
}
WARNED = {
    "random": ({"clean": ["it seems to be a randomized defense!"]}, "AutoAttack: it seems to be a randomized defense!"),
    "gradients": (
        {"apgd-t": ["there are 2 points with zero gradient!"]},
        "AutoAttack: 10.0 % of the images have no gradient of the DLR loss",
    ),
}


@pytest.mark.parametrize("bar", BARS)
def test_one_that_is_unreliable_cannot_win_and_it_is_said_why(small_study, bar):
    plan = plan_of("a", "b", "c")
    facts = judged(plan, SHARES)
    cause, words = BARS[bar]
    cause(facts, plan.models(plan.candidates[1], plan.other_seeds))
    winner, reasons = winner_with(plan, facts)
    assert winner == "c"
    assert any(reason.startswith(words) for reason in reasons), reasons
    told = concluded(small_study, facts)
    assert told["winner"] == "c"
    assert {one["name"]: one["unreliable"] for one in told["candidates"] if one["unreliable"]} == {"b": reasons}
    assert "b" in told["splits"]["validation"]["candidates"], "its numbers are shown all the same"


@pytest.mark.parametrize("bar", WARNED)
def test_autoattacks_own_warnings_bar_from_winning(bar):
    warnings, words = WARNED[bar]
    plan = plan_of("a", "b", "c")
    facts = Facts(plan, SHARES)
    for one in plan.candidates:
        facts.attacked_all(facts.in_place(one), warnings=warnings if one.name == "b" else None)
    assert winner_with(plan, facts) == ("c", [words])


def test_square_that_breaks_much_after_apgd_bars_from_winning():
    plan = plan_of("a", "b", "c")
    facts = Facts(plan, SHARES)
    for one in plan.candidates:
        for model in facts.in_place(one):
            for chunk in (0, 1):
                facts.attacked(model, chunk=chunk, by_square=2 * (one.name == "b" and chunk == 0))
    winner, (reason,) = winner_with(plan, facts)
    assert winner == "c"
    # Only the first chunk of each model goes as far as Square.
    assert reason.startswith("Square, which needs no gradient, breaks 4 of 40 images")


def test_below_the_bounds_nothing_is_said():
    plan = plan_of("a", "b", "c")
    facts = Facts(plan, SHARES)
    for one in plan.candidates:
        for model in facts.in_place(one):
            # One of 20 and 20 images has no gradient: 2.5 %. Of Square and transfer two images say nothing, whatever
            # their share.
            few = {"apgd-t": ["there are 1 points with zero gradient!"]}
            facts.attacked(model, by_square=1, warnings=few)
            facts.attacked(model, chunk=1)
            facts.looked(model, broken=1, images=20)
    assert winner_with(plan, facts) == ("b", [])


def test_a_small_share_of_many_images_says_nothing():
    plan = plan_of("a", "b", images=0, chunk=2000, other_seeds=1)
    facts = Facts(plan, SHARES, totals={"validation": 2000})
    for one in plan.candidates:
        for model in facts.in_place(one):
            facts.attacked(model, by_square=4)
            facts.looked(model, broken=20, images=2000)
    assert winner_with(plan, facts) == ("b", [])
    for model in plan.models(plan.candidates[1], 1):
        facts.looked(model, broken=21, images=2000)
    assert len(winner_with(plan, facts)[1]) == 1


def test_what_the_test_images_show_changes_no_winner_but_is_said(small_study):
    plan = plan_of("b", "c", seeds=2, test=True, test_images=20)
    facts = judged(plan, SHARES)
    before = select(plan, facts.state)
    for one in (before.winner, before.baseline):
        for model in plan.fresh_models(one):
            facts.model(model)
            facts.trained(model)
            facts.over(Task("train", model))
            facts.attacked(model, split="test", by_square=4 * (one.name == "b"))
    assert select(plan, facts.state) == before
    told = concluded(small_study, facts)
    assert told["winner"] == "b"
    assert [one["name"] for one in told["candidates"] if one["unreliable"]] == ["b"]


def test_where_all_are_unreliable_nobody_wins(small_study):
    plan = plan_of("a", test=True)
    facts = judged(plan, SHARES)
    for one in plan.candidates:
        masked(facts, plan.models(one, plan.other_seeds))
    found = select(plan, facts.state)
    assert (found.winner, found.baseline, found.order) == (None, None, ())
    told = concluded(small_study, facts)
    assert (told["winner"], told["baseline"], best_model(told)) == (None, None, None)
    assert told["splits"]["validation"]["differences"] == {}
    assert all(one["unreliable"] for one in told["candidates"])
    assert told["settled"], "nothing is left to do, and the test images stay shut"


def test_without_any_model_nobody_wins(small_study):
    told = concluded(small_study, Facts(plan_of("a")))
    assert (told["winner"], told["settled"]) == (None, False)
    assert told["splits"]["validation"]["images"] == 0


def test_only_images_that_all_were_attacked_on_count(small_study):
    plan = plan_of("a", "b")
    facts = Facts(plan)
    for one in plan.candidates:
        for model in facts.in_place(one):
            facts.attacked(model, [one.name == "b"] * 20)
            if (one.name, model.seed) != ("a", 1):
                # Here a would win by far.
                facts.attacked(model, [one.name == "a"] * 20, chunk=1)
    assert select(plan, facts.state).winner.name == "b"
    told = concluded(small_study, facts)["splits"]["validation"]
    assert (told["images"], told["of"]) == (20, 40)
    assert [told["candidates"][name]["robust_accuracy"]["mean"] for name in ("a", "b")] == [0.0, 1.0]


def test_a_lost_model_is_left_out_and_told_of_and_shifts_no_pair(small_study):
    plan = plan_of("b", seeds=3, other_seeds=1)
    facts = Facts(plan, SHARES)
    for one in plan.candidates:
        facts.attacked_all(facts.in_place(one, 3))
    lost = plan.models(plan.candidates[0], 3)[1]
    facts.state.models[lost.id].lost = "diverged: the loss is not finite"
    told = concluded(small_study, facts)
    b = next(one for one in told["candidates"] if one["name"] == "b")
    assert b["lost"] == [{"seed": 2, "reason": "diverged: the loss is not finite"}]
    numbers = told["splits"]["validation"]
    assert numbers["candidates"]["b"]["seeds"] == [1, 3]
    ours, theirs = (
        {
            model.seed: survive(plan, facts.state, [model], "validation", [0, 1])[0]
            for model in plan.models(one, 3)
            if model != lost
        }
        for one in plan.candidates
    )
    assert numbers["mcnemar"]["published"] == [
        {"seed": seed} | mcnemar(ours[seed], theirs[seed]).to_plain() for seed in (1, 3)
    ]
    assert mcnemar(ours[3], theirs[2]) != mcnemar(ours[3], theirs[3]), "the wrong pair would not be seen"


def test_a_lost_model_of_a_later_seed_is_told_of(small_study):
    plan = plan_of("b", seeds=3, other_seeds=2)
    facts = judged(plan, SHARES)
    late = plan.models(plan.candidates[0], 3)[2]
    facts.model(late)
    facts.state.models[late.id].lost = "out of memory"
    b = next(one for one in concluded(small_study, facts)["candidates"] if one["name"] == "b")
    assert b["lost"] == [{"seed": 3, "reason": "out of memory"}]


def test_optimism_is_what_the_search_said_minus_what_was_found_again(small_study):
    plan = plan_of("b")
    told = concluded(small_study, judged(plan, SHARES))
    of = {one["name"]: one["optimism"] for one in told["candidates"]}
    # The seeds of these models do not differ, so that nothing is left to vary.
    five = pytest.approx(5.0)
    assert of["b"] == {"search": 0.75, "again": pytest.approx(0.7), "points": five, "low_95": five, "high_95": five}


def test_optimism_has_the_interval_of_a_further_seed_and_none_for_a_single_one():
    found = optimism(candidate("b"), [0.70, 0.72])
    assert found is not None
    # t with one degree of freedom: 12.7 standard deviations of 1.41 points, times the root of 1 + 1/2.
    assert found["high_95"] - found["points"] == pytest.approx(12.706 * 1.4142 * 1.5**0.5, rel=1e-3)
    assert optimism(candidate("b"), [0.70]) is None


def collapse(facts, models):
    for model in models:
        facts.state.models[model.id].epochs[4]["clean_correct_validation"] = 20  # of 200, ten classes


def test_a_collapsed_seed_bars_from_winning_and_is_in_no_mean(small_study):
    plan = plan_of("a", "b", "c")
    facts = judged(plan, SHARES)
    collapse(facts, plan.models(plan.candidates[1], 2)[:1])
    told = concluded(small_study, facts)
    assert told["winner"] == "c"
    b = next(one for one in told["candidates"] if one["name"] == "b")
    assert b["collapsed"] == [{"seed": 1}]
    assert b["unreliable"] == ["1 of 2 seeds that the winner is chosen by collapsed"]
    numbers = told["splits"]["validation"]
    assert (numbers["collapsed"], numbers["candidates"]["b"]["seeds"]) == ({"b": 1}, [2])


def test_a_collapsed_seed_of_the_published_recipe_wins_no_case_for_the_other(small_study):
    plan = plan_of("b")
    facts, whole = judged(plan, SHARES), judged(plan, SHARES)
    lost = plan.models(plan.candidates[1], 2)[0]
    collapse(facts, [lost])
    for chunk in (0, 1):
        facts.state.chunks[lost.id, plan.scope("validation"), chunk].steps.clear()
        facts.attacked(lost, [False] * 20, chunk=chunk)
    told, expected = concluded(small_study, facts), concluded(small_study, whole)
    assert (told["winner"], told["baseline"]) == ("b", "published")
    of, without = (one["splits"]["validation"]["candidates"]["published"] for one in (told, expected))
    assert of["robust_accuracy"]["per_seed"] == without["robust_accuracy"]["per_seed"][1:]
    difference = told["splits"]["validation"]["differences"]["published"]
    assert (difference["seeds"], difference["found"]) == (1, False)
    assert [one["seed"] for one in told["splits"]["validation"]["mcnemar"]["published"]] == [2]


def test_where_every_candidate_has_a_collapsed_seed_none_is_barred_for_it(small_study):
    plan = plan_of("a", "b")
    facts = judged(plan, SHARES)
    for one in plan.candidates:
        collapse(facts, plan.models(one, 2)[:1])
    told = concluded(small_study, facts)
    assert told["winner"] == "b"
    assert not any(one["unreliable"] for one in told["candidates"])


def test_where_all_seeds_of_the_baseline_collapsed_there_is_no_comparison(small_study):
    plan = plan_of("b")
    facts = judged(plan, SHARES)
    collapse(facts, plan.models(plan.candidates[1], 2))
    told = concluded(small_study, facts)
    assert told["splits"]["validation"]["differences"] == {}
    assert "  compared with the published recipe: unknown, because 2 seeds of it collapsed." in verdict_lines(told)
    assert ["published", "2 seeds collapsed", "", "", ""] in table_rows(told, "validation")


def test_ablations_are_the_winner_with_parts_taken_away():
    plan = plan_of("a")
    winner = plan.candidates[0]
    common, unpaced = ablations(plan, winner)
    assert to_plain(common.recipe) == to_plain(replace(BASE, optimiser=Optimiser(lr=0.05)))
    assert to_plain(unpaced.recipe) == to_plain(replace(winner.recipe, pace=Schedule(0.0, 0.0)))


def test_ablations_that_are_somebody_else_are_left_out():
    def made(**changes):
        plan = plan_of("a")
        return [one.name for one in ablations(plan, replace(plan.candidates[0], recipe=replace(BASE, **changes)))]

    assert made(optimiser=Optimiser(lr=0.05)) == ["published coefficients", "pace 0"]
    assert made(pace=Schedule(0.3, 0.9, 0.5, "linear")) == ["pace 0"]  # only the method's own values differ
    assert made(pace=Schedule(0.5, 0.0), optimiser=Optimiser(lr=0.05)) == ["published coefficients"]
    plan = plan_of("a")
    assert ablations(plan, plan.candidates[-1]) == [], "the published recipe is not taken apart"
    twin = Candidate("twin", "finalist", replace(plan.candidates[0].recipe, pace=Schedule(0.0, 0.0)))
    plan = replace(plan, candidates=(*plan.candidates, twin))
    assert [one.name for one in ablations(plan, plan.candidates[0])] == ["published coefficients"]


def completed(scores):
    """A history of trials that came to epoch 4 with these robust (and clean) counts of 1000."""
    events = []
    for trial, counts in enumerate(scores):
        robust, clean = counts if isinstance(counts, tuple) else (counts, 1000)
        events += [suggested(trial, {"hcpr.scale": 5.0 + trial, "pace.shape": "constant"})]
        events += reached(trial, 0, 4, robust, clean=clean)
    return events


def history_like(study, scores, **more):
    return history_of(*completed(scores), last_epoch=4, goal=study.goal, **more)


def test_a_full_plan_has_the_best_trials_and_the_published_recipe(small_study):
    history = history_like(small_study, [500, 300, 700, 600, 400])
    plan = full_plan(small_study, history, test=True)
    assert [one.name for one in plan.candidates] == ["trial 2", "trial 3", "trial 4", "published"]
    assert [one.score for one in plan.candidates] == [0.7, 0.6, 0.4, 0.5]
    assert plan.candidates[0].recipe.hcpr.scale == 7.0
    assert (plan.test, plan.ablations, plan.seeds, plan.other_seeds, plan.first_seed) == (True, True, 5, 3, 1)
    assert published(small_study, history).recipe == small_study.single_schedule


def test_a_full_plan_needs_as_many_complete_trials_as_finalists(small_study):
    with pytest.raises(InputError, match="no trial of this study reached its last epoch"):
        full_plan(small_study, history_of(suggested(0), *reached(0, 0, 1, 500), last_epoch=4), test=False)
    with pytest.raises(InputError, match="--finalists must be at most the 2 trials"):
        full_plan(small_study, history_like(small_study, [500, 600]), test=False)


def test_finalists_of_a_front_are_spread_along_it():
    study = read_study(find_space("default"), [("objective", ["robust_accuracy", "clean_accuracy"])])
    front = [(900 - 50 * place, 500 + 50 * place) for place in range(7)]
    history = history_like(study, [(100, 100), *front])
    plan = full_plan(study, history, test=False)
    assert [one.name for one in plan.candidates] == ["trial 1", "trial 4", "trial 7", "published"]


def test_a_front_that_is_too_short_is_filled_with_the_next_best():
    study = read_study(find_space("default"), [("objective", ["robust_accuracy", "clean_accuracy"])])
    history = history_like(study, [(100, 100), (900, 900), (800, 800), (700, 700)])
    plan = full_plan(study, history, test=False)
    assert [one.name for one in plan.candidates] == ["trial 1", "trial 2", "trial 3", "published"]


def timed(study, seconds):
    """Trials 0 and 1 complete, each after so many seconds of work, on two workers, the attack a thousandth of it."""
    events = [begin()]
    for trial, robust in ((0, 500), (1, 700)):
        times = {
            "seconds_attack": 0.001,
            "seconds_update": 0.998,
            "seconds_evaluation": 0.001,
        }
        last = epoch(trial, 4, robust) | {name: share * seconds for name, share in times.items()}
        events += [suggested(trial, {"hcpr.scale": 5.0, "pace.shape": "constant"}), job(trial, 0, 4), last]
        events += [job_end(trial, 0, 4)]
    return history_of(*events, last_epoch=4, goal=study.goal)


def test_a_small_plan_is_made_where_training_leaves_time_for_the_attacks(space_file):
    study = read_study(space_file, [("verdict.seconds_at_end", 60)])
    plan = small_plan(study, timed(study, 41.0))
    assert [one.name for one in plan.candidates] == ["trial 1", "published"]
    assert (plan.size, plan.seeds, plan.other_seeds, plan.seconds) == ("small", 1, 1, 55)
    assert not plan.test
    assert small_plan(study, timed(study, 42.0)).startswith("training again would take about 42 of its 55 seconds")
    assert small_plan(study, timed(study, 1.0)).seeds > 1, "there is time for more seeds"
    assert small_plan(read_study(space_file), timed(study, 1.0)) == "", "the study gives it no time"


def test_a_small_plan_needs_a_winner_at_full_length(space_file):
    study = read_study(space_file, [("verdict.seconds_at_end", 60)])
    stopped = [suggested(1, {"hcpr.scale": 5.0, "pace.shape": "constant"}), *reached(1, 0, 1, 900)]
    history = history_of(*completed([500]), *stopped, last_epoch=4, goal=study.goal)
    assert small_plan(study, history) == "the search's best was not trained to its last epoch"
    assert small_plan(study, history_of(last_epoch=4)) == "the search's best was not trained to its last epoch"


def test_honest_counts_raise_no_alarm():
    plan = plan_of("a")
    facts = judged(plan, SHARES)
    models = plan.models(plan.candidates[0], plan.other_seeds)
    assert all(facts.state.models[model.id].masking == HONEST for model in models)
    assert unreliable(plan, facts.state, models) == []
