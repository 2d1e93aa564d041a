"""Commands for the user to type: quoted, and with all options they need."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

USUAL = "results"
"""The default of --storage."""


def typed(program: str = "hcpr_tune") -> str:
    """The command of a program installed with this one: its name, or its path if it is not on PATH."""
    if shutil.which(program):
        return program
    path = Path(sys.executable).with_name(program)
    try:
        return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
    except OSError:  # the current directory was deleted
        return shlex.quote(str(path))


def quoted(word: object) -> str:
    """A positional argument, such as a name or a path."""
    text = str(word)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def option(name: str, value: object) -> str:
    """An option with its value, which may look like an option itself."""
    text = str(value)
    return f"{name}={shlex.quote(text)}" if text.startswith("-") else f"{name} {shlex.quote(text)}"


def storage_words(storage: object) -> list[str]:
    """The `--storage` option, unless it is the default."""
    text = str(storage)
    return [] if text.rstrip("/") in (USUAL, f"./{USUAL}") else [option("--storage", text)]


def command(*words: str, program: str = "") -> str:
    """A command from words that are already quoted."""
    return " ".join([program or typed(), *filter(None, words)])


def study_command(verb: str, name: str, storage: object, *more: str, program: str = "") -> str:
    """A command that takes a study's name, such as `tune --resume`."""
    return command(verb, quoted(name), *storage_words(storage), *more, program=program)


def same_again() -> str:
    """The command line of this process, to be typed again."""
    return command(shlex.join(sys.argv[1:]))
