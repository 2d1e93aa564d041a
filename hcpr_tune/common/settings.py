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

from hcpr_tune.common.files import read_text
from hcpr_tune.errors import InputError

Plain = bool | int | float | str
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Bounds:
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
            return is_text(value)
        return exists(value) and self.holds_between(value)

    def holds_between(self, value: float) -> bool:
        """Whether a number lies between the bounds."""
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
    choices: Iterable[str] | None = None,
) -> Any:
    """One field of a `Settings` class: its default, one sentence of documentation, and its law."""
    bounds = Bounds(above, at_least, below, at_most, tuple(choices) if choices is not None else None)
    return field(default=default, metadata={"doc": doc, "bounds": bounds})


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


def check(name: str, value: Any, item: dataclasses.Field[Any], instead: Any = None) -> None:
    """Raise `InputError` where `value` breaks the law of the field `item`; `name` is how the message calls it, `instead` what it may offer."""
    bounds: Bounds = item.metadata["bounds"]
    for element in value if isinstance(value, tuple) else (value,):
        if not bounds.holds(element):
            raise InputError(
                f"{name} must be {_bounds_words(bounds, element)}, got {show(value)}" + _hint(item, instead)
            )


def _bounds_words(bounds: Bounds, value: Plain) -> str:
    """What a value must be: the law of its field, and what holds for all values of its kind."""
    if isinstance(value, str):
        return str(bounds) or "text without a byte of 0 that UTF-8 can hold"
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number {bounds}".strip()
    if not exists(value) and bounds.holds_between(value):
        return f"{bounds} and a whole number of 64 bits".removeprefix(" and ")
    return str(bounds)


def exists(value: float) -> bool:
    """Whether files and programs have such a number: whole numbers have 64 bits, others are finite."""
    return -(2**63) <= value < 2**64 if isinstance(value, int) else math.isfinite(value)


def _hint(item: dataclasses.Field[Any], instead: Any = None) -> str:
    """The value that can be had for nothing: `instead`, what a space has where the command line gives another, else the default."""
    if item.default is dataclasses.MISSING or is_dataclass(item.default):
        return ""
    fits = type(instead) is type(item.default) or (isinstance(instead, int | float) and isinstance(item.default, str))
    if fits and item.metadata["bounds"].holds(instead):
        return f"; the space has {show(instead)}"
    return f"; the default is {show(item.default)}"


def is_text(value: str) -> bool:
    """Whether a file can hold it and a path can have it: no byte of 0, no half of a character."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


MOST_SHOWN = 120
"""Characters of a value that a message repeats."""


def shorten(text: str, most: int = MOST_SHOWN) -> str:
    """A text as a message can repeat it: of a long one both ends, and how long it is."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]} ... {text[-end:]} ({len(text)} characters)"


