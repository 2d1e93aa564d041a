"""Frozen, typed, documented settings: dataclasses whose fields carry their bounds, read from TOML and checked once.

A settings class is a frozen dataclass that inherits `Settings`; each field is made by `setting(default, doc, ...)`.
`read` builds one from nested dictionaries; its errors name the file, the key, the bounds, the value and a hint.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from hcpr_tune.common.files import read_text
from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.errors import InputError

Plain = bool | int | float | str
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Bounds:
    """Bounds of a value, which can be checked and put into words."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | None = None
    forms: tuple[tuple[str, str], ...] = ()
    """Forms that a text may have instead of being one of `choices`: how each is written, and its regular expression."""

    def __str__(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join((*self.choices, *dict(self.forms)))
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
            return value in self.choices or (isinstance(value, str) and self._has_form(value))
        if isinstance(value, str):
            return is_text(value)
        return exists(value) and self.holds_between(value)

    def _has_form(self, value: str) -> bool:
        return is_text(value) and any(re.fullmatch(form, value) for _, form in self.forms)

    def holds_between(self, value: float) -> bool:
        """Whether a number is within the bounds."""
        return (
            (self.above is None or value > self.above)
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
    choices: Iterable[str | tuple[str, str]] | None = None,
) -> Any:
    """One field of a `Settings` class: its default, one sentence of documentation, and its bounds.

    A choice may also be a form, as in `Bounds.forms`.
    """
    listed = tuple(choices or ())
    known = None if choices is None else tuple(one for one in listed if isinstance(one, str))
    forms = tuple(one for one in listed if isinstance(one, tuple))
    bounds = Bounds(above, at_least, below, at_most, known, forms)
    return field(default=default, metadata={"doc": doc, "bounds": bounds})


class Settings:
    """Base of all settings: checks every field's bounds on construction."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, item.name)
            if not isinstance(value, Settings):
                check(item.name, value, item)
        self.check_together()

    def check_together(self) -> None:
        """Check rules between fields; a subclass raises `InputError`, whose message begins with the field."""


def check(name: str, value: Any, item: dataclasses.Field[Any], instead: Any = None) -> None:
    """Raises `InputError` if `value` is outside the bounds of the field `item`.

    `name` is the field's name in the message, `instead` a value that the message may suggest.
    """
    bounds: Bounds = item.metadata["bounds"]
    for element in value if isinstance(value, tuple) else (value,):
        if not bounds.holds(element):
            raise InputError(
                f"{name} must be {_bounds_words(bounds, element)}, got {show(value)}" + _hint(item, instead)
            )


def _bounds_words(bounds: Bounds, value: Plain) -> str:
    """What a value must be: the bounds of its field, and what holds for all values of its type."""
    if isinstance(value, str):
        return (is_text(value) and str(bounds)) or "text without null bytes that UTF-8 can encode"
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number {bounds}".strip()
    if not exists(value) and bounds.holds_between(value):
        return f"{bounds} and a whole number of 64 bits".removeprefix(" and ")
    return str(bounds)


def exists(value: float) -> bool:
    """Whether files and other programs can hold the number: an integer of 64 bits, or a finite float."""
    return -(2**63) <= value < 2**64 if isinstance(value, int) else math.isfinite(value)


def _hint(item: dataclasses.Field[Any], instead: Any = None) -> str:
    """A hint with a valid value: `instead`, the space's value that the command line overrides, else the default."""
    if item.default is dataclasses.MISSING or is_dataclass(item.default):
        return ""
    fits = type(instead) is type(item.default) or (isinstance(instead, int | float) and isinstance(item.default, str))
    if fits and item.metadata["bounds"].holds(instead):
        return f"; the space has {show(instead)}"
    return f"; the default is {show(item.default)}"


def is_text(value: str) -> bool:
    """Whether files and paths can hold the string: no null bytes, no lone surrogates."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


MOST_SHOWN = 120
"""Most characters of a value in a message."""


def shorten(text: str, most: int = MOST_SHOWN) -> str:
    """A text for a message: of a long one both ends and its length."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]} ... {text[-end:]} ({len(text)} characters)"


def show(value: Any) -> str:
    """A value for a message, as it would be written in TOML, and shortened."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**MOST_SHOWN:
        # Python refuses to print integers with thousands of digits.
        return f"a whole number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return shorten(in_toml(value))


def plain_values(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings given by a program, as the plain values that a file would have. Raises `InputError`."""
    return {name: _plain_value(value, f"{where}: {name}") for name, value in values.items()}


def _plain_value(value: Any, where: str) -> Any:
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # a number of NumPy or torch
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain_value(element, where) for element in value]
    if isinstance(value, Mapping):
        return {str(name): _plain_value(inner, where) for name, inner in value.items()}
    raise InputError(
        f"{where} must be a number, a text, a truth, or a list or table of them, got {show(value)}; convert it"
    )


