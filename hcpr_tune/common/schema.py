"""Schemas of values read from JSON: types, ranges and fields, as frozen objects that check values and name bounds."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Protocol,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

LARGEST = 1.7976931348623157e308
"""The largest float; larger integers cannot be converted."""
MOST_SHOWN = 60
"""Most characters of a value in a message."""


class Wrong(ValueError):
    """A value does not conform to its schema; the message has its name, the bounds and the value."""


class Shape(Protocol):
    """The schema of a value."""

    def check(self, value: Any, name: str) -> None:
        """Raises `Wrong` if the value called `name` does not conform."""


def refuse(name: str, bounds: str, value: Any) -> Wrong:
    """The error for a value, which is shortened."""
    try:
        shown = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        shown = type(value).__name__
    return Wrong(f"{name} must be {bounds}, got {shown if len(shown) <= MOST_SHOWN else shown[:MOST_SHOWN] + '...'}")


@dataclass(frozen=True)
class Number:
    """A finite number, or an integer."""

    low: float = -LARGEST
    high: float = LARGEST
    integer: bool = False

    def check(self, value: Any, name: str) -> None:
        right = isinstance(value, int) if self.integer else isinstance(value, int | float)
        # Comparisons with NaN are false.
        if not right or isinstance(value, bool) or not self.low <= value <= self.high:
            kind = "a whole number" if self.integer else "a finite number"
            bounds = [f"at least {self.low:.15g}"] * (self.low > -LARGEST)
            bounds += [f"at most {self.high:.15g}"] * (self.high < LARGEST)
            raise refuse(name, " ".join([kind, " and ".join(bounds)]).strip(), value)


@dataclass(frozen=True)
class Text:
    """A string, one of `among` if given."""

    among: tuple[str, ...] = ()

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, str) or (self.among and value not in self.among):
            raise refuse(name, f"one of {', '.join(self.among)}" if self.among else "a text", value)


@dataclass(frozen=True)
class Truth:
    """True or false."""

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, bool):
            raise refuse(name, "true or false", value)


@dataclass(frozen=True)
class Plain:
    """A searched value: a string, a boolean or a finite number."""

    def check(self, value: Any, name: str) -> None:
        if isinstance(value, str | bool):
            return
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise refuse(name, "a text, true, false or a finite number", value)


@dataclass(frozen=True)
class Maybe:
    """A value of another shape, or None."""

    shape: Shape

    def check(self, value: Any, name: str) -> None:
        if value is not None:
            self.shape.check(value, name)


@dataclass(frozen=True)
class Row:
    """A list of values of one shape, with a fixed length if given."""

    item: Shape
    length: int | None = None

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, list | tuple) or (self.length is not None and len(value) != self.length):
            raise refuse(name, "a list" + ("" if self.length is None else f" of {self.length}"), value)
        for place, item in enumerate(value):
            self.item.check(item, f"{name}[{place}]")


@dataclass(frozen=True)
class Table:
    """Named values: those in `needed` are required, those in `known` optional.

    Others must conform to `others` if given, and are ignored otherwise, since a later version may add fields.
    """

    needed: Mapping[str, Shape] = field(default_factory=dict)
    known: Mapping[str, Shape] = field(default_factory=dict)
    others: Shape | None = None

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise refuse(name, "a table", value)
        for key, shape in self.needed.items():
            if key not in value:
                raise Wrong(f"{_part(name, key)} is missing")
            shape.check(value[key], _part(name, key))
        for key, item in value.items():
            shape_of = self.known.get(key, None if key in self.needed else self.others)
            if shape_of is not None:
                shape_of.check(item, _part(name, key))


def _part(name: str, key: str) -> str:
    return f"{name}.{key[:MOST_SHOWN]}" if name else key[:MOST_SHOWN]


def table_of(kind: type, leave_out: Collection[str] = ()) -> Table:
    """The schema of a `TypedDict`, of all fields but those to `leave_out`.

    `Annotated[int, Number(0, 9)]` gives a field's bounds; without them a type's schema is that of `shape_of`.
    """
    needed: dict[str, Shape] = {}
    known: dict[str, Shape] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        # With postponed annotations `NotRequired` is not in `__optional_keys__`, and `total=False` is nowhere else.
        optional = get_origin(hint) is NotRequired
        if name not in leave_out:
            fields = known if optional or name in kind.__optional_keys__ else needed  # type: ignore[attr-defined]
            fields[name] = shape_of(get_args(hint)[0] if optional else hint)
    return Table(needed, known)


def shape_of(hint: Any) -> Shape:
    """The schema of a type: a plain type, a list, a `TypedDict` or other table, one of these or None."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((one for one in parts[1:] if hasattr(one, "check")), None) or shape_of(parts[0])
    if origin is Literal:
        return Text(parts)
    if origin is list:
        return Row(shape_of(parts[0]))
    if origin is dict:
        return Table(others=shape_of(parts[1]))
    if origin in (Union, UnionType):
        (one,) = (part for part in parts if part is not NoneType)
        return Maybe(shape_of(one))
    return PLAIN_TYPES[hint] if hint in PLAIN_TYPES else table_of(hint)


PLAIN_TYPES: Mapping[type, Shape] = {str: Text(), bool: Truth(), float: Number(), int: Number(integer=True)}


class ModelInputs(TypedDict):
    """A model's inputs and outputs, which its recipe does not have."""

    channels: Annotated[int, Number(1, 1000, integer=True)]
    classes: Annotated[int, Number(1, 10**5, integer=True)]
    image_size: Annotated[list[int], Row(Number(1, 10**5, integer=True), 2)]
    """Height and width."""
    class_names: NotRequired[list[str]]


MODEL_INPUTS = table_of(ModelInputs)


def check_model_inputs(value: Any, name: str) -> None:
    """Raises `Wrong` if no model can be built for these inputs."""
    MODEL_INPUTS.check(value, name)
    names = value.get("class_names", [])
    if names and len(names) != value["classes"]:
        raise refuse(f"{name}.class_names", f"as many names as the {value['classes']} classes", names)
