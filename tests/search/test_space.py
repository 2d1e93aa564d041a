"""Conditional dimensions, extra values of a range, several dimensions of one field, priors, and mistakes in them."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimensions import Choice, Prior, Range, active_params
from hcpr_tune.search.spec.json_schema import space_schema
from hcpr_tune.search.spec.points import params_of, point_params, with_params
from hcpr_tune.search.spec.study_file import find_space, read_study, study_from_plain

ROOT = Path(__file__).parent.parent.parent
METHOD = {"choices": ["hcpr", "trades", "mart"]}
SHARED = {
    "method": METHOD,
    "optimiser.lr": {"low": 0.03, "high": 0.2, "log": True, "when": {"method": ["hcpr", "trades"]}},
    "optimiser.lr@mart": {"low": 0.003, "high": 0.1, "log": True, "when": {"method": "mart"}},
    "pace.shape": {"choices": ["constant", "linear"], "when": {"method": "hcpr"}},
    "pace.ramp": {"low": 0.1, "high": 0.8, "when": {"pace": {"shape": "linear"}}},
    "averaging.half_life": {"low": 0.1, "high": 4.0, "log": True, "extra_values": [0.0]},
}
RECIPE = {"model": {"head": "auto"}}


def study_of(search, **more):
    return study_from_plain({"recipe": RECIPE, "search": search, **more}, "space.toml")


def test_a_dimension_exists_only_under_its_condition_and_that_of_its_parents():
    space = study_of(SHARED).space
    assert list(space).index("method") < list(space).index("pace.shape") < list(space).index("pace.ramp")
    everything = {name: dimension.ends()[0] for name, dimension in space.items()}
    hcpr = active_params(space, everything | {"method": "hcpr", "pace.shape": "linear"})
    assert set(hcpr) == {"method", "optimiser.lr", "pace.shape", "pace.ramp", "averaging.half_life"}
    assert "pace.ramp" not in active_params(space, everything | {"method": "hcpr", "pace.shape": "constant"})
    mart = active_params(space, everything | {"method": "mart", "pace.shape": "linear"})
    assert set(mart) == {"method", "optimiser.lr@mart", "averaging.half_life"}


def test_a_labelled_dimension_sets_its_field():
    study = study_of(SHARED)
    recipe = with_params(study.recipe, {"method": "mart", "optimiser.lr@mart": 0.004, "averaging.half_life": 0.0})
    assert (recipe.method, recipe.optimiser.lr, recipe.averaging.half_life) == ("mart", 0.004, 0.0)
    assert (recipe.network.head, study.recipe.network.head) == ("linear", "cosine")


def test_the_published_recipe_needs_only_the_dimensions_that_exist_there():
    study = study_of(SHARED)
    params = params_of(study.recipe, study.space)
    assert params == {"method": "hcpr", "optimiser.lr": 0.1, "pace.shape": "constant", "averaging.half_life": 0.0}
    assert with_params(study.recipe, params) == study.recipe


def test_the_condition_may_be_read_back_from_the_resolved_study(tmp_path):
    from hcpr_tune.search.spec.study import study_to_toml

    study = study_of(SHARED, first_points=[{"method": "mart", "optimiser.lr@mart": 0.01}])
    (tmp_path / "again.toml").write_text(study_to_toml(study), encoding="utf-8")
    assert read_study(tmp_path / "again.toml") == study


@given(st.floats(0, 1, exclude_max=True))
def test_each_share_of_a_dimension_is_a_value_of_it(share):
    for dimension in (
        Range(4.0, 16.0, log=True),
        Range(1, 5, integer=True),
        Range(1, 300, log=True, integer=True),
        Range(0.1, 4.0, log=True, extra_values=(0.0,)),
        Choice((True, False)),
    ):
        value = dimension.at(share)
        assert dimension.holds(value)
        assert not getattr(dimension, "whole", False) or isinstance(value, int)


def test_shares_spread_evenly_over_a_dimension():
    shares = [(n + 0.5) / 1000 for n in range(1000)]
    below = [Range(4.0, 16.0, log=True).at(share) < 8 for share in shares]
    assert sum(below) == 500
    numbers = [Range(1, 4, integer=True).at(share) for share in shares]
    assert [numbers.count(n) for n in (1, 2, 3, 4)] == [250] * 4
    assert [Range(0.1, 4.0, extra_values=(0.0,)).at(share) for share in shares].count(0.0) == 250


def test_a_point_may_name_the_field_of_a_labelled_dimension():
    study = study_of(SHARED)
    given_values = {"method": "mart", "optimiser.lr": 0.01}
    params = point_params(given_values, study.recipe, study.space, "--set ", "x")
    assert params == {"method": "mart", "optimiser.lr@mart": 0.01, "averaging.half_life": 0.0}


def test_priors_are_read():
    prior = {"centre": 8, "strength": 0.5}
    space = study_of({"hcpr.scale": {"low": 4.0, "high": 16.0, "prior": prior}}).space
    assert space["hcpr.scale"].prior == Prior(8, 0.5)


LOW_HIGH = {"low": 0.0, "high": 0.4}
BAD = {
    "unknown parent": (
        {"hcpr.margin": {**LOW_HIGH, "when": {"metod": "hcpr"}}, "method": METHOD},
        "did you mean search.hcpr.margin.when.method?",
    ),
    "parent is a range": (
        {"hcpr.margin": {**LOW_HIGH, "when": {"hcpr.scale": 8.0}}, "hcpr.scale": {"low": 4.0, "high": 16.0}},
        "search.hcpr.margin.when.hcpr.scale must be one or more of the choices of search.hcpr.scale",
    ),
    "no choice of the parent": (
        {"hcpr.margin": {**LOW_HIGH, "when": {"method": "pgd"}}, "method": METHOD},
        'got "pgd"',
    ),
    "empty condition": (
        {"hcpr.margin": {**LOW_HIGH, "when": {"method": []}}, "method": METHOD},
        "must name at least one value",
    ),
    "condition no table": ({"hcpr.margin": {**LOW_HIGH, "when": 3}}, "search.hcpr.margin.when must be a table"),
    "circle": (
        {
            "method": {**METHOD, "when": {"pace.shape": "linear"}},
            "pace.shape": {"choices": ["constant", "linear"], "when": {"method": "hcpr"}},
        },
        "search.method.when depends on itself through method, pace.shape",
    ),
    "one field twice": (
        {
            "method": METHOD,
            "optimiser.lr": {"low": 0.03, "high": 0.2},
            "optimiser.lr@b": {"low": 0.1, "high": 0.2, "when": {"method": "mart"}},
        },
        "search.optimiser.lr and search.optimiser.lr@b set the same field and can exist at the same time",
    ),
    "also inside": (
        {"averaging.half_life": {"low": 0.0, "high": 4.0, "extra_values": [0.0]}},
        "search.averaging.half_life.extra_values must lie outside 0 to 4",
    ),
    "also breaks the law": (
        {"averaging.half_life": {"low": 0.1, "high": 4.0, "extra_values": [-1.0]}},
        "search.averaging.half_life.extra_values must be at least 0",
    ),
    "prior outside": (
        {"hcpr.margin": {**LOW_HIGH, "prior": {"centre": 1.0, "strength": 0.5}}},
        "prior.centre must lie inside the dimension (0 to 0.4), got 1.0",
    ),
    "prior too strong": (
        {"hcpr.margin": {**LOW_HIGH, "prior": {"centre": 0.1, "strength": 2}}},
        "prior.strength must be at least 0 and at most 1, got 2",
    ),
    "half a prior": (
        {"hcpr.margin": {**LOW_HIGH, "prior": {"centre": 0.1}}},
        "prior must be { centre = VALUE, strength = 0 to 1 }",
    ),
    "mode searched": (
        {"lr_schedule.mode": {"choices": ["annealed", "restarted"]}},
        "search.lr_schedule.mode cannot be searched",
    ),
    "a corner under a condition": (
        {
            "pace.shape": {"choices": ["constant", "linear"]},
            "pace.start": {"low": 0.0, "high": 2.0, "when": {"pace.shape": "linear"}},
        },
        "search.pace.start at 2.0 is not a valid recipe: pace must be at most 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_in_a_dimension_is_named(case):
    search, words = BAD[case]
    with pytest.raises(InputError) as caught:
        study_of(search)
    assert words in str(caught.value)
    assert str(caught.value).endswith("(space.toml)")


BAD_POINTS = {
    "no list": ({"hcpr.scale": 8.0}, "first_points must be a list of tables"),
    "unknown": (
        [{"hcpr.scle": 8.0}],
        "first_points[0].hcpr.scle is not a dimension of the search; did you mean first_points[0].hcpr.scale?",
    ),
    "a truth for a number": (
        [{"hcpr.scale": True}],
        "first_points[0].hcpr.scale must lie inside search.hcpr.scale (4 to 16), got true",
    ),
    "a list for a number": (
        [{"hcpr.scale": [8.0]}],
        "first_points[0].hcpr.scale must lie inside search.hcpr.scale (4 to 16), got [8.0]",
    ),
    "outside": ([{}, {"hcpr.scale": 99.0}], "first_points[1].hcpr.scale must lie inside search.hcpr.scale"),
}


@pytest.mark.parametrize("case", BAD_POINTS)
def test_each_mistake_in_a_first_point_is_named(case):
    points, words = BAD_POINTS[case]
    with pytest.raises(InputError) as caught:
        study_of({"hcpr.scale": {"low": 4.0, "high": 16.0}}, first_points=points)
    assert words in str(caught.value)


def test_a_value_that_does_not_exist_beside_the_others_is_named():
    with pytest.raises(
        InputError, match=r"first_points\[0\].pace.ramp does not exist .* where pace.shape is \"linear\""
    ):
        study_of(SHARED, first_points=[{"pace.ramp": 0.5}])


def test_the_baselines_offer_every_relative_with_its_published_values():
    study = read_study(find_space("baselines"))
    recipes = [with_params(study.recipe, point) for point in study.first_points]
    assert {recipe.method for recipe in recipes} == set(study.space["method"].ends()) - {"hcpr"}
    mart = next(recipe for recipe in recipes if recipe.method == "mart")
    assert (mart.mart.beta, mart.optimiser.lr, mart.optimiser.weight_decay) == (5, 0.01, 3.5e-3)
    sphere = next(recipe for recipe in recipes if recipe.method == "hypersphere_trades")
    assert (sphere.hypersphere.scale, sphere.trades.beta, sphere.network.head_bias) == (15, 6, False)
    pgd_he = next(recipe for recipe in recipes if recipe.method == "hypersphere_pgd_at")
    assert (pgd_he.hypersphere.scale, pgd_he.optimiser.weight_decay, pgd_he.attack.start) == (10, 5e-4, "normal")


@pytest.mark.parametrize("name", ["cifar10", "cifar10_wrn", "cifar100", "svhn"])
def test_colour_images_have_5000_validation_images_and_no_short_rung(name):
    study = read_study(find_space(name))
    images = {"svhn": 73_257}.get(name, 50_000)
    assert abs(images * study.recipe.task.validation_fraction - 5000) < 1
    assert study.rungs[0] >= 12
    assert study.recipe.lr_schedule.mode == "annealed"


def test_the_schema_of_the_spaces_is_the_one_that_the_settings_give():
    written = json.loads((ROOT / "search_spaces" / "space.schema.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(space_schema())), "run: hcpr_tune schema > search_spaces/space.schema.json"


TWICE = {
    "a dimension": {
        "hcpr.scale": {"low": 4.0, "high": 16.0, "log": True},
        "hcpr": {"scale": {"low": 4.0, "high": 9.0}},
    },
    "half of it": {"hcpr.scale": {"low": 4.0, "high": 16.0}, "hcpr": {"scale.low": 5.0}},
    "an equal one": {"hcpr.scale": LOW_HIGH, "hcpr": {"scale": LOW_HIGH}},
    "a condition": {
        **SHARED,
        "pace.ramp": {"low": 0.0, "high": 0.8, "when": {"pace.shape": "linear", "pace": {"shape": "constant"}}},
    },
}


@pytest.mark.parametrize("case", TWICE)
def test_what_is_said_in_two_ways_is_refused(case):
    with pytest.raises(InputError, match=r"^search\.[\w.]+ is given twice, as a quoted name and as a table"):
        study_of(TWICE[case])


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"method": "mart", "optimiser.lr": 0.05, "optimiser.lr@mart": 0.01}, "optimiser.lr is given twice"),
        ({"pace.shape": "linear", "pace": {"shape": "constant"}}, "pace.shape is given twice"),
    ],
)
def test_a_first_point_with_a_value_said_in_two_ways_is_refused(point, words):
    with pytest.raises(InputError, match=words):
        study_of(SHARED, first_points=[point])


def test_values_have_the_type_of_their_field():
    search = {
        "batch_size": {"low": 32, "high": 256},
        "hcpr.scale": {"choices": [8, 12.0]},
        "model.width": {"choices": [4, 16]},
    }
    for name, wrong in (("batch_size", 64.0), ("batch_size", 64.5), ("model.width", 4.0), ("model.width", True)):
        with pytest.raises(InputError, match=f"{name} must lie inside"):
            study_of(search, first_points=[{name: wrong}])
    (point,) = study_of(search, first_points=[{"hcpr.scale": 12}]).first_points
    assert isinstance(point["hcpr.scale"], float)
    assert not Choice((False, True)).holds(1)
    assert not Choice((0, 1)).holds(True)


def test_conditions_are_read_back_in_whatever_order_they_were_written():
    when = {"pace.shape": "linear", "method": "hcpr", "pace.over": "trial"}
    search = {
        **SHARED,
        "pace.over": {"choices": ["trial", "segment"]},
        "pace.ramp": {"low": 0.0, "high": 0.8, "when": when},
    }
    assert study_of(search) == study_of(
        {**search, "pace.ramp": {"low": 0.0, "high": 0.8, "when": dict(sorted(when.items()))}}
    )


UNEQUAL = {
    "a whole number and the same float": {"choices": [8, 8.0]},
    "one float": {"choices": [0.0, 8.0, -0.0]},
    "beyond what a float can hold": {"choices": [8.0, 2**53 + 1]},
    "both ends of 0": {"low": 0.5, "high": 8.0, "extra_values": [0.0, -0.0]},
    "a number far too small": {"low": 5e-324, "high": 8.0, "log": True},
    "a number far too large": {"low": 1.2, "high": 1.7976931348623157e308, "log": True},
    "a number of hundreds of digits": {"low": 1.2, "high": 10**400},
    "not a number": {"low": 1.2, "high": float("nan")},
    "thousands of choices": {"choices": [float(n) for n in range(20_000)]},
    "many values beside": {"low": 1.2, "high": 8.0, "extra_values": [9.0 + n for n in range(200)]},
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_what_would_be_read_back_as_something_else_is_refused(case):
    with pytest.raises(InputError) as caught:
        study_of({"hcpr.kl_weight": UNEQUAL[case]})
    assert str(caught.value).startswith("search.hcpr.kl_weight")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("label", ["", "a.low", "a kind", "é", "x" * 50])
def test_a_label_is_a_word(label):
    with pytest.raises(InputError, match=r"the label after the @ must be|is not a known setting|is missing"):
        study_of({f"hcpr.margin@{label}": LOW_HIGH})


def test_values_beside_a_range_that_read_alike_stay_apart():
    from hcpr_tune.search.suggestion.optuna_adapter import kinds_of, to_optuna

    dimension = Range(0.1, 4.0, extra_values=(20.0000001, 20.0000002))
    assert len(set(kinds_of(dimension))) == 3
    assert to_optuna({"a": 20.0000002}, {"a": dimension}) == {"a kind": "20.0000002"}
    assert kinds_of(Range(0.1, 4.0, extra_values=(0.0,))) == ["range", "0"]


def test_the_corners_are_bounded():
    paths = [f"own.methods:number_{n}" for n in range(190)]
    with pytest.raises(InputError, match="at most 20000 pairs of ends and choices"):
        study_of({"method": {"choices": ["hcpr", *paths]}, "model.name": {"choices": ["small_cnn", *paths]}})
    with pytest.raises(InputError, match="search must have at most 200 dimensions, got 300"):
        study_of({f"hcpr.margin@n{n}": LOW_HIGH for n in range(300)})


def test_a_chain_of_conditions_is_looked_at_in_no_time():
    names = ["attack.start", "pace.shape", "consistency.shape", "pace.over", "consistency.over", "augmentation.flip"]
    choices = [
        ["normal", "uniform"],
        *[["constant", "linear", "cosine"]] * 2,
        *[["trial", "segment"]] * 2,
        [True, False],
    ]
    search = {name: {"choices": values} for name, values in zip(names, choices, strict=True)}
    for place in range(1, len(names)):
        search[names[place]]["when"] = {one: search[one]["choices"] for one in names[:place]}
    assert len(study_of(search).space) == len(names)