def in_toml(value: Any) -> str:
    """A plain value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        plain = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(f"\\u{ord(one):04x}" if one < " " or one == "\x7f" else one for one in plain) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(in_toml(element) for element in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{in_toml(str(key))} = {in_toml(inner)}" for key, inner in value.items()) + "}"
    return str(value)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields, cached since checking the corners of a space reads a thousand recipes."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def read(
    cls: type[S], values: Mapping[str, Any], where: str, prefix: str = "", instead: Mapping[str, Any] | None = None
) -> S:
    """Build `cls` from a nested mapping.

    `where` is the file for messages, `prefix` the dotted path of `values` in it, `instead` the file's own values that
    the command line overrides, by dotted name. Raises `InputError` for an unknown key, a wrong type or a value out of
    bounds.
    """
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
    hints = _hints(cls)
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(prefix + key, known, where, prefix)
        try:
            given[key] = _convert(hints[key], value, known[key], where, prefix + key, instead or {})
        except InputError as error:
            raise located(error, where) from None
    try:
        return cls(**given)
    except InputError as error:
        raise InputError(f"{prefix}{error} ({where})") from None


MOST_NAMES_LISTED = 12


def located(error: InputError, where: str) -> InputError:
    """The same error with the settings' file, unless the message has it already."""
    if not str(error).endswith(f"({where})"):
        error.args = (f"{error} ({where})",)
    return error


def unknown_key(
    dotted: str, known: Iterable[str], where: str, prefix: str = "", kind: str = "known setting"
) -> InputError:
    """The error for an unknown key, with the closest known one. `known` are names below `prefix`."""
    names = sorted(known)
    wanted = dotted.removeprefix(prefix)
    if question := did_you_mean(wanted, names, prefix):
        hint = question
    elif len(names) <= MOST_NAMES_LISTED:
        hint = "known here: " + ", ".join(names)
    else:
        hint = "`hcpr_tune tune --dry-run` prints all of them"
    return InputError(f"{shorten(dotted)} is not a {kind}; {hint} ({where})")


def _convert(
    annotation: Any, value: Any, item: dataclasses.Field[Any], where: str, dotted: str, instead: Mapping[str, Any]
) -> Any:
    hint = _hint(item, instead.get(dotted))
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        shorthand = getattr(annotation, "from_plain", None)
        if shorthand is not None and not isinstance(value, Mapping):
            number = _number(value, dotted, float, hint)
            try:
                return shorthand(number)
            except InputError as error:
                raise InputError(f"{dotted}.{error}") from None
        if not isinstance(value, Mapping):
            raise InputError(f"{dotted} must be a table of settings, got {show(value)}")
        if (open_table := getattr(annotation, "from_table", None)) is not None:
            try:
                return open_table(value)
            except InputError as error:
                raise InputError(f"{dotted}.{error}") from None
        return read(annotation, value, where, dotted + ".", instead)
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{dotted} must be a list, got {show(value)}" + hint)
        kind = typing.get_args(annotation)[0]
        converted: Any = tuple(_convert(kind, element, item, where, dotted, instead) for element in value)
    elif typing.get_origin(annotation) is typing.Union:
        converted = _number_or_word(typing.get_args(annotation), value, dotted, hint)
    elif annotation in (int, float):
        converted = _number(value, dotted, annotation, hint)
    elif isinstance(value, annotation):
        converted = value
    else:
        raise InputError(f"{dotted} must be {_TYPE_WORDS[annotation]}, got {show(value)}" + hint)
    check(dotted, converted, item, instead.get(dotted))
    return converted


def _number_or_word(options: tuple[Any, ...], value: Any, dotted: str, hint: str) -> Any:
    """For `float | Literal["auto"]`: the word or the number."""
    kind, literal = options
    (word,) = typing.get_args(literal)
    if value == word:
        return word
    if isinstance(value, str):
        raise InputError(f"{dotted} must be {_TYPE_WORDS[kind]} or {show(word)}, got {show(value)}" + hint)
    return _number(value, dotted, kind, hint)


_TYPE_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _number(value: Any, dotted: str, kind: type, hint: str = "") -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and not isinstance(value, int)):
        raise InputError(f"{dotted} must be {_TYPE_WORDS[kind]}, got {show(value)}" + hint)
    return value if kind is int else as_float(value, dotted)


def as_float(value: float, dotted: str) -> float:
    """The number as a float. Raises `InputError` for an integer that no float equals.

    -0.0 becomes 0.0, so that files with either mean the same.
    """
    try:
        converted = float(value)
    except OverflowError:  # an integer above all floats is refused like infinity
        return math.inf
    if converted != value and not math.isnan(converted):
        raise InputError(
            f"{dotted} must be a number that a float can hold, got {show(value)}; the nearest is {converted:.17g}"
        )
    return converted + 0.0


