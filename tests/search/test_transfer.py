"""What a small study's winner hands to another space, as values, as strengths, and as a file that can be read."""

from __future__ import annotations

import math
import tomllib
from functools import cache

import pytest

from hcpr_tune.common.settings import read_toml
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import Choice, Prior, Range
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import study_to_plain
from hcpr_tune.search.spec.study_file import find_space, read_study, study_from_plain
from hcpr_tune.search.suggestion.transfer import (
    UNKNOWN,
    closeness,
    comments_of,
    repeats_published,
    score_words,
    transfer,
    transferred_space,
    transferred_trial,
)
from tests.search.histories import history_of, lost, published, reached, suggested
from tests.views.recorded import history_like

PAIRS = [
    ("default", "cifar10"),
    ("pareto", "wide"),
    ("wide", "default"),
    ("baselines", "default"),
    ("baselines", "baselines"),
]
VALUES = {
    "hcpr.scale": 8.0,
    "hcpr.margin": 0.2,
    "hcpr.kl_weight": 1.2,
    "hcpr.square_weight": 6.0,
    "pace.shape": "constant",
    "pace.end": 1.0,
    "consistency.ramp": 0.0,
}


@cache
def study_of(space, *overrides):
    return read_study(find_space(space), overrides)


def scored(*points: dict) -> History:
    """A trial per point, each a little worse than the one before it."""
    events = []
    for number, point in enumerate(points):
        values = VALUES | point
        events += [suggested(number, values) if number else published(values), *reached(number, 0, 27, 900 - number)]
    return history_of(*events)


def small_target(search: dict, **tables):
    plain = study_to_plain(study_of("default")) | {"search": search, **tables}
    return study_from_plain(plain, "large.toml")


def trades_alone():
    """A study of one method, which it holds fixed."""
    search = {"trades.beta": {"low": 1.0, "high": 12.0, "log": True}, "label_smoothing": {"low": 0.0, "high": 0.2}}
    plain = study_to_plain(study_of("default")) | {"search": search}
    plain["recipe"]["method"] = "trades"
    return study_from_plain(plain, "trades.toml")


def handed_to(target, *points, study=None, number=None):
    study = study or study_of("default")
    history = scored(*points)
    return transfer(study, history, transferred_trial(study, history, "small", number), target, "large.toml")


@pytest.mark.parametrize(("source", "space"), PAIRS)
def test_any_trial_of_a_study_makes_any_space_a_file_that_can_be_read(source, space, tmp_path):
    study, path = study_of(source), find_space(space)
    history, target = history_like(study, 24), study_of(space)
    for trial in history.ranked()[:2]:
        handed = transfer(study, history, trial, target, str(path))
        comments = comments_of(study, trial, handed, "results/small", str(path))
        out = tmp_path / f"{trial.number}.toml"
        out.write_text(transferred_space(read_toml(path), target, handed, comments, "new"), encoding="utf-8")
        made = read_study(out)
        assert (made.settings, made.recipe) == (target.settings, target.recipe)
        tried = params_of(made.recipe, made.space)
        if not repeats_published(target, handed):
            tried, *others = made.first_points
            assert tuple(others) == target.first_points
        assert {name: tried[name] for name in handed.point} == handed.point
        for name, dimension in made.space.items():
            assert dimension.prior == handed.priors.get(name)
            if dimension.prior is not None:
                assert 0.2 <= dimension.prior.strength <= 0.8
                assert dimension.prior.centre == tried[name]


def test_the_winner_is_tried_first_and_what_it_does_not_have_stays_as_it_was():
    handed = handed_to(study_of("cifar10"), {}, {"hcpr.scale": 9.0}, number=1)
    assert handed.point == VALUES | {"hcpr.scale": 9.0}
    assert handed.priors.keys() == handed.point.keys()
    assert (handed.held, handed.fixed) == ({}, {})
    text = transferred_space(read_toml(find_space("cifar10")), study_of("cifar10"), handed, ["why"], "new")
    tables = tomllib.loads(text)
    assert text.startswith("# why\n\n")
    assert [*tables["first_points"][0]] == [*handed.point]
    assert tables["first_points"][1] == {"optimiser.weight_decay": 5e-4, "averaging.half_life": 0.5}
    assert "prior" not in tables["search"]["optimiser.lr"]


def test_values_outside_a_range_are_clipped_and_other_choices_dropped_with_what_hangs_on_them():
    study = study_of("default")
    shape = {"choices": ["constant", "linear"]}
    start = {"low": 0.0, "high": 1.0, "when": {"pace.shape": "linear"}}
    target = small_target({"hcpr.scale": {"low": 5.0, "high": 10.0}, "pace.shape": shape, "pace.start": start})
    handed = handed_to(
        target, {}, {"hcpr.scale": 14.0, "pace.shape": "cosine", "pace.start": 0.3}, study=study, number=1
    )
    assert handed.point == {"hcpr.scale": 10.0}
    words = {one.name: one.word for one in handed.moved}
    assert words["hcpr.scale"] == "clipped to the end of 5 to 10"
    assert words["pace.shape"] == "dropped: it is not one of constant, linear"
    assert words["pace.start"] == 'dropped: it exists only where pace.shape is "linear"'
    assert handed.fixed["hcpr.margin"] == (0.2, 0.2)
    low = handed_to(small_target({"hcpr.scale": {"low": 5.0, "high": 10.0}}), {}, {"hcpr.scale": 4.0}, number=1)
    assert low.point == {"hcpr.scale": 5.0}