def show(value: Any) -> str:
    """A value as it would be written in TOML, in messages: a long one is shortened."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**MOST_SHOWN:
        # Python writes no number of thousands of digits.
        return f"a whole number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return shorten(in_toml(value))


def in_toml(value: Any) -> str:
    """A plain value as it is written in TOML, whole."""
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
    """The types of a class's fields, looked up once: a space reads a thousand recipes to see whether its corners make sense."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def read(
    cls: type[S], values: Mapping[str, Any], where: str, prefix: str = "", instead: Mapping[str, Any] | None = None
) -> S:
    """Build `cls` from a nested mapping.

    `where` is the file that the message names, `prefix` the dotted path of `values` inside it, `instead` what stood in it, by dotted
    name, before the command line gave something else. Raises `InputError` for an unknown key, a wrong type or a broken law.
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
    """For `float | Literal["auto"]`: the word itself, or else the number."""
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
    """The number as a float, which is what is written and read again. Raises `InputError` for a whole number that no float equals.

    There is one 0: a file with -0.0 means the same as one with 0.0.
    """
    try:
        converted = float(value)
    except OverflowError:  # a whole number beyond every float breaks the same law as infinity
        return math.inf
    if converted != value and not math.isnan(converted):
        raise InputError(
            f"{dotted} must be a number that a float can hold, got {show(value)}; the nearest is {converted:.17g}"
        )
    return converted + 0.0


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


def lay_over(values: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """`set_dotted` for what a person gives: a plain value on the way is not replaced by a table. Raises `InputError`."""
    parts = dotted.split(".")
    if len(parts) > MOST_LEVELS or not all(parts):
        raise InputError(
            f"--set {shorten(dotted)} is no dotted name of a setting; for instance --set budget.trials=8 ({where})"
        )
    for place in range(1, len(parts)):
        name = ".".join(parts[:place])
        before = get_dotted(values, name)
        if before is not None and not isinstance(before, Mapping):
            raise InputError(
                f"--set {shorten(dotted)} would replace {name} = {show(before)}, which is no table; set all of {name} at once ({where})"
            )
    set_dotted(values, dotted, value)


MOST_LEVELS = 16
"""Tables and lists within each other, in any file that is read."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `InputError` where it cannot be read or is no TOML."""
    return parse_toml(read_text(path, "give the path of a TOML file"), str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text; `where` is what messages call it. Raises `InputError` for what is no TOML, and for values that could not be written again."""
    try:
        tables = tomllib.loads(text, parse_float=_float)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{where} is not valid TOML: {shorten(str(error))}; mend that line, or see search_spaces/default.toml"
        ) from None
    except RecursionError:
        raise InputError(
            f"{where} holds lists or tables in each other, at most {MOST_LEVELS} can be; write them apart"
        ) from None
    except InputError as error:
        raise InputError(f"{error} ({where})") from None
    except ValueError:
        raise InputError(
            f"{where} holds a number of thousands of digits; whole numbers have 64 bits, write it as 1e30"
        ) from None
    _check_depth(tables, where)
    return tables


def _float(text: str) -> float:
    """A float of a TOML text. Raises `InputError` for one that would come out as infinite or 0 though it is neither."""
    value = float(text)
    digits = text.lower().partition("e")[0]
    if (math.isinf(value) and "inf" not in text) or (value == 0 and any(digit in digits for digit in "123456789")):
        raise InputError(
            f"a number must be one that a float can hold, got {shorten(text)}; the largest is about 1.8e308"
        )
    return value


def _check_depth(tables: dict[str, Any], where: str) -> None:
    """Raises `InputError` for what lies deeper than anything can. Without recursion, since it is for what is deep."""
    left: list[tuple[str, Any, int]] = [("", tables, 0)]
    while left:
        name, value, level = left.pop()
        if level > MOST_LEVELS:
            raise InputError(
                f"{shorten(name)} lies within {MOST_LEVELS} tables or lists, more than any setting does; write it higher up ({where})"
            )
        if isinstance(value, dict):
            # A quoted name may hold dots, which stand for tables.
            left += [
                (f"{name}.{key}" if name else key, inner, level + 1 + key.count(".")) for key, inner in value.items()
            ]
        elif isinstance(value, list):
            left += [(name, inner, level + 1) for inner in value]


def parse_assignment(text: str) -> tuple[str, Any]:
    """`dotted.name=value` -> (name, value). The value is read as TOML; what is no TOML is taken as a string. Raises `InputError`."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set must be dotted.name=value, got {show(text)}; for instance --set budget.trials=8")
    try:
        tables = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return name.strip(), raw.strip()
    except (ValueError, RecursionError):  # what that is, is said below
        tables = {}
    where = f"--set {shorten(name.strip())}"
    # What goes wrong beyond the syntax is said as of a file; of several lines all are meant, and make no value.
    return name.strip(), parse_toml(f"value = {raw}", where)["value"] if len(tables) < 2 else raw.strip()


def parse_assignments(texts: Iterable[str], below: str = "") -> list[tuple[str, Any]]:
    """Several of them, each name once: nothing that is given is lost to what is given after it. `below` may stand in front of a name or not.

    A part of a table may be given after the table. Raises `InputError`.
    """
    found: list[tuple[str, Any]] = []
    for text in texts:
        name, value = parse_assignment(text)
        check_given_once([one for one, _ in found], name, below)
        found.append((name, value))
    return found


def check_given_once(before: Iterable[str], name: str, below: str = "") -> None:
    """Raises `InputError` where `name` would replace one of those given `before`, or fix a field whose dimension one of them describes."""
    wanted = name.removeprefix(below)
    for one in before:
        given = one.removeprefix(below)
        dimension = given.removeprefix("search.").replace("@", ".") if given.startswith("search.") else ""
        if f"{given}.".startswith(f"{wanted}.") or f"{dimension}.".startswith(f"{wanted}."):
            raise InputError(
                f"{shorten(one)} is given on the command line, and {shorten(name)} after it would undo that; give one of the two"
            )
