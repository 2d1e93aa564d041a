"""Search dimensions: what varies between trials, and how a sample becomes a recipe."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.settings import check, dotted_names, get_dotted, set_dotted, show, to_plain, unknown_key
from hcpr_tune.training.recipe import Recipe, recipe_from_plain

Value = bool | int | float | str
Params = dict[str, Value]

FIXED = ("task.", "evaluation.", "epochs", "stretch_ends", "stop_epoch", "threads", "seed")
"""Recipe fields that cannot be searched: scores would not be comparable, or the study sets them."""


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, drawn evenly or, with `log`, evenly in its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holds(self, value: Value) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        return self.low, self.high

    def to_plain(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    choices: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        return value in self.choices

    def ends(self) -> tuple[Value, ...]:
        return self.choices

    def to_plain(self) -> dict[str, Any]:
        return {"choices": list(self.choices)}

    def __str__(self) -> str:
        return "one of " + ", ".join(str(choice) for choice in self.choices)


Dimension = Range | Choice
Space = dict[str, Dimension]


def read_space(tables: Mapping[str, Any], recipe: Recipe, where: str) -> Space:
    """The dimensions of a study's `search` table by dotted recipe name; `recipe` is trial 0 and must lie inside them.

    Raises `InputError` that names the key, the law, the value and the file.
    """
    space = {name: _dimension(name, entry, where) for name, entry in sorted(_leaves(tables, "").items())}
    plain = to_plain(recipe)
    for name, dimension in space.items():
        published = get_dotted(plain, name)
        if not dimension.holds(published):
            raise InputError(
                f"recipe.{name} = {show(published)} lies outside search.{name} ({dimension}), but trial 0 trains it;"
                f" widen the range or change the recipe ({where})"
            )
    _check_corners(recipe, space, where)
    return space


def _check_corners(recipe: Recipe, space: Space, where: str) -> None:
    """Laws between fields (pace at most 1, not both weights 0) tie two fields at most: build a recipe at each pair of ends."""
    alone = [{name: end} for name, dimension in space.items() for end in dimension.ends()]
    together = [{**one, **other} for one, other in combinations(alone, 2) if one.keys() != other.keys()]
    for params in (*alone, *together):
        try:
            with_params(recipe, params)
        except InputError as error:
            reached = " with ".join(f"search.{name} at {show(value)}" for name, value in params.items())
            raise InputError(f"{reached} is no recipe: {error}; narrow the range ({where})") from None


def _leaves(tables: Any, prefix: str) -> dict[str, Mapping[str, Any]]:
    """Dimension tables by dotted name: a table is a dimension once it has low, high or choices."""
    leaves: dict[str, Mapping[str, Any]] = {}
    for key, entry in tables.items():
        name = prefix + key
        if isinstance(entry, Mapping) and entry and not {"low", "high", "choices"} & entry.keys():
            leaves |= _leaves(entry, name + ".")
        else:
            leaves[name] = entry
    return leaves


def _dimension(name: str, entry: Any, where: str) -> Dimension:
    fields = dotted_names(Recipe)
    if name not in fields:
        raise unknown_key(f"search.{name}", fields, where, "search.", "field of the recipe")
    if name.startswith(FIXED):
        raise InputError(
            f"search.{name} cannot be searched: scores of its trials could not be compared; fix it in [recipe] ({where})"
        )
    hint, item = fields[name]
    if typing.get_origin(hint) is tuple:
        raise InputError(f"search.{name} cannot be searched: it is a list; fix it in [recipe] ({where})")
    example = f"search.{name} = {{ low = 1.0, high = 2.0 }} or {{ choices = [...] }}"
    if not isinstance(entry, Mapping):
        raise InputError(f"search.{name} must be a table, got {show(entry)}; write {example} ({where})")
    unknown = set(entry) - {"low", "high", "log", "choices"}
    if unknown:
        raise unknown_key(f"search.{name}.{min(unknown)}", ("low", "high", "log", "choices"), where, f"search.{name}.")
    if "choices" in entry:
        return _choice(name, entry, hint, item, where)
    return _range(name, entry, hint, item, where, example)


def _choice(name: str, entry: Mapping[str, Any], hint: Any, item: Any, where: str) -> Choice:
    choices = entry["choices"]
    kinds = (int, float) if hint is float else (hint,)
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or len(set(map(show, choices))) < len(choices)
        or len(entry) > 1
    ):
        raise InputError(
            f"search.{name}.choices must be a list of at least two different values and stand alone, got {show(choices)} ({where})"
        )
    for value in choices:
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise InputError(
                f"search.{name}.choices must fit the field, a {hint.__name__}, got {show(value)} ({where})"
            )
        _check(f"search.{name}.choices", value, item, where)
    return Choice(tuple(float(value) if hint is float else value for value in choices))


def _range(name: str, entry: Mapping[str, Any], hint: Any, item: Any, where: str, example: str) -> Range:
    if hint not in (int, float):
        raise InputError(
            f"search.{name} is no number and needs choices; write search.{name} = {{ choices = [...] }} ({where})"
        )
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"search.{name}.log must be true or false, got {show(log)} ({where})")
    bounds = []
    for side in ("low", "high"):
        bound = entry.get(side)
        if side not in entry:
            raise InputError(f"search.{name}.{side} is missing; write {example} ({where})")
        if isinstance(bound, bool) or not isinstance(bound, int if hint is int else (int, float)):
            raise InputError(
                f"search.{name}.{side} must be a {'whole ' if hint is int else ''}number, got {show(bound)}; write {example} ({where})"
            )
        _check(f"search.{name}.{side}", typing.cast(float, bound), item, where)
        bounds.append(hint(bound))
    low, high = bounds
    if low >= high:
        raise InputError(
            f"search.{name}.low must be below high = {high:g}, got {low:g}; swap them, or fix the value in [recipe] ({where})"
        )
    if log and low <= 0:
        raise InputError(
            f"search.{name}.low must be above 0 with log = true, got {low:g}; raise it or drop log ({where})"
        )
    return Range(low, high, log, whole=hint is int)


def _check(name: str, value: Value, item: Any, where: str) -> None:
    try:
        check(name, value, item)
    except InputError as error:
        raise InputError(f"{str(error).partition(';')[0]}; change it there ({where})") from None


def published_params(recipe: Recipe, space: Space) -> Params:
    """Trial 0's values of the searched dimensions: the recipe as the study states it."""
    plain = to_plain(recipe)
    return {name: get_dotted(plain, name) for name in space}


def with_params(recipe: Recipe, params: Params) -> Recipe:
    """The recipe with the sampled values in place."""
    plain = to_plain(recipe)
    for name, value in params.items():
        set_dotted(plain, name, value)
    return recipe_from_plain(plain, "sampled recipe")
