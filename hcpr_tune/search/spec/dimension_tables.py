"""Read one dimension from its table."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hcpr_tune.common.settings import (
    as_float,
    check,
    shorten,
    show,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimensions import (
    LABEL,
    LEAST_BOUND,
    MOST_BOUND,
    Choice,
    Dimension,
    Prior,
    Range,
    Value,
    field_of,
)
from hcpr_tune.training.recipe import COEFFICIENT, Recipe, fields_of

MOST_CHOICES, MOST_EXTRA_VALUES = 1000, 100
"""Limits of a dimension."""
FIXED = ("task.", "evaluation.", "epochs", "segment_ends", "stop_epoch", "threads", "seed", "lr_schedule.mode")
"""Recipe fields that cannot be searched, because scores would not be comparable or the study sets them."""

KEYS = ("low", "high", "log", "extra_values", "choices", "when", "prior")
"""Allowed keys in the table of a dimension."""


def read_dimension(name: str, entry: Any, recipe: Recipe, where: str) -> Dimension:
    """A dimension from its table. `recipe` is that of trial 0, which gives an own method's coefficients their types."""
    fields = fields_of(recipe)
    if COEFFICIENT.fullmatch(field_of(name)) and field_of(name) not in fields:
        raise InputError(
            f"search.{name} has no value in the recipe; give trial 0's value as recipe.{field_of(name)} ({where})"
        )
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
    if COEFFICIENT.fullmatch(field_of(name)) and hint is int and any(isinstance(entry.get(one), float) for one in KEYS):
        raise InputError(
            f"recipe.{field_of(name)} = {item.default} makes search.{name} a whole number;"
            f" write {item.default}.0 if it is not one ({where})"
        )
    conditions = list(_conditions(name, entry.get("when", {}), where))
    if again := repeated(parent for parent, _ in conditions):
        raise given_twice(f"{name}.when.{again}", where)
    # Sorted, so that the order in the file does not matter to the fingerprint.
    when = tuple(sorted(conditions, key=lambda condition: condition[0]))
    if "choices" in entry:
        dimension: Dimension = _choice(name, entry, hint, item, where)
    else:
        dimension = _range(name, entry, hint, item, where, example)
    dimension = replace(dimension, when=when)
    return replace(dimension, prior=_prior(name, entry, dimension, where))


def repeated(names: Iterable[str]) -> str:
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


def given_twice(name: str, where: str, table: str = "search.") -> InputError:
    return InputError(
        f"{table}{shorten(name)} is given twice, as a quoted name and as a table, and one would be lost;"
        f" keep one of the two ({where})"
    )
