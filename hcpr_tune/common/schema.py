"""What a value that was read from JSON must look like: types, ranges and parts, as small frozen values that check and say their law."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

LARGEST = 1.7976931348623157e308
"""Of a float: a larger whole number cannot be counted with."""
MOST_SHOWN = 60
"""Characters of a value that a message shows."""


class Wrong(ValueError):
    """A value is not what it must be; the message says which, the law and the value."""


class Shape(Protocol):
    """A law for a value."""

    def check(self, value: Any, name: str) -> None:
        """Raises `Wrong` where the value called `name` breaks the law."""


def refuse(name: str, bounds: str, value: Any) -> Wrong:
    """The error for a value, shown in a readable length."""
    try:
        shown = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        shown = type(value).__name__
    return Wrong(f"{name} must be {bounds}, got {shown if len(shown) <= MOST_SHOWN else shown[:MOST_SHOWN] + '...'}")


@dataclass(frozen=True)
class Number:
    """A finite number, whole or not."""

    low: float = -LARGEST
    high: float = LARGEST
    integer: bool = False

    def check(self, value: Any, name: str) -> None:
        right = isinstance(value, int) if self.integer else isinstance(value, int | float)
        # Not a number compares false with everything.
        if not right or isinstance(value, bool) or not self.low <= value <= self.high:
            kind = "a whole number" if self.integer else "a finite number"
            bounds = [f"at least {self.low:.15g}"] * (self.low > -LARGEST)
            bounds += [f"at most {self.high:.15g}"] * (self.high < LARGEST)
            raise refuse(name, " ".join([kind, " and ".join(bounds)]).strip(), value)


@dataclass(frozen=True)
class Text:
    """A text, one of a few where `among` is given."""

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
    """What a searched value may be: a text, a truth value or a finite number."""

    def check(self, value: Any, name: str) -> None:
        if isinstance(value, str | bool):
            return
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise refuse(name, "a text, true, false or a finite number", value)


@dataclass(frozen=True)
class Maybe:
    """What another shape says, or nothing."""

    shape: Shape

    def check(self, value: Any, name: str) -> None:
        if value is not None:
            self.shape.check(value, name)


@dataclass(frozen=True)
class Row:
    """A list of one shape, perhaps of a fixed length."""

    item: Shape
    length: int | None = None

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, list | tuple) or (self.length is not None and len(value) != self.length):
            raise refuse(name, "a list" + ("" if self.length is None else f" of {self.length}"), value)
        for place, item in enumerate(value):
            self.item.check(item, f"{name}[{place}]")


@dataclass(frozen=True)
class Table:
    """Named values. Those of `needed` must be there; those that no law is known for obey `others`, and are free where there is none:
    a later version may say more.
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


MODEL_INPUTS = Table(
    needed={
        "channels": Number(1, 1000, integer=True),
        "classes": Number(1, 10**5, integer=True),
        "image_size": Row(Number(1, 10**5, integer=True), 2),
    },
    known={"class_names": Row(Text())},
)
"""What a model takes and gives, beside its recipe."""


def check_model_inputs(value: Any, name: str) -> None:
    """Raises `Wrong` where no model can be built for these inputs."""
    MODEL_INPUTS.check(value, name)
    names = value.get("class_names", [])
    if names and len(names) != value["classes"]:
        raise refuse(f"{name}.class_names", f"as many names as the {value['classes']} classes", names)
