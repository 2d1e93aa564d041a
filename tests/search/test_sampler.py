"""Suggestions are a pure function of study, number and record, and Optuna is told the truth about each trial."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.trial import TrialState

from hcpr_tune.search.sampler import OPTUNA_SAMPLERS, optuna_study, suggest
from hcpr_tune.search.space import published_params
from hcpr_tune.search.study import SAMPLERS, Sampler, find_space, read_study
from tests.search.histories import history_of, job, lost, reached, suggested


@pytest.fixture(scope="module")
def study():
    return read_study(find_space("default"))


def with_sampler(study, name):
    settings = dataclasses.replace(study.settings, sampler=Sampler(name=name, startup_trials=3))
    return dataclasses.replace(study, settings=settings)


def recorded(study, count, better_at=None):
    """A history of `count` trials; the score falls with the distance of the scale from `better_at`."""
    events = [suggested(0, published_params(study.recipe, study.space), "published"), *reached(0, 0, 3, 400)]
    for number in range(1, count):
        params = suggest(study, number, history_of(*events))
        distance = abs(params["hcpr.scale"] - (better_at or 8))
        events += [suggested(number, params), *reached(number, 0, 3, int(900 - 50 * distance))]
    return history_of(*events)


def test_the_samplers_that_a_study_may_name_are_those_that_exist():
    assert set(OPTUNA_SAMPLERS) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_suggestion_is_pure_and_inside_the_space(study, name):
    study = with_sampler(study, name)
    history = recorded(study, 6)
    before = repr(history)
    first, again = (suggest(study, 6, history) for _ in range(2))
    assert first == again
    assert repr(history) == before
    assert set(first) == set(study.space)
    assert all(study.space[key].holds(value) for key, value in first.items())


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_number_or_seed_gives_another_suggestion(study, name):
    study = with_sampler(study, name)
    history = recorded(study, 6)
    other = dataclasses.replace(study, settings=dataclasses.replace(study.settings, seed=1))
    drawn = [suggest(study, 6, history), suggest(study, 7, history), suggest(other, 6, history)]
    assert len({tuple(params.items()) for params in drawn}) == 3


def test_tpe_learns_from_the_record(study):
    study = with_sampler(study, "tpe")
    history = recorded(study, 30, better_at=5.0)
    near = [abs(suggest(study, number, history)["hcpr.scale"] - 5.0) for number in range(30, 50)]
    random = [
        abs(suggest(with_sampler(study, "random"), number, history)["hcpr.scale"] - 5.0) for number in range(30, 50)
    ]
    assert sum(near) < 0.5 * sum(random)


def test_optuna_is_told_how_far_each_trial_got(study):
    params = published_params(study.recipe, study.space)
    events = [suggested(0, params), *reached(0, 0, 3, 300)]
    events += [suggested(1, params), *reached(1, 0, 3, 500), *reached(1, 3, 9, 600), *reached(1, 9, 27, 550)]
    events += [suggested(2, params), *lost(2, 0, 3, "failed"), suggested(3, params), job(3, 0, 3)]
    events += [
        suggested(4, params),
        *lost(4, 0, 3, "diverged"),
        suggested(5, params),
        *reached(5, 0, 3, 450),
        job(5, 3, 9),
    ]
    trials = optuna_study(study, history_of(*events)).trials
    states = ["PRUNED", "COMPLETE", "FAIL", "RUNNING", "FAIL", "PRUNED"]
    assert [trial.state.name for trial in trials] == states
    assert trials[1].value == 0.6
    assert trials[1].intermediate_values == {3: 0.5, 9: 0.6, 27: 0.55}
    # Promoted and on its way: what it has reached is known, and does not count against it.
    assert trials[5].intermediate_values == {3: 0.45}
    assert trials[1].params == params


def test_a_bad_published_recipe_that_ran_to_the_end_does_not_pass_for_the_best(study):
    params = published_params(study.recipe, study.space)
    events = [suggested(0, params), *reached(0, 0, 3, 120), *reached(0, 3, 9, 125), *reached(0, 9, 27, 130)]
    events += [e for n in range(1, 10) for e in (suggested(n, params), *reached(n, 0, 3, 700 + n))]
    trial = optuna_study(study, history_of(*events)).trials[0]
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {3: 0.12}
    good = [suggested(0, params), *reached(0, 0, 3, 900), *reached(0, 3, 9, 910), *reached(0, 9, 27, 920)]
    others = [
        e for n in range(1, 10) for e in (suggested(n, params), *reached(n, 0, 3, 700 + n), *reached(n, 3, 9, 750))
    ]
    others += [e for n in (1, 2) for e in reached(n, 9, 27, 800)]
    assert optuna_study(study, history_of(*good, *others)).trials[0].state is TrialState.COMPLETE
