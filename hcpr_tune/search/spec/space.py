"""Search dimensions: what varies between trials, under which conditions, and how a sample becomes a recipe."""

from __future__ import annotations

import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hcpr_tune.common.settings import (
    Settings,
    as_float,
    check,
    dotted_names,
    get_dotted,
    set_dotted,
    shorten,
    show,
    to_plain,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.training.recipe import Recipe, recipe_from_plain

Value = bool | int | float | str
Params = dict[str, Value]
"""Searched values by dimension name, without dimensions whose condition does not hold."""

FIXED = ("task.", "evaluation.", "epochs", "segment_ends", "stop_epoch", "threads", "seed", "lr_schedule.mode")
"""Recipe fields that cannot be searched, because scores would not be comparable or the study sets them."""

MOST_DIMENSIONS, MOST_CHOICES, MOST_EXTRA_VALUES, MOST_CORNERS = 200, 1000, 100, 20_000
"""Limits of a space. Pairs of corners are limited because each is checked before a search starts."""
LEAST_BOUND, MOST_BOUND = 1e-30, 1e30
"""Smallest and largest absolute value of a range's ends: trainings and the report's forests compute in float32."""

KEYS = ("low", "high", "log", "extra_values", "choices", "when", "prior")
"""Allowed keys in the table of a dimension."""


@dataclass(frozen=True)
class Prior:
    """Good values are expected around `centre`; `strength` is the share of the first suggestions that follow this."""

    centre: Value
    strength: float

    def to_plain(self) -> dict[str, Any]:
        return {"centre": self.centre, "strength": self.strength}


@dataclass(frozen=True, kw_only=True)
class Dimension(ABC):
    """Base of all dimensions. `when` lists (dimension, allowed values); the dimension exists only if all hold."""

    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    prior: Prior | None = None

    def active(self, params: Mapping[str, Value]) -> bool:
        return not self.when or all(name in params and params[name] in allowed for name, allowed in self.when)

    @abstractmethod
    def fitted(self, value: Any) -> Value | None:
        """The value in the type of the dimension's field; None if it is not one of the dimension's values."""

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the dimension's values."""
        return self.fitted(value) is not None

    @abstractmethod
    def ends(self) -> tuple[Value, ...]:
        """The outermost values: both ends of a range, all of the choices."""

    def corners(self) -> tuple[Value, ...]:
        """The values at which rules between fields can break: for numbers, the outermost ones."""
        return self.ends()

    @abstractmethod
    def at(self, share: float) -> Value:
        """The value at `share` (0 <= share < 1) of the dimension, uniform in its own scale."""

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        if self.when:
            plain["when"] = {name: list(allowed) for name, allowed in self.when}
        if self.prior is not None:
            plain["prior"] = self.prior.to_plain()
        return plain

    def condition(self) -> str:
        """The condition in words; empty if there is none."""
        parts = [f"{name} is {shorten(' or '.join(map(show, allowed)))}" for name, allowed in self.when]
        return " where " + " and ".join(parts) if parts else ""


@dataclass(frozen=True)
class Range(Dimension):
    """A number from `low` to `high`, uniform or, with `log`, log-uniform; or one of `extra_values`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    extra_values: tuple[float, ...] = ()

    def fitted(self, value: Any) -> Value | None:
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float):
            return None
        if not (self.low <= value <= self.high or value in self.extra_values):
            return None
        return value if self.integer else float(value)

    def ends(self) -> tuple[Value, ...]:
        return self.low, self.high, *self.extra_values

    def at(self, share: float) -> Value:
        if share < self.share_of_extra_values:
            return self.extra_values[int(share / self.share_of_extra_values * len(self.extra_values))]
        share = (share - self.share_of_extra_values) / (1 - self.share_of_extra_values)
        if self.integer:
            # Each integer gets the same share.
            low, high = (self.low, self.high + 1) if not self.log else (self.low - 0.5, self.high + 0.5)
            value = low * (high / low) ** share if self.log else low + (high - low) * share
            return int(min(self.high, max(self.low, round(value) if self.log else int(value))))
        value = self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share
        return min(self.high, max(self.low, value))

    @property
    def share_of_extra_values(self) -> float:
        """The share of draws that are one of `extra_values`: a quarter for each, at most a half."""
        return min(0.5, 0.25 * len(self.extra_values))

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"low": self.low, "high": self.high}
        plain |= {"log": True} if self.log else {}
        plain |= {"extra_values": list(self.extra_values)} if self.extra_values else {}
        return plain | super().to_plain()

    def __str__(self) -> str:
        words = f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")
        return words + "".join(f" or {value:g}" for value in self.extra_values) + self.condition()


@dataclass(frozen=True)
class Choice(Dimension):
    """One of several values."""

    choices: tuple[Value, ...]

    def fitted(self, value: Any) -> Value | None:
        # True == 1 and 8.0 == 8, but a field takes only one of the types.
        kind = type(self.choices[0])
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return next((choice for choice in self.choices if choice == value), None)
        return value if type(value) is kind and value in self.choices else None

    def ends(self) -> tuple[Value, ...]:
        return self.choices

    def corners(self) -> tuple[Value, ...]:
        if isinstance(self.choices[0], bool | str):
            return self.choices
        return min(self.choices), max(self.choices)

    def at(self, share: float) -> Value:
        return self.choices[int(share * len(self.choices))]

    def to_plain(self) -> dict[str, Any]:
        return {"choices": list(self.choices)} | super().to_plain()

    def __str__(self) -> str:
        return "one of " + shorten(", ".join(map(str, self.choices))) + self.condition()


LABEL = re.compile(r"[A-Za-z0-9_-]{1,40}")
Space = dict[str, Dimension]
"""Dimensions by name, parents first. A name is a field of the recipe, or `field@label` if several dimensions share a
field under mutually exclusive conditions."""


def field_of(name: str) -> str:
    """The recipe field that a dimension sets."""
    return name.partition("@")[0]


def active_params(space: Space, values: Mapping[str, Value]) -> Params:
    """Those of `values` whose dimension exists given the others."""
    params: Params = {}
    for name, dimension in space.items():
        if name in values and dimension.active(params):
            params[name] = values[name]
    return params


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
    unordered = {name: _dimension(name, entry, where) for name, entry in sorted(leaves.items())}
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
            raise _given_twice(path, where)
        _lay(inner, rest, entry, f"{path}.", where)
    elif key not in tables:
        tables[key] = entry
    elif isinstance(tables[key], dict) and isinstance(entry, dict) and field_of(path) not in dotted_names(Recipe):
        for inner_key, inner in entry.items():
            _lay(tables[key], inner_key, inner, f"{path}.", where)
    else:
        raise _given_twice(path, where)


def _given_twice(name: str, where: str, table: str = "search.") -> InputError:
    return InputError(
        f"{table}{shorten(name)} is given twice, as a quoted name and as a table, and one would be lost;"
        f" keep one of the two ({where})"
    )


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


def _dimension(name: str, entry: Any, where: str) -> Dimension:
    fields = dotted_names(Recipe)
    if field_of(name) not in fields:
        raise unknown_key(f"search.{name}", fields, where, "search.", "field of the recipe")
    if "@" in name and not LABEL.fullmatch(name.partition("@")[2]):
        raise InputError(
            f"search.{shorten(name)}: the label after the @ must be 1 to 40 letters, digits, dashes or underscores;"
            f" choose another label ({where})"
        )
    if name.startswith(FIXED):
        raise InputError(
            f"search.{name} cannot be searched: scores of its trials would not be comparable;"
            f" fix it in [recipe] ({where})"
        )
    hint, item = fields[field_of(name)]
    if typing.get_origin(hint) is tuple:
        raise InputError(f"search.{name} cannot be searched: it is a list; fix it in [recipe] ({where})")
    example = f"search.{name} = {{ low = 1.0, high = 2.0 }} or {{ choices = [...] }}"
    if not isinstance(entry, Mapping):
        raise InputError(f"search.{name} must be a table, got {show(entry)}; write {example} ({where})")
    unknown = set(entry) - set(KEYS)
    if unknown:
        raise unknown_key(f"search.{name}.{min(unknown)}", KEYS, where, f"search.{name}.")
    conditions = list(_conditions(name, entry.get("when", {}), where))
    if doubled := _doubled(parent for parent, _ in conditions):
        raise _given_twice(f"{name}.when.{doubled}", where)
    # Sorted, so that the order in the file does not matter to the fingerprint.
    when = tuple(sorted(conditions, key=lambda condition: condition[0]))
    if "choices" in entry:
        dimension: Dimension = _choice(name, entry, hint, item, where)
    else:
        dimension = _range(name, entry, hint, item, where, example)
    dimension = replace(dimension, when=when)
    return replace(dimension, prior=_prior(name, entry, dimension, where))


def _doubled(names: Iterable[str]) -> str:
    """A name that occurs twice; empty if there is none."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]


def _conditions(name: str, when: Any, where: str) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """(dimension, allowed values) of a condition; dotted names may be written as nested tables."""
    if not isinstance(when, Mapping):
        raise InputError(
            f'search.{name}.when must be a table such as {{ method = "trades" }}, got {show(when)} ({where})'
        )
    for parent, values in when.items():
        if isinstance(values, Mapping):
            yield from ((f"{parent}.{rest}", allowed) for rest, allowed in _conditions(name, values, where))
        else:
            allowed = tuple(values) if isinstance(values, list) else (values,)
            if not allowed:
                raise InputError(f"search.{name}.when.{parent} must name at least one value ({where})")
            yield parent, allowed


def _prior(name: str, entry: Mapping[str, Any], dimension: Dimension, where: str) -> Prior | None:
    prior = entry.get("prior")
    if prior is None:
        return None
    if not isinstance(prior, Mapping) or set(prior) != {"centre", "strength"}:
        raise InputError(
            f"search.{name}.prior must be {{ centre = VALUE, strength = 0 to 1 }}, got {show(prior)} ({where})"
        )
    centre, strength = prior["centre"], prior["strength"]
    fitted = dimension.fitted(centre)
    if fitted is None:
        raise InputError(
            f"search.{name}.prior.centre must lie inside the dimension ({dimension}), got {show(centre)} ({where})"
        )
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise InputError(
            f"search.{name}.prior.strength must be at least 0 and at most 1, got {show(strength)} ({where})"
        )
    return Prior(fitted, float(strength) + 0.0)


def _choice(
    name: str,
    entry: Mapping[str, Any],
    hint: Any,
    item: Any,
    where: str,
) -> Choice:
    choices = entry["choices"]
    kinds = (int, float) if hint is float else (hint,)
    if not isinstance(choices, list) or len(choices) < 2 or {"low", "high", "log", "extra_values"} & set(entry):
        raise _no_choices(name, choices, where)
    if len(choices) > MOST_CHOICES:
        raise InputError(
            f"search.{name}.choices must be at most {MOST_CHOICES}, got {len(choices)};"
            f" give a range, or fewer choices ({where})"
        )
    found: list[Value] = []
    for value in choices:
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise InputError(
                f"search.{name}.choices must fit the field, a {hint.__name__}, got {show(value)} ({where})"
            )
        _check(f"search.{name}.choices", value, item, where)
        found.append(_float(f"search.{name}.choices", value, where) if hint is float else value)
    if len(set(found)) < len(found):
        raise _no_choices(name, choices, where)
    return Choice(tuple(found))


def _no_choices(name: str, choices: Any, where: str) -> InputError:
    return InputError(
        f"search.{name}.choices must be a list of at least two different values, without low and high,"
        f" got {show(choices)} ({where})"
    )


def _float(name: str, value: Any, where: str) -> float:
    try:
        return as_float(value, name)
    except InputError as error:
        raise InputError(f"{error} ({where})") from None


def _range(
    name: str,
    entry: Mapping[str, Any],
    hint: Any,
    item: Any,
    where: str,
    example: str,
) -> Range:
    if hint not in (int, float):
        raise InputError(
            f"search.{name} is not a number and needs choices; write search.{name} = {{ choices = [...] }} ({where})"
        )
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"search.{name}.log must be true or false, got {show(log)} ({where})")
    for side in ("low", "high"):
        if side not in entry:
            raise InputError(f"search.{name}.{side} is missing; write {example} ({where})")
    low, high = (_bound(f"search.{name}.{side}", entry[side], hint, item, where, example) for side in ("low", "high"))
    if low >= high:
        raise InputError(
            f"search.{name}.low must be below high = {high:g}, got {low:g};"
            f" swap them, or fix the value in [recipe] ({where})"
        )
    if log and low <= 0:
        raise InputError(
            f"search.{name}.low must be above 0 with log = true, got {low:g}; raise it or drop log ({where})"
        )
    listed = entry.get("extra_values", [])
    if not isinstance(listed, list):
        raise InputError(f"search.{name}.extra_values must be a list of numbers, got {show(listed)} ({where})")
    extra_values = tuple(_bound(f"search.{name}.extra_values", value, hint, item, where, example) for value in listed)
    if len(set(extra_values)) < len(extra_values):
        raise InputError(
            f"search.{name}.extra_values must be different values, got {show(listed)}; give each once ({where})"
        )
    if len(extra_values) > MOST_EXTRA_VALUES:
        raise InputError(
            f"search.{name}.extra_values must be at most {MOST_EXTRA_VALUES} values, got {len(extra_values)};"
            f" widen the range ({where})"
        )
    if any(low <= value <= high for value in extra_values):
        raise InputError(
            f"search.{name}.extra_values must lie outside {low:g} to {high:g}, got {show(listed)}; drop it ({where})"
        )
    return Range(low, high, log, hint is int, extra_values)


