"""The recipe and its settings: published defaults, a file that reads back, and errors that say what to mend."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcpr_tune.common.settings import Settings, get_dotted, parse_assignment, read_toml, set_dotted
from hcpr_tune.errors import InputError
from hcpr_tune.training.recipe import (
    Attack,
    Hcpr,
    LrSchedule,
    Model,
    Optimiser,
    Recipe,
    Schedule,
    Task,
    load_recipe,
    recipe_to_toml,
)

UNIT = st.floats(0, 1)
POSITIVE = st.floats(1e-6, 1)


def schedules(values: st.SearchStrategy[float]) -> st.SearchStrategy[Schedule]:
    shapes, spans = st.sampled_from(("constant", "linear", "cosine")), st.sampled_from(("trial", "segment"))
    return st.builds(Schedule, start=values, end=values, ramp=UNIT, shape=shapes, over=spans)


RECIPES = st.builds(
    Recipe,
    task=st.builds(Task, split_seed=st.integers(0, 2**63), epsilon=POSITIVE),
    model=st.builds(Model, width=st.integers(1, 64), head_bias=st.booleans()),
    seed=st.integers(0, 2**63),
    epochs=st.integers(50, 500),
    segment_ends=st.sets(st.integers(1, 50)).map(lambda ends: tuple(sorted(ends))),
    hcpr=st.builds(Hcpr, scale=st.floats(1e-3, 1000), margin=UNIT, kl_weight=POSITIVE, square_weight=st.floats(0, 1e9)),
    pace=schedules(UNIT),
    consistency=schedules(st.floats(0, 100)),
    attack=st.builds(Attack, epsilon=POSITIVE, steps=schedules(st.floats(1, 1000)), initial_noise=UNIT),
    optimiser=st.builds(Optimiser, lr=POSITIVE, momentum=st.floats(0, 0.999), weight_decay=UNIT),
    lr_schedule=st.builds(LrSchedule, milestones=st.lists(POSITIVE, max_size=3).map(tuple)),
)


def all_fields(cls: type[Settings], prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[typing.Any]]]:
    """Every field of `cls` and of the settings inside it."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        yield prefix + item.name, item
        if isinstance(hints[item.name], type) and issubclass(hints[item.name], Settings):
            yield from all_fields(hints[item.name], f"{prefix}{item.name}.")


def test_defaults_are_the_published_recipe():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.segment_ends) == (100, 128, ())
    assert recipe.optimiser == Optimiser(lr=0.1, momentum=0.9, weight_decay=2e-4)
    assert recipe.lr_schedule == LrSchedule(mode="single", shape="steps", milestones=(0.75, 0.9), factor=0.1)
    assert recipe.attack == Attack(epsilon=0.031, steps=Schedule(10, 10), step_size=0.007, initial_noise=0.001)
    assert recipe.hcpr == Hcpr(scale=8, margin=0.2, kl_weight=1.2, square_weight=6)
    assert recipe.pace == recipe.consistency == Schedule(start=1, end=1, shape="constant")
    assert recipe.task.epsilon == 8 / 255  # trained at 0.031, judged at 8/255, as published
    assert recipe.model.head_bias


def test_an_empty_file_is_the_default_recipe(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert load_recipe(tmp_path / "empty.toml") == Recipe()


def test_the_default_recipe_written_and_read_back_is_written_the_same(tmp_path):
    # What is told apart by its text, as a fingerprint is, must not differ between equal recipes.
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_to_toml(Recipe()))
    assert load_recipe(path) == Recipe()
    assert recipe_to_toml(load_recipe(path)) == recipe_to_toml(Recipe())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@given(recipe=RECIPES)
@settings(max_examples=50, deadline=None, database=None)
def test_a_recipe_reads_back_as_it_was_written(recipe, folder):
    path = folder / "recipe.toml"
    path.write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe_to_toml(load_recipe(path)) == path.read_text(encoding="utf-8")


