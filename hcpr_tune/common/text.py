"""Sanitises foreign text before it is written: exceptions of user code, file names, messages from a cluster.

Such text may contain lone surrogates, which UTF-8 cannot encode, or control characters for terminals. These are escaped
as Python would escape them.
"""

from __future__ import annotations

import traceback
import unicodedata
from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 500
"""Maximum length of a message; longer ones usually contain a whole value."""


def clean(text: str) -> str:
    """The text with lone surrogates and control characters escaped, except newlines and tabs."""
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text on one line, clean, and cut to `most` characters."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th"}
)
"""Latin letters that Unicode does not decompose."""


def ascii_of(text: str) -> str:
    """The text without accents; letters of other scripts stay as they are."""
    parts = unicodedata.normalize("NFKD", text.translate(LETTERS))
    return "".join(one for one in parts if not unicodedata.combining(one))


def encodable(value: Any) -> Any:
    """Plain values, nested ones included, with lone surrogates escaped in every string."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    return [encodable(one) for one in value] if isinstance(value, list | tuple) else value


def message_of(error: BaseException) -> str:
    """The first line of an error's message, clean; empty if it has none."""
    try:
        text = str(error)
    except BaseException as another:  # a user's `__str__` may raise anything
        return f"(its message cannot be read: {_name_of(another)})"
    return one_line(next((line for line in text.splitlines() if line.strip()), ""))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or else its type."""
    return message_of(error) or _name_of(error)


def named(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    message = message_of(error)
    return f"{_name_of(error)}: {message}" if message else _name_of(error)


def traceback_of(error: BaseException) -> str:
    """The whole traceback, clean."""
    return clean("".join(traceback.format_exception(error)))


def _name_of(error: BaseException) -> str:
    return one_line(type(error).__name__, 100)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
