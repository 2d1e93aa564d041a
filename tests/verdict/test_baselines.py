"""A baseline's search equals the study's in all that belongs to no method, and begins with the published method."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import Range
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import study_to_plain
from hcpr_tune.search.spec.study_file import find_space, read_study, study_from_plain
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.training.recipe import Hypersphere
from hcpr_tune.verdict.baselines import baseline_candidate, baseline_study, check_methods
from tests.search.histories import history_of, reached, suggested

BASELINES = [method for method in METHODS if method != "hcpr"]
OWN = {
    "pgd_at": {"attack.start"},
    "trades": {"trades.beta"},
    "mart": {"mart.beta", "optimiser.lr", "optimiser.weight_decay"},
    "hypersphere_trades": {"trades.beta", "hypersphere.scale", "hypersphere.margin"},
    "hypersphere_pgd_at": {"attack.start", "hypersphere.scale", "hypersphere.margin"},
}
COMMON = {
    "default": {"consistency.ramp"},
    "wide": {"consistency.ramp", "optimiser.lr", "optimiser.weight_decay", "averaging.half_life", "label_smoothing"},
    "baselines": {
        "consistency.ramp",
        "optimiser.lr",
        "optimiser.weight_decay",
        "averaging.half_life",
        "label_smoothing",
    },
}


def baseline_of(space, method, values=()):
    """(study, its baseline), for a study that took 5,400 worker-seconds."""
    study = read_study(find_space(space), values)
    history = History(study.recipe.epochs, study.goal, worker_seconds=5400.0)
    return study, baseline_study(study, history, "mine", method)


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("space", COMMON)
def test_it_searches_its_own_coefficients_and_what_is_common(space, method):
    _, baseline = baseline_of(space, method)
    assert set(baseline.space) == OWN[method] | COMMON[space]
    assert not any(dimension.when for dimension in baseline.space.values())


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("space", COMMON)
def test_task_length_rungs_network_and_evaluation_are_the_studys_and_so_is_the_time(space, method):
    study, baseline = baseline_of(space, method)
    ours, theirs = study.recipe, baseline.recipe
    for name in ("task", "epochs", "batch_size", "lr_schedule", "evaluation", "augmentation", "precision", "threads"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert theirs.model.name == ours.model.name
    assert theirs.network.head == ("cosine" if METHODS[method].needs_cosine_head else "linear")
    assert (baseline.rungs, baseline.goal) == (study.rungs, study.goal)
    assert baseline.asha_config.worker_seconds == pytest.approx(5400.0)
    assert baseline.asha_config.seconds == float("inf")
    assert baseline.settings.verdict.seconds_at_end == 0
    assert baseline.first_points == ()
    # It can be written, and read again.
    assert study_from_plain(study_to_plain(baseline), "here") == baseline


@pytest.mark.parametrize("space", COMMON)
def test_trial_0_is_the_method_as_it_was_published(space):
    recipes = {method: baseline_of(space, method)[1].recipe for method in BASELINES}
    assert {recipe.method for recipe in recipes.values()} == set(BASELINES)
    assert recipes["trades"].trades.beta == 6.0
    mart = recipes["mart"]
    assert (mart.optimiser.lr, mart.optimiser.weight_decay, mart.mart.beta) == (0.01, 3.5e-3, 5.0)
    assert recipes["pgd_at"].attack.start == "uniform"
    pgd_he = recipes["hypersphere_pgd_at"]
    assert (pgd_he.hypersphere.scale, pgd_he.optimiser.weight_decay, pgd_he.attack.start) == (10.0, 5e-4, "normal")
    assert recipes["hypersphere_trades"].hypersphere == Hypersphere(scale=15.0, margin=0.2)
    assert not recipes["hypersphere_trades"].model.head_bias


def test_a_published_value_outside_a_range_of_the_study_gives_way_to_the_studys():
    study = read_study(find_space("wide"))
    decay = Range(8e-4, 2e-3, log=True)
    recipe = replace(study.recipe, optimiser=replace(study.recipe.optimiser, weight_decay=1e-3))
    study = replace(study, recipe=recipe, space=study.space | {"optimiser.weight_decay": decay}, first_points=())
    history = History(study.recipe.epochs, study.goal, worker_seconds=10.0)
    baseline = baseline_study(study, history, "mine", "hypersphere_pgd_at")
    assert baseline.recipe.optimiser.weight_decay == 1e-3
    assert baseline.recipe.hypersphere.scale == 10.0


def test_what_the_study_fixes_is_fixed_to_the_same_value():
    values = [("optimiser.momentum", 0.8), ("label_smoothing", 0.1), ("task.epsilon", 0.2), ("model.width", 8)]
    study, baseline = baseline_of("default", "trades", values)
    assert baseline.recipe.optimiser == study.recipe.optimiser
    assert (baseline.recipe.label_smoothing, baseline.recipe.task.epsilon, baseline.recipe.model.width) == (0.1, 0.2, 8)


@pytest.mark.parametrize("methods", [["sgd"], ["hcpr"], ["trades", ""], ["trades", "Mart"]])
def test_other_names_than_those_of_baselines_are_refused(small_study, methods):
    with pytest.raises(InputError, match="--compare must name methods of pgd_at, trades, mart") as refused:
        check_methods(methods, small_study)
    assert "\n" not in str(refused.value)


def test_baselines_are_known(small_study):
    check_methods(BASELINES, small_study)
    check_methods([], small_study)


def test_its_best_complete_trial_is_compared():
    _, baseline = baseline_of("default", "trades")
    assert baseline_candidate(baseline, History(27), "trades") is None
    first, second = (suggested(number, {"trades.beta": 4.0 + number}) for number in (0, 1))
    third = [suggested(2, {"trades.beta": 9.0}), *reached(2, 0, 3, 990)]
    events = [first, *reached(0, 0, 27, 500), second, *reached(1, 0, 27, 600), *third]
    found = baseline_candidate(baseline, history_of(*events), "trades")
    assert (found.name, found.role, found.score) == ("trades, trial 1", "compared", 0.6)
    assert found.recipe == with_params(baseline.single_schedule, {"trades.beta": 5.0})


def test_hcpr_as_a_baseline_has_its_coefficients_and_a_pace_that_moves_only_where_it_does():
    study = read_study(find_space("baselines"))
    study = replace(study, recipe=replace(study.recipe, method="trades"))
    baseline = baseline_study(study, History(study.recipe.epochs, study.goal, worker_seconds=10.0), "mine", "hcpr")
    assert {"hcpr.scale", "hcpr.margin", "pace.shape", "pace.start", "pace.ramp"} <= set(baseline.space)
    assert baseline.space["pace.start"].when[0][0] == "pace.shape"
    assert baseline.recipe.method == "hcpr"