def test_a_written_recipe_names_every_field():
    text = recipe_to_toml(Recipe())
    for name, _ in all_fields(Recipe):
        if name == "coefficients" or name.startswith("coefficients."):
            continue  # of an own method; left out where there are none
        assert name.rpartition(".")[2] in text


def test_a_bare_number_stands_for_a_constant_schedule(tmp_path):
    (tmp_path / "r.toml").write_text("pace = 0.5\n[attack]\nsteps = 7\n")
    recipe = load_recipe(tmp_path / "r.toml")
    assert recipe.pace == Schedule(0.5, 0.5)
    assert recipe.attack.steps == Schedule(7, 7)


def test_a_whole_number_may_stand_for_a_number(tmp_path):
    (tmp_path / "r.toml").write_text("[hcpr]\nscale = 8\n")
    assert isinstance(load_recipe(tmp_path / "r.toml").hcpr.scale, float)


def test_recipes_are_frozen_and_hashable():
    recipe = Recipe()
    for settings_in, name in ((recipe, "epochs"), (recipe.hcpr, "scale"), (recipe.attack.steps, "end")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings_in, name, 1)
    assert hash(recipe) == hash(Recipe())
    assert recipe != replace(recipe, seed=1)


@pytest.mark.parametrize(
    ("name", "item"), list(all_fields(Recipe)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_field_is_documented(name, item):
    assert item.metadata["doc"].strip().endswith(".")


LONG = "1" + 400 * "0"  # a whole number beyond the largest float
BAD = [
    # file, then what its message must hold: key, law or hint, value
    ("epochz = 3", ["epochz", "did you mean epochs?"]),
    ("[hcrp]\nscale = 3", ["hcrp", "did you mean hcpr?"]),
    ("[hcpr]\nscael = 3", ["hcpr.scael", "did you mean hcpr.scale?"]),
    ("[attack.steps]\nfinish = 3", ["attack.steps.finish", "start", "end", "ramp"]),
    ("hcpr = 3", ["hcpr must be a table", "got 3"]),
    ("epochs = true", ["epochs must be a whole number", "got true"]),
    ("epochs = 2.5", ["epochs must be a whole number", "got 2.5"]),
    ('epochs = "3"', ["epochs must be a whole number", 'got "3"']),
    ("epochs = 2024-01-01", ["epochs must be a whole number", "got 2024-01-01"]),
    ('[hcpr]\nscale = "8"', ["hcpr.scale must be a number", 'got "8"', "8.0"]),
    ("[hcpr]\nscale = true", ["hcpr.scale must be a number", "got true"]),
    ("[hcpr]\nscale = [8]", ["hcpr.scale must be a number", "got [8]"]),
    ("[model]\nhead_bias = 1", ["model.head_bias must be true or false", "got 1"]),
    ("[task]\ndataset = 3", ["task.dataset must be a string", "got 3"]),
    ('[task]\ndataset = "cifar"', ["task.dataset must be one of digits", 'got "cifar"']),
    ('[pace]\nshape = "square"', ["pace.shape must be one of constant, linear, cosine", 'got "square"']),
    ("epochs = 0", ["epochs must be at least 1", "got 0", "100"]),
    ("[task]\nepsilon = 0.0", ["task.epsilon must be above 0 and at most 1", "got 0.0"]),
    ("[optimiser]\nmomentum = 1", ["optimiser.momentum must be at least 0 and below 1", "got 1"]),
    ("[hcpr]\nscale = nan", ["hcpr.scale must be a finite number", "got nan"]),
    ("[hcpr]\nkl_weight = inf", ["hcpr.kl_weight must be a finite number", "got inf"]),
    ("[optimiser]\nlr = -inf", ["optimiser.lr must be a finite number", "got -inf"]),
    (f"[hcpr]\nscale = {LONG}", ["hcpr.scale must be"]),
    (f"[model]\nwidth = {LONG}", ["model.width must be at least 1 and at most 1024"]),
    ("segment_ends = 3", ["segment_ends must be a list", "got 3"]),
    ("segment_ends = [1, 2.5]", ["segment_ends must be a whole number", "got 2.5"]),
    ("segment_ends = [0, 2]", ["segment_ends must be at least 1", "got 0"]),
    ("segment_ends = [5, 2]", ["segment_ends must rise", "[5, 2]"]),
    ("segment_ends = [3, 3]", ["segment_ends must rise", "[3, 3]"]),
    ("epochs = 9\nsegment_ends = [3, 10]", ["segment_ends must", "epochs = 9", "[3, 10]"]),
    ("[lr_schedule]\nmilestones = [0.5, 1.5]", ["lr_schedule.milestones must be above 0 and at most 1", "got 1.5"]),
    ("[hcpr]\nkl_weight = 0\nsquare_weight = 0", ["hcpr.kl_weight and square_weight must not both be 0"]),
    (
        "[task]\nvalidation_fraction = 0.5\ntest_fraction = 0.5",
        ["task.validation_fraction plus test_fraction", "got 1"],
    ),
    ("pace = 1.5", ["pace", "at most 1", "got 1.5"]),
    ("[pace]\nstart = 1.25", ["pace", "at most 1", "got 1.25"]),
    ("pace = -0.5", ["pace", "at least 0", "got -0.5"]),
    ("[attack]\nsteps = -1", ["attack.steps", "at least", "got -1"]),
    ("pace = true", ["pace must be a number", "got true"]),
    ('pace = "high"', ["pace must be a number", 'got "high"']),
    ("[attack]\nsteps = 0.5", ["attack.steps must be at least 1 and at most 1000", "got 0.5"]),
    ("[attack.steps]\nstart = 2000", ["attack.steps must be at least 1 and at most 1000", "got 2000"]),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[text.replace("\n", " ")[:40] for text, _ in BAD])
def test_bad_input_is_refused_by_key_law_value_and_file(tmp_path, text, said):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.endswith(f"({path})")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    for part in said:
        assert part in message


def test_settings_made_in_python_obey_the_same_laws():
    with pytest.raises(InputError, match="epochs must be at least 1 and at most 1000000, got 0"):
        Recipe(epochs=0)
    with pytest.raises(InputError, match="pace must be at most 1"):
        Recipe(pace=Schedule(0.0, 2.0))


def test_broken_toml_is_refused_with_file_and_line(tmp_path):
    (tmp_path / "broken.toml").write_text("epochs = 3\nseed = = 4\n")
    with pytest.raises(InputError, match=r"broken\.toml is not valid TOML: .*line 2"):
        read_toml(tmp_path / "broken.toml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    for name in ("missing.toml", "latin.toml", "."):
        with pytest.raises(InputError, match="cannot be read"):
            read_toml(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget.trials=8", ("budget.trials", 8)),
        (" task.epsilon = 0.1 ", ("task.epsilon", 0.1)),
        ("model.head_bias=false", ("model.head_bias", False)),
        ("segment_ends=[1, 3]", ("segment_ends", [1, 3])),
        ('task.dataset="digits"', ("task.dataset", "digits")),
        ("task.dataset=digits", ("task.dataset", "digits")),
        ("name=a=b", ("name", "a=b")),
        ("name=", ("name", "")),
    ],
)
def test_an_assignment_is_read_as_toml_and_else_as_a_string(text, expected):
    name, value = parse_assignment(text)
    assert (name, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["budget.trials", "=8", " = 8", ""])
def test_an_assignment_without_name_or_value_is_refused(text):
    with pytest.raises(InputError, match=r"dotted\.name=value"):
        parse_assignment(text)


def test_dotted_names_reach_into_tables():
    values: dict[str, typing.Any] = {"pace": 0.5}
    set_dotted(values, "attack.steps.end", 3)
    set_dotted(values, "pace.end", 1.0)
    assert values == {"attack": {"steps": {"end": 3}}, "pace": {"end": 1.0}}
    assert get_dotted(values, "attack.steps.end") == 3
    assert get_dotted(values, "attack.steps.start", "none") == "none"
    assert get_dotted(values, "attack.steps.end.more") is None