def to_plain(settings: Settings) -> dict[str, Any]:
    """The settings as nested dictionaries of plain values, with every field: the inverse of `read`."""
    plain: dict[str, Any] = {}
    for item in fields(settings):  # type: ignore[arg-type]  # every subclass is a dataclass
        value = getattr(settings, item.name)
        if hasattr(value, "plain"):
            # A table of any names; without names it is left out.
            plain |= {item.name: table} if (table := value.plain()) else {}
        elif isinstance(value, Settings):
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
            names |= {} if hasattr(hint, "from_table") else dotted_names(hint, f"{prefix}{item.name}.")
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
    """Write `value` at a dotted path of nested dictionaries, creating tables (or replacing plain values) on the way."""
    *tables, last = dotted.split(".")
    for part in tables:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[last] = value


def lay_over(values: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """`set_dotted` for user input: raises `InputError` instead of replacing a plain value by a table."""
    parts = dotted.split(".")
    if len(parts) > MOST_LEVELS or not all(parts):
        raise InputError(
            f"--set {shorten(dotted)} is not a dotted name of a setting; for instance --set budget.trials=8 ({where})"
        )
    for place in range(1, len(parts)):
        name = ".".join(parts[:place])
        before = get_dotted(values, name)
        if before is not None and not isinstance(before, Mapping):
            raise InputError(
                f"--set {shorten(dotted)} would replace {name} = {show(before)}, which is not a table;"
                f" set all of {name} at once ({where})"
            )
    set_dotted(values, dotted, value)


MOST_LEVELS = 16
"""Maximum nesting of tables and lists in a file."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `InputError` if it cannot be read or is not valid TOML."""
    return parse_toml(read_text(path, "give the path of a TOML file"), str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text, which messages call `where`.

    Raises `InputError` for invalid TOML, and for values that could not be written again.
    """
    try:
        tables = tomllib.loads(text, parse_float=_float)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{where} is not valid TOML: {shorten(str(error))}; fix that line, or see search_spaces/default.toml"
        ) from None
    except RecursionError:
        raise InputError(
            f"{where} has lists or tables nested too deeply, more than {MOST_LEVELS} levels; write them separately"
        ) from None
    except InputError as error:
        raise InputError(f"{error} ({where})") from None
    except ValueError:
        raise InputError(
            f"{where} has a number with thousands of digits; whole numbers have 64 bits, write it as 1e30"
        ) from None
    _check_depth(tables, where)
    return tables


def _float(text: str) -> float:
    """A float of a TOML text. Raises `InputError` if it would overflow to infinity or underflow to 0."""
    value = float(text)
    digits = text.lower().partition("e")[0]
    if (math.isinf(value) and "inf" not in text) or (value == 0 and any(digit in digits for digit in "123456789")):
        raise InputError(
            f"a number must be one that a float can hold, got {shorten(text)}; the largest is about 1.8e308"
        )
    return value


def _check_depth(tables: dict[str, Any], where: str) -> None:
    """Raises `InputError` for tables nested too deeply. Iterative, since recursion could overflow."""
    left: list[tuple[str, Any, int]] = [("", tables, 0)]
    while left:
        name, value, level = left.pop()
        if level > MOST_LEVELS:
            raise InputError(
                f"{shorten(name)} lies within {MOST_LEVELS} tables or lists, more than any setting does;"
                f" write it higher up ({where})"
            )
        if isinstance(value, dict):
            # Dots in a quoted name stand for tables.
            left += [
                (f"{name}.{key}" if name else key, inner, level + 1 + key.count(".")) for key, inner in value.items()
            ]
        elif isinstance(value, list):
            left += [(name, inner, level + 1) for inner in value]


def parse_assignment(text: str) -> tuple[str, Any]:
    """`dotted.name=value` -> (name, value). A value that is not valid TOML is a string. Raises `InputError`."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set must be dotted.name=value, got {show(text)}; for instance --set budget.trials=8")
    try:
        tables = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return name.strip(), raw.strip()
    except (ValueError, RecursionError):  # reported below
        tables = {}
    where = f"--set {shorten(name.strip())}"
    # Errors beyond the syntax are reported as for a file; a value of several lines that are TOML is a string.
    return name.strip(), parse_toml(f"value = {raw}", where)["value"] if len(tables) < 2 else raw.strip()


def parse_assignments(texts: Iterable[str], below: str = "") -> list[tuple[str, Any]]:
    """Several assignments; none may undo an earlier one, but part of a table may be given after the table.

    `below` is an optional prefix of names. Raises `InputError`.
    """
    found: list[tuple[str, Any]] = []
    for text in texts:
        name, value = parse_assignment(text)
        check_given_once([one for one, _ in found], name, below)
        found.append((name, value))
    return found


def check_given_once(before: Iterable[str], name: str, below: str = "") -> None:
    """Raises `InputError` if `name` would replace a name given `before`, or fix a field whose dimension was given."""
    wanted = name.removeprefix(below)
    for one in before:
        given = one.removeprefix(below)
        dimension = given.removeprefix("search.").replace("@", ".") if given.startswith("search.") else ""
        if f"{given}.".startswith(f"{wanted}.") or f"{dimension}.".startswith(f"{wanted}."):
            raise InputError(
                f"{shorten(one)} is given on the command line, and {shorten(name)} after it would undo that;"
                " give one of the two"
            )
