"""Frozen, typed, documented settings: dataclasses whose fields carry their law, read from TOML and checked once.

A settings class is a frozen dataclass that inherits `Settings`; each field is made by `setting(default, doc, law...)`.
`read` builds one from nested dictionaries and names the file, the key, the law, the value and the way out when it can't.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from hcpr_tune.errors import InputError

Plain = bool | int | float | str
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Law:
    """What a value must obey, in a form that can be checked and said."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join(self.choices)
        parts = [
            f"{words} {bound:.15g}"
            for words, bound in (
                ("above", self.above),
                ("at least", self.at_least),
                ("below", self.below),
                ("at most", self.at_most),
            )
            if bound is not None
        ]
        return " and ".join(parts)

    def holds(self, value: Plain) -> bool:
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, str):
            return True
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )


def setting(
    default: Any,
    doc: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """One field of a `Settings` class: its default, one sentence of documentation, and its law."""
    law = Law(above, at_least, below, at_most, tuple(choices) if choices is not None else None)
    return field(default=default, metadata={"doc": doc, "law": law})


class Settings:
    """Base of all settings: checks every field's law on construction."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, item.name)
            if not isinstance(value, Settings):
                check(item.name, value, item)
        self.check_together()

    def check_together(self) -> None:
        """Laws between fields; a subclass raises `InputError` naming the field first."""


def check(name: str, value: Any, item: dataclasses.Field[Any]) -> None:
    """Raise `InputError` where `value` breaks the law of the field `item`; `name` is how the message calls it."""
    law: Law = item.metadata["law"]
    for element in value if isinstance(value, tuple) else (value,):
        if not law.holds(element):
            words = str(law) or "a finite number"
            if isinstance(element, float) and not math.isfinite(element):
                words = f"a finite number {law}".strip()
            raise InputError(f"{name} must be {words}, got {show(value)}" + _way_out(item))


def _way_out(item: dataclasses.Field[Any]) -> str:
    if item.default is dataclasses.MISSING or is_dataclass(item.default):
        return ""
    return f"; the default is {show(item.default)}"


def show(value: Any) -> str:
    """A value as it would be written in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(element) for element in value) + "]"
    if isinstance(value, Mapping):
        return "a table"
    return str(value)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields, looked up once: a space reads a thousand recipes to see whether its corners make sense."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def read(cls: type[S], values: Mapping[str, Any], where: str, prefix: str = "") -> S:
    """Build `cls` from a nested mapping.

    `where` is the file that the message names, `prefix` the dotted path of `values` inside it. Raises `InputError` for an
    unknown key, a wrong type or a broken law.
    """
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
    hints = _hints(cls)
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(prefix + key, known, where, prefix)
        try:
            given[key] = _convert(hints[key], value, known[key], where, prefix + key)
        except InputError as error:
            raise located(error, where) from None
    try:
        return cls(**given)
    except InputError as error:
        raise InputError(f"{prefix}{error} ({where})") from None


MOST_NAMES_LISTED = 12


def located(error: InputError, where: str) -> InputError:
    """The same error with the file that the settings stand in, unless it names it already."""
    if not str(error).endswith(f"({where})"):
        error.args = (f"{error} ({where})",)
    return error


def unknown_key(
    dotted: str, known: Iterable[str], where: str, prefix: str = "", kind: str = "known setting"
) -> InputError:
    """The error for a key that does not exist, with the nearest one that does. `known` are names below `prefix`."""
    names = sorted(known)
    wanted = dotted.removeprefix(prefix)
    near = difflib.get_close_matches(wanted, names, n=1) or [name for name in names if name.endswith("." + wanted)]
    if near:
        hint = f"did you mean {prefix}{near[0]}?"
    elif len(names) <= MOST_NAMES_LISTED:
        hint = "known here: " + ", ".join(names)
    else:
        hint = "`hcpr_tune tune --dry-run` prints all that there are"
    return InputError(f"{dotted} is not a {kind}; {hint} ({where})")


def _convert(hint: Any, value: Any, item: dataclasses.Field[Any], where: str, dotted: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Settings):
        shorthand = getattr(hint, "from_plain", None)
        if shorthand is not None and not isinstance(value, Mapping):
            number = _number(value, dotted, float, item)
            try:
                return shorthand(number)
            except InputError as error:
                raise InputError(f"{dotted}.{error}") from None
        if not isinstance(value, Mapping):
            raise InputError(f"{dotted} must be a table of settings, got {show(value)}")
        return read(hint, value, where, dotted + ".")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{dotted} must be a list, got {show(value)}" + _way_out(item))
        converted: Any = tuple(_convert(typing.get_args(hint)[0], element, item, where, dotted) for element in value)
    elif typing.get_origin(hint) is typing.Union:
        converted = _number_or_word(typing.get_args(hint), value, dotted, item)
    elif hint in (int, float):
        converted = _number(value, dotted, hint, item)
    elif isinstance(value, hint):
        converted = value
    else:
        raise InputError(f"{dotted} must be {_TYPE_WORDS[hint]}, got {show(value)}" + _way_out(item))
    check(dotted, converted, item)
    return converted


def _number_or_word(options: tuple[Any, ...], value: Any, dotted: str, item: dataclasses.Field[Any]) -> Any:
    """For `float | Literal["auto"]`: the word itself, or else the number."""
    kind, literal = options
    (word,) = typing.get_args(literal)
    if value == word:
        return word
    if isinstance(value, str):
        raise InputError(f"{dotted} must be {_TYPE_WORDS[kind]} or {show(word)}, got {show(value)}" + _way_out(item))
    return _number(value, dotted, kind, item)


_TYPE_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _number(value: Any, dotted: str, kind: type, item: dataclasses.Field[Any]) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and not isinstance(value, int)):
        raise InputError(f"{dotted} must be {_TYPE_WORDS[kind]}, got {show(value)}" + _way_out(item))
    if kind is int:
        return value
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every float breaks the same law as infinity
        return math.inf


def to_plain(settings: Settings) -> dict[str, Any]:
    """The settings as nested dictionaries of plain values, every field present: the inverse of `read`."""
    plain: dict[str, Any] = {}
    for item in fields(settings):  # type: ignore[arg-type]  # every subclass is a dataclass
        value = getattr(settings, item.name)
        if isinstance(value, Settings):
            plain[item.name] = to_plain(value)
        else:
            plain[item.name] = list(value) if isinstance(value, tuple) else value
    return plain


def dotted_names(cls: type[Settings], prefix: str = "") -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """Every leaf field of `cls` by its dotted name, with its type and its dataclass field."""
    names: dict[str, tuple[Any, dataclasses.Field[Any]]] = {}
    hints = _hints(cls)
    for item in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
        hint = hints[item.name]
        if isinstance(hint, type) and issubclass(hint, Settings):
            names |= dotted_names(hint, f"{prefix}{item.name}.")
        else:
            names[prefix + item.name] = (hint, item)
    return names


def get_dotted(values: Mapping[str, Any], dotted: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings, or `default`."""
    for part in dotted.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def set_dotted(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Write `value` at a dotted path of nested dictionaries, making tables (or replacing plain values) on the way."""
    *tables, last = dotted.split(".")
    for part in tables:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[last] = value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `InputError` where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{path} is not valid TOML: {error}; mend that line, or see search_spaces/default.toml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; give the path of a TOML file") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`dotted.name=value` -> (name, value). The value is read as TOML; what is no TOML is taken as a string."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set must be dotted.name=value, got {show(text)}; for instance --set budget.trials=8")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return name.strip(), value
