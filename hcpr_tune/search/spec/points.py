"""Points of a space: read from a file, taken from a recipe, and turned into one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hcpr_tune.common.settings import (
    get_dotted,
    set_dotted,
    show,
    to_plain,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimension_tables import given_twice, repeated
from hcpr_tune.search.spec.dimensions import Choice, Params, Range, Space, Value, field_of
from hcpr_tune.training.recipe import Recipe, recipe_from_plain


def read_points(points: Any, recipe: Recipe, space: Space, where: str) -> tuple[Params, ...]:
    """The points of `first_points`, a list of tables; dimensions that a point leaves out are as in the recipe."""
    if not isinstance(points, list) or not all(isinstance(point, Mapping) for point in points):
        raise InputError(
            f'first_points must be a list of tables such as [{{ "hcpr.scale" = 12.0 }}], got {show(points)} ({where})'
        )
    found = []
    for place, point in enumerate(points):
        prefix, given = f"first_points[{place}].", list(_flat(point))
        if name := repeated(one for one, _ in given):
            raise given_twice(name, where, prefix)
        found.append(point_params(dict(given), recipe, space, prefix, where))
    return tuple(found)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def point_params(given: Mapping[str, Any], recipe: Recipe, space: Space, prefix: str, where: str) -> Params:
    """The recipe's own values updated with `given`. A field may be given instead of whichever of its dimensions exists.

    Raises `InputError` for an unknown dimension, a value outside it, or one that does not exist with the other values.
    """
    by_field: dict[str, list[str]] = {}
    for name in space:
        by_field.setdefault(field_of(name), []).append(name)
    for name in given:
        if name not in space and name not in by_field:
            raise unknown_key(prefix + name, space, where, prefix, "dimension of the search")
    plain = to_plain(recipe)
    params: Params = {}
    used: set[str] = set()
    for name, dimension in space.items():
        if not dimension.active(params):
            continue
        source = next((one for one in (name, field_of(name)) if one in given), None)
        value = get_dotted(plain, field_of(name)) if source is None else given[source]
        fitted = dimension.fitted(value)
        if fitted is None:
            raise InputError(f"{prefix}{name} must lie inside search.{name} ({dimension}), got {show(value)} ({where})")
        params[name] = fitted
        used |= {source} if source is not None else set()
    for name in given:
        if name in used:
            continue
        if any(one in used for one in by_field.get(name, ())):
            raise given_twice(name, where, prefix)
        raise InputError(
            f"{prefix}{name} does not exist with the other values: it exists"
            f"{space.get(name, space[by_field.get(name, [name])[0]]).condition()} ({where})"
        )
    return params


def params_of(recipe: Recipe, space: Space) -> Params:
    """A recipe's values in the dimensions of a space."""
    plain = to_plain(recipe)
    params: Params = {}
    for name, dimension in space.items():
        if dimension.active(params):
            params[name] = get_dotted(plain, field_of(name))
    return params


def with_params(recipe: Recipe, params: Mapping[str, Value]) -> Recipe:
    """The recipe with the sampled values in place."""
    plain = to_plain(recipe)
    for name, value in params.items():
        set_dotted(plain, field_of(name), value)
    return recipe_from_plain(plain, "sampled recipe")


def coordinates(params: Params, space: Space) -> list[float]:
    """A point in the unit cube: a number by its position in its range (linear or log), a choice with one coordinate per
    value. A dimension that does not exist is in the middle.
    """
    point: list[float] = []
    for name, dimension in space.items():
        value = params.get(name)
        if isinstance(dimension, Choice):
            # Different choices are then at distance 1.
            point += [0.5**0.5 * (value == choice) for choice in dimension.choices]
        else:
            assert isinstance(dimension, Range)
            point.append(0.5 if value is None else _share(float(value), dimension))
    return point


def _share(value: float, dimension: Range) -> float:
    low, high = dimension.low, dimension.high
    if low == high:
        return 0.5
    if dimension.log and value > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return float(min(1.5, max(-0.5, (value - low) / (high - low))))
