"""Text that others wrote, made fit for what we write: a user's exceptions, names of files, what a cluster says.

It may hold half of a surrogate pair, which UTF-8 cannot, or characters that steer a terminal. Nothing of it is dropped: such
characters are escaped as Python would escape them.
"""

from __future__ import annotations

import traceback
from typing import Any

MOST_CHARACTERS = 500
"""Of one message; what is longer is a value that somebody printed whole."""


def clean(text: str) -> str:
    """The same text, on as many lines, with what UTF-8 cannot hold and what would steer a terminal escaped."""
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text on one line, clean, and no longer than can be read."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def encodable(value: Any) -> Any:
    """Plain values, tables and lists in them too, with what UTF-8 cannot hold escaped in every text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    return [encodable(one) for one in value] if isinstance(value, list | tuple) else value


def message_of(error: BaseException) -> str:
    """The first line of an error's message, clean; empty where it has none, or where its own class cannot say it."""
    try:
        text = str(error)
    except BaseException as another:  # somebody else's `__str__` is code like any other
        return f"(its message cannot be read: {_name_of(another)})"
    return one_line(next((line for line in text.splitlines() if line.strip()), ""))


def first_line(error: BaseException) -> str:
    """An error in a few words: its message, or else its type."""
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