def _bound(name: str, bound: Any, hint: Any, item: Any, where: str, example: str) -> float:
    if isinstance(bound, bool) or not isinstance(bound, int if hint is int else (int, float)):
        whole = "whole " if hint is int else ""
        raise InputError(f"{name} must be a {whole}number, got {show(bound)}; write {example} ({where})")
    _check(name, typing.cast(float, bound), item, where)
    if bound and not LEAST_BOUND <= abs(bound) <= MOST_BOUND:
        raise InputError(
            f"{name} must be 0, or from {LEAST_BOUND:g} to {MOST_BOUND:g} in absolute value, got {show(bound)};"
            f" give one that float32 can hold ({where})"
        )
    return typing.cast(int, bound) if hint is int else _float(name, bound, where)


def _check(name: str, value: Value, item: Any, where: str) -> None:
    try:
        check(name, value, item)
    except InputError as error:
        raise InputError(
            f"{str(error).rpartition('; the default is ')[0] or error}; change it there ({where})"
        ) from None


def read_points(points: Any, recipe: Recipe, space: Space, where: str) -> tuple[Params, ...]:
    """The points of `first_points`, a list of tables; dimensions that a point leaves out are as in the recipe."""
    if not isinstance(points, list) or not all(isinstance(point, Mapping) for point in points):
        raise InputError(
            f'first_points must be a list of tables such as [{{ "hcpr.scale" = 12.0 }}], got {show(points)} ({where})'
        )
    found = []
    for place, point in enumerate(points):
        prefix, given = f"first_points[{place}].", list(_flat(point))
        if doubled := _doubled(name for name, _ in given):
            raise _given_twice(doubled, where, prefix)
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
            raise _given_twice(name, where, prefix)
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