def test_what_stays_fixed_is_named_and_so_is_another_method():
    study = study_of("baselines")
    history = history_like(study, 48)
    trial = next(one for one in history.ranked() if one.params["method"] == "trades")
    handed = transfer(study, history, trial, study_of("cifar10"), "cifar10")
    assert handed.fixed["method"] == ("trades", "hcpr")
    assert "trades.beta" in handed.fixed
    fixed = trades_alone()
    history = history_like(fixed, 20)
    handed = transfer(fixed, history, history.ranked()[0], study_of("cifar10"), "cifar10")
    assert handed.fixed == {
        "trades.beta": (history.ranked()[0].params["trades.beta"], 6.0),
        "method": ("trades", "hcpr"),
    }


def test_what_the_study_held_fixed_and_others_hang_on_is_stated_in_the_point():
    fixed = trades_alone()
    history = history_like(fixed, 20)
    handed = transfer(fixed, history, history.ranked()[0], study_of("baselines"), "baselines")
    assert handed.held == {"method": "trades"}
    assert handed.point["method"] == "trades"
    assert "method" not in handed.priors
    assert "trades.beta" in handed.priors


def test_a_field_comes_over_whichever_dimension_it_has_there():
    study = study_of("baselines")
    history = history_like(study, 48)
    trial = next(one for one in history.ranked() if one.params["method"] == "mart")
    handed = transfer(study, history, trial, study_of("baselines"), "baselines")
    assert handed.point == trial.params
    handed = transfer(study, history, trial, study_of("wide"), "wide")
    assert handed.point["optimiser.weight_decay"] == min(3e-3, trial.params["optimiser.weight_decay@mart"])


def test_a_prior_that_was_there_is_replaced_and_named():
    prior = {"centre": 6.0, "strength": 0.5}
    target = small_target({"hcpr.scale": {"low": 4.0, "high": 16.0, "prior": prior}})
    (scale,) = [one for one in handed_to(target, {}, {"hcpr.scale": 9.0}, number=1).moved if one.name == "hcpr.scale"]
    assert (scale.centre, scale.word) == (9.0, "before: 6.0, strength 0.5")


def test_a_dimension_may_be_written_as_tables_in_tables():
    target = study_of("default")
    handed = handed_to(target, {}, {"hcpr.scale": 9.0}, number=1)
    tables = read_toml(find_space("default"))
    scale = tables["search"].pop("hcpr.scale")
    tables["search"]["hcpr"] = {"scale": scale}
    made = tomllib.loads(transferred_space(tables, target, handed, [], "new"))
    assert made["search"]["hcpr"]["scale"]["prior"]["centre"] == 9.0
    assert "prior" not in scale


def test_the_published_recipe_is_not_tried_twice_and_neither_is_a_point_of_the_space():
    target = study_of("default")
    handed = handed_to(target, {})
    assert repeats_published(target, handed)
    assert "first_points" not in tomllib.loads(
        transferred_space(read_toml(find_space("default")), target, handed, [], "")
    )
    handed = handed_to(target, {}, {"hcpr.scale": 9.0}, number=1)
    tables = read_toml(find_space("default")) | {"first_points": [{"hcpr.margin": 0.1}, {"hcpr.scale": 9.0}]}
    target = study_from_plain(tables, "default")
    made = tomllib.loads(transferred_space(tables, target, handed, [], ""))
    assert [one.get("hcpr.margin") for one in made["first_points"]] == [0.2, 0.1]


def test_a_space_with_no_room_for_one_more_point_is_refused():
    target = study_of("default", ("early_stopping.calibration", 16))
    tables = read_toml(find_space("default"))
    tables["early_stopping"]["calibration"] = 16
    handed = handed_to(target, {}, {"hcpr.scale": 9.0}, number=1)
    with pytest.raises(InputError, match=r"calibration = 16 and 1 first_points must together .* \(new\)"):
        transferred_space(tables, target, handed, [], "new")


