"""Search dimensions: what varies between trials, and under which conditions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hcpr_tune.common.settings import (
    shorten,
    show,
)

Value = bool | int | float | str
Params = dict[str, Value]
"""Searched values by dimension name, without dimensions whose condition does not hold."""
LEAST_BOUND, MOST_BOUND = 1e-30, 1e30
"""Smallest and largest absolute value of a range's ends: trainings and the report's forests compute in float32."""


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
