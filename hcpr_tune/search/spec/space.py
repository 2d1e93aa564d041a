"""Search spaces: read from the tables of a file, and checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from hcpr_tune.common.settings import (
    Settings,
    show,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimension_tables import given_twice, read_dimension
from hcpr_tune.search.spec.dimensions import Choice, Params, Space, Value, active_params, field_of
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.training.recipe import Coefficients, Recipe, is_field

MOST_DIMENSIONS, MOST_CORNERS = 200, 20_000
"""Limits of a space. Pairs of corners are limited because each is checked before a search starts."""


def read_space(tables: Mapping[str, Any], recipe: Recipe, where: str) -> Space:
    """The dimensions of a study's `search` table by dotted recipe name; `recipe` is trial 0 and must lie inside them.

    Raises `InputError` naming the key, its bounds, the value and the file.
    """
    leaves = _leaves(nested(tables, where), "")
    if len(leaves) > MOST_DIMENSIONS:
        raise InputError(
            f"search must have at most {MOST_DIMENSIONS} dimensions, got {len(leaves)};"
            f" fix the others in [recipe] ({where})"
        )
    unordered = {name: read_dimension(name, entry, recipe, where) for name, entry in sorted(leaves.items())}
    space = _parents_first(unordered, where)
    _check_shared_fields(space, where)
    for name, value in params_of(recipe, space).items():
        if not space[name].holds(value):
            raise InputError(
                f"recipe.{field_of(name)} = {show(value)} lies outside search.{name} ({space[name]}),"
                f" but trial 0 uses it; widen the range or change the recipe ({where})"
            )
    _check_corners(recipe, space, where)
    return space


def _parents_first(space: Space, where: str) -> Space:
    """The dimensions ordered so that each comes after those named in its condition."""
    for name, dimension in space.items():
        for parent, allowed in dimension.when:
            if parent not in space:
                raise unknown_key(
                    f"search.{name}.when.{parent}", space, where, f"search.{name}.when.", "dimension of the search"
                )
            for value in allowed:
                if not isinstance(space[parent], Choice) or not space[parent].holds(value):
                    raise InputError(
                        f"search.{name}.when.{parent} must be one or more of the choices of search.{parent}"
                        f" ({space[parent]}), got {show(value)}; name one of them ({where})"
                    )
    ordered: Space = {}
    left = dict(space)
    while left:
        ready = [name for name, dimension in left.items() if all(parent in ordered for parent, _ in dimension.when)]
        if not ready:
            raise InputError(
                f"search.{min(left)}.when depends on itself through {', '.join(sorted(left))};"
                f" break the cycle ({where})"
            )
        ordered |= {name: left.pop(name) for name in ready}
    return ordered


def _check_shared_fields(space: Space, where: str) -> None:
    """Raises `InputError` if two dimensions of the same field could exist at the same time."""
    by_field: dict[str, list[str]] = {}
    for name in space:
        by_field.setdefault(field_of(name), []).append(name)
    for one, other in (pair for names in by_field.values() for pair in combinations(names, 2)):
        apart = any(
            parent == second and not set(allowed) & set(others)
            for parent, allowed in space[one].when
            for second, others in space[other].when
        )
        if not apart:
            raise InputError(
                f"search.{one} and search.{other} set the same field and can exist at the same time;"
                f" give them conditions (when) that exclude each other ({where})"
            )


def _check_corners(recipe: Recipe, space: Space, where: str) -> None:
    """Raises `InputError` if some pair of ends does not make a valid recipe.

    Pairs suffice: rules between fields (pace at most 1, not both weights 0) involve at most two fields.
    """
    openings = _openings(space)
    alone = [
        {**parents, name: end}
        for name, dimension in space.items()
        for parents in openings[name]
        for end in dimension.corners()
    ]
    pairs = len(alone) * (len(alone) - 1) // 2
    if pairs > MOST_CORNERS:
        raise InputError(
            f"search must have at most {MOST_CORNERS} pairs of ends and choices, which are all checked before a search,"
            f" got {pairs}; give fewer choices or conditions ({where})"
        )
    together = ({**one, **other} for one, other in combinations(alone, 2) if _agree(one, other))
    published = params_of(recipe, space)
    seen: set[tuple[tuple[str, Value], ...]] = set()
    for values in (*alone, *together):
        params = active_params(space, published | values)
        key = tuple(sorted((name, params[name]) for name in values if name in params))
        if key in seen:
            continue
        seen.add(key)
        try:
            _replaced(recipe, {field_of(name): value for name, value in key})
        except InputError:
            _refuse_corner(recipe, key, where)


def _replaced(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """`with_params` for values that have the types of their fields, ten times as fast: only what changes is rebuilt."""
    if isinstance(settings, Coefficients):
        return Coefficients.from_table({**settings.plain(), **values})
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    own |= {head: _replaced(getattr(settings, head), inner) for head, inner in below.items()}
    changed: Settings = replace(settings, **own)  # type: ignore[type-var]  # every subclass is a dataclass
    return changed


def _refuse_corner(recipe: Recipe, key: tuple[tuple[str, Value], ...], where: str) -> None:
    """Raises `InputError` with the message of the whole recipe."""
    try:
        with_params(recipe, dict(key))
    except InputError as error:
        reached = " with ".join(f"search.{name} at {show(value)}" for name, value in key)
        raise InputError(f"{reached} is not a valid recipe: {error}; narrow the range ({where})") from None


def _agree(one: Params, other: Params) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _openings(space: Space) -> dict[str, list[Params]]:
    """Values of the parents for which each dimension exists: each allowed value of each direct parent once."""
    found: dict[str, list[Params]] = {}
    for name, dimension in space.items():  # parents first
        if not dimension.when:
            found[name] = [{}]
            continue
        first = {parent: allowed[0] for parent, allowed in dimension.when}
        opened = [first | {parent: value} for parent, allowed in dimension.when for value in allowed]
        whole = [found[parent][0] | values for values in opened for parent in values]
        found[name] = list({tuple(sorted(values.items())): values for values in whole}.values())
    return found


def nested(search: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The search table with quoted names ("hcpr.scale") as nested tables.

    Raises `InputError` if a name is given both ways.
    """
    tables: dict[str, Any] = {}
    for name, entry in search.items():
        _lay(tables, name, nested(entry, where) if isinstance(entry, Mapping) else entry, "", where)
    return tables


def _lay(tables: dict[str, Any], name: str, entry: Any, prefix: str, where: str) -> None:
    """Put an entry at a dotted name; tables are merged, except two of the same dimension."""
    key, _, rest = name.partition(".")
    path = prefix + key
    if rest:
        inner = tables.setdefault(key, {})
        if not isinstance(inner, dict):
            raise given_twice(path, where)
        _lay(inner, rest, entry, f"{path}.", where)
    elif key not in tables:
        tables[key] = entry
    elif isinstance(tables[key], dict) and isinstance(entry, dict) and not is_field(field_of(path)):
        for inner_key, inner in entry.items():
            _lay(tables[key], inner_key, inner, f"{path}.", where)
    else:
        raise given_twice(path, where)


def _leaves(tables: Any, prefix: str) -> dict[str, Mapping[str, Any]]:
    """Dimension tables by dotted name: a table with low, high or choices is a dimension."""
    leaves: dict[str, Mapping[str, Any]] = {}
    for key, entry in tables.items():
        name = prefix + key
        if isinstance(entry, Mapping) and entry and not {"low", "high", "choices"} & entry.keys():
            leaves |= _leaves(entry, name + ".")
        else:
            leaves[name] = entry
    return leaves