def test_closeness_is_one_where_all_agree_and_zero_where_chance_would_do():
    even = Range(0.0, 1.0)
    assert closeness(even, 0.5, [0.5, 0.5]) == 1
    assert closeness(even, 0.5, [0.6, 0.4]) == pytest.approx(0.7)
    assert closeness(even, 0.0, [1.0, 0.5]) == 0
    log = Range(1.0, 100.0, log=True)
    assert closeness(log, 10.0, [10**1.2, 10**0.8]) == pytest.approx(0.7)
    beside = Range(1.0, 100.0, log=True, extra_values=(0.0,))
    assert closeness(beside, 10.0, [10.0, 0.0]) == 0
    assert closeness(beside, 0.0, [0.0, 0.0]) == 1
    assert closeness(beside, 0.0, [0.0, 10.0]) == pytest.approx(1 / 3)
    choice = Choice(("a", "b", "c", "d"))
    assert closeness(choice, "a", ["a", "a", "a"]) == 1
    assert closeness(choice, "a", ["a", "b"]) == pytest.approx(1 / 3)
    assert closeness(choice, "a", ["b", "c"]) == 0


def test_even_draws_are_no_closer_than_chance():
    """The chance level is right: over a grid of centres, uniform draws average zero before the floor at zero."""
    grid = [(index + 0.5) / 200 for index in range(200)]
    mean = sum(abs(one - other) for one in grid for other in grid) / len(grid) ** 2
    assert math.isclose(mean, 1 / 3, abs_tol=1e-4)


def test_the_strength_is_that_of_the_best_quarter():
    best = [{"hcpr.scale": 9.0, "hcpr.margin": margin} for margin in (0.0, 0.2, 0.4)]
    rest = [{"hcpr.scale": 4.0 + index} for index in range(9)]
    priors = handed_to(study_of("cifar10"), *best, *rest).priors
    assert priors["hcpr.scale"] == Prior(9.0, 0.8)
    assert priors["hcpr.margin"] == Prior(0.0, 0.2)
    assert priors["pace.shape"] == Prior("constant", 0.8)
    # Three trials are the best quarter of nine to twelve.
    assert handed_to(study_of("cifar10"), *best, *rest[:5]).priors["hcpr.scale"].strength == UNKNOWN


def test_too_few_that_have_a_conditional_dimension_say_nothing():
    conditional = {"pace.shape": "linear", "pace.start": 0.5, "pace.ramp": 0.4}
    points = [conditional, conditional, {}, *[{"hcpr.scale": 5.0}] * 6]
    priors = handed_to(study_of("cifar10"), *points).priors
    assert priors["pace.start"] == Prior(0.5, UNKNOWN)
    assert priors["hcpr.scale"].strength == 0.8


def test_the_file_says_where_it_comes_from():
    study, history = study_of("pareto"), history_like(study_of("pareto"), 24)
    trial = transferred_trial(study, history, "small", None)
    handed = transfer(study, history, trial, study_of("svhn"), "svhn.toml")
    first, second, *rest = comments_of(study, trial, handed, "results/small", "svhn.toml")
    assert first == (
        f"svhn.toml, narrowed by what the study results/small found. Its trial {trial.number}: "
        f"{score_words(study, trial)}."
    )
    assert "clean accuracy" in first
    assert all(f"{name} ({prior.strength:g})" in second for name, prior in handed.priors.items())
    assert not rest
    text = transferred_space(
        read_toml(find_space("svhn")), study_of("svhn"), handed, ["line\nbreak", "long " * 60], "svhn"
    )
    assert all(line.startswith("# ") for line in text.splitlines()[:4])
    assert text.startswith("# line?break\n")


@pytest.mark.parametrize("points", [(), ({"lost": True},)])
def test_a_study_without_a_score_is_refused(points):
    history = history_of(*[event for _ in points for event in (published(VALUES), *lost(0, 0, 3))])
    with pytest.raises(InputError, match=rf'transfer "small": none of its {len(points)} trials has a score; let one'):
        transferred_trial(study_of("default"), history, "small", None)


def test_a_trial_that_is_not_there_or_has_no_score_is_refused():
    history = history_of(published(VALUES), *reached(0, 0, 3, 500), suggested(1, VALUES), *lost(1, 0, 3))
    study = study_of("default")
    with pytest.raises(InputError, match=r"--trial must be a trial of small, 0 to 1, got 7; leave it out for the best"):
        transferred_trial(study, history, "small", 7)
    with pytest.raises(InputError, match=r"--trial 1 of small has no score \(diverged\); choose another"):
        transferred_trial(study, history, "small", 1)
    assert transferred_trial(study, history, "small", 0).number == 0


def test_a_space_that_shares_nothing_or_that_nothing_fits_is_refused():
    other = small_target({"optimiser.lr": {"low": 0.05, "high": 0.2}})
    with pytest.raises(
        InputError, match=r"--to large.toml shares no dimension with the study: it searches optimiser.lr"
    ):
        handed_to(other, {})
    with pytest.raises(InputError, match=r"shares no dimension with the study: it searches nothing"):
        handed_to(small_target({}), {})
    shapes = small_target({"pace.shape": {"choices": ["constant", "linear"]}})
    with pytest.raises(InputError, match=r"none of the values of trial 1 fits its dimensions; choose another space"):
        handed_to(shapes, {}, {"pace.shape": "cosine", "pace.start": 0.1, "pace.ramp": 0.2}, number=1)
