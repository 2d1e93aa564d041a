"""The command line: its parser, and how errors become exit codes. What a command does is in `cli.commands` and
`cli.studies`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hcpr_tune.cli.exit_codes import BAD_INPUT, INTERRUPTED, NOT_READ, NOTHING_COMPLETED
from hcpr_tune.common.output import Unheard, kept_for_us, open_streams, outlets
from hcpr_tune.common.text import clean
from hcpr_tune.errors import HcprTuneError, InputError, Interrupted
from hcpr_tune.training.plugins import Ended, only_vouched, users_traceback
from hcpr_tune.version import VERSION

COMMANDS = (
    *(
        "tune",
        "plan",
        "train",
        "evaluate",
        "data",
        "init",
        "status",
        "list",
        "watch",
        "stop",
        "logs",
        "report",
        "verdict",
    ),
    *("clean", "enqueue", "kill", "export", "transfer", "schema"),
)
"""In the order in which `--help` lists them."""
ON_STUDIES = ("clean", "enqueue", "export", "kill", "list", "logs", "report", "status", "stop", "watch")
"""Commands about studies that exist."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors on one line and a hint."""

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: error: {one_line(message)}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None, to_the_end: bool = False) -> int:
    """Run one command; returns the exit code.

    `to_the_end`, or without `arguments`: the process does nothing else, so that what threads and `atexit` print after
    it is kept apart too.
    """
    open_streams()
    try:
        with outlets(forgiving=False):
            options = parser().parse_args(arguments)
            # What a user's code prints is kept off standard output, and code is only imported if it is trusted.
            with kept_for_us(to_the_end or arguments is None), only_vouched():
                return carried_out(options)
    except Unheard as error:
        # A reader that closed the pipe has read enough.
        if not error.closed:
            with suppress(OSError):
                print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr, flush=True)
        return NOT_READ if error.closed else NOTHING_COMPLETED


def carried_out(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    try:
        code: int = command_module(options.command).run(options)
    except Unheard:
        raise
    except InputError as error:
        if details := getattr(error, "details", ""):
            print(details, file=sys.stderr)
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        print(f"hcpr_tune: {one_line(error)}", file=sys.stderr)
        return INTERRUPTED
    except Ended as error:
        print(users_traceback(error), file=sys.stderr)
        print(f"hcpr_tune: error: the model or the method {one_line(error)}; mend it", file=sys.stderr)
        return NOTHING_COMPLETED
    except KeyboardInterrupt:
        return INTERRUPTED
    except HcprTuneError as error:
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return NOTHING_COMPLETED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"hcpr_tune: error: {one_line(trouble_with(error))}", file=sys.stderr)
        return NOTHING_COMPLETED
    return code


def command_module(name: str) -> Any:
    """The module of a command, with `add_parser` and `run`. It imports torch and Ray only in what runs."""
    return importlib.import_module(f"hcpr_tune.cli.{'studies' if name in ON_STUDIES else 'commands'}.{name}")


def trouble_with(error: OSError) -> str:
    """What is wrong with a file of the system's, for what no command has foreseen."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{name}: {error.strerror or error}; mend that, and run it again"


LONGEST_WORD, LONGEST_LINE = 1000, 4000
"""Most characters of a word and of a message: a longer value would hide what is allowed and the hint."""


def one_line(error: Exception | str) -> str:
    """The message on one line, whatever was in a file that it quotes, and nothing in it that would steer a terminal."""
    words = [brief(word, LONGEST_WORD) for word in str(error).split()]
    return brief(clean(" ".join(words)), LONGEST_LINE)


def brief(text: str, most: int) -> str:
    """Both ends of what is too long."""
    if len(text) <= most:
        return text
    return f"{text[: most // 10]} ... ({len(text)} characters) ... {text[-most // 5 :]}"


def parser() -> Parser:
    """The parser of all commands. Nothing heavy is imported for it."""
    top = Parser(
        prog="hcpr_tune", description="Search the coefficients of adversarial training, on one machine or a cluster."
    )
    top.add_argument("--version", action="version", version=f"hcpr_tune {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        command_module(name).add_parser(commands)
    return top
