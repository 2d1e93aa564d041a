"""Commands as people type them: quoted, and with all that they need to mean the same again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

USUAL = "results"
"""Where studies lie unless --storage says otherwise."""


def typed(program: str = "hcpr_tune") -> str:
    """How a program that was installed with this one is called here: by its name, or by its path where it is not on PATH."""
    if shutil.which(program):
        return program
    path = Path(sys.executable).with_name(program)
    try:
        return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
    except OSError:  # the folder that we are in is gone
        return shlex.quote(str(path))


def quoted(word: object) -> str:
    """A word of a command that is no option: a name, or a path."""
    text = str(word)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def option(name: str, value: object) -> str:
    """An option with its value, also one that looks like an option itself."""
    text = str(value)
    return f"{name}={shlex.quote(text)}" if text.startswith("-") else f"{name} {shlex.quote(text)}"


def storage_words(storage: object) -> list[str]:
    """`--storage` where studies lie elsewhere than usual."""
    text = str(storage)
    return [] if text.rstrip("/") in (USUAL, f"./{USUAL}") else [option("--storage", text)]


def command(*words: str, program: str = "") -> str:
    """A command of ours from words that are quoted already."""
    return " ".join([program or typed(), *filter(None, words)])


def study_command(verb: str, name: str, storage: object, *more: str, program: str = "") -> str:
    """A command about a study: `tune --resume` and what else takes its name."""
    return command(verb, quoted(name), *storage_words(storage), *more, program=program)


def same_again() -> str:
    """What was typed, to be typed again."""
    return command(shlex.join(sys.argv[1:]))


def storage_of(address: str) -> tuple[str, str]:
    """The storage and the name of a study by its address: a folder, or a bucket's URL with perhaps options behind a `?`."""
    place, mark, options = address.partition("?") if "://" in address else (address, "", "")
    storage, _, name = place.rpartition("/")
    return (storage or ("/" if place.startswith("/") else ".")) + mark + options, name
