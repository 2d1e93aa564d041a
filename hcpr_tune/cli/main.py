"""The command line: its parser, and how errors become exit codes. What a command does is in `cli.commands` and
`cli.studies`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from hcpr_tune.cli import completers
from hcpr_tune.cli.exit_codes import BAD_INPUT, COMPLETED, INTERRUPTED, NOT_READ, NOTHING_COMPLETED
from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.common.output import Unheard, kept_for_us, open_streams, outlets
from hcpr_tune.common.text import clean
from hcpr_tune.errors import HcprTuneError, InputError, Interrupted
from hcpr_tune.version import VERSION

COMMANDS = {
    "tune": "search a space",
    "plan": "simulate a search before paying for it",
    "train": "train one recipe",
    "evaluate": "attack a trained model",
    "data": "download a dataset",
    "init": "a starter space for your own images",
    "status": "the state of a search",
    "list": "all searches of a storage",
    "watch": "a live page in the browser",
    "stop": "stop a running search",
    "logs": "what a search printed, or does now",
    "report": "one page about a search",
    "verdict": "evaluate what a search found",
    "clean": "free the disk that a search holds",
    "enqueue": "add a trial to a search",
    "kill": "end one trial of a search",
    "export": "write a search or its model for other tools",
    "transfer": "narrow a large search by a small one",
    "schema": "a JSON schema of space files",
    "completion": "make a shell complete commands and names",
}
"""In the order in which `--help` lists them, with what it says of each."""
ON_STUDIES = ("clean", "enqueue", "export", "kill", "list", "logs", "report", "status", "stop", "watch")
"""Commands about studies that exist."""
BEGIN = "begin with: hcpr_tune tune; the options of a command: hcpr_tune COMMAND --help"


class Parser(argparse.ArgumentParser):
    """argparse, with errors on one line, a hint, and the nearest of the known names."""

    def error(self, message: str) -> Any:
        end = " See" if message.endswith("?") else "; see"
        self.exit(BAD_INPUT, f"{self.prog}: error: {one_line(message)}{end} {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = did_you_mean(str(value), known) or f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"{str(value)!r} is unknown; {hint}")


class CommandParser(Parser):
    """The parser of one command, which itself tells of options that it does not know."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            given = unknown[0].partition("=")[0]
            names = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            # The dashes are alike in all.
            known = [name.lstrip("-") for name in names]
            question = did_you_mean(given.lstrip("-"), known, "--") if given.startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; {question}" if question else ""))
        return options, unknown


def main(arguments: Sequence[str] | None = None, to_the_end: bool = False) -> int:
    """Run one command; returns the exit code.

    `to_the_end`, or without `arguments`: the process does nothing else, so that what threads and `atexit` print after
    it is kept apart too.
    """
    if completers.ASKED in os.environ:
        offer()
    open_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with outlets(forgiving=False):
            if not words:
                parser(()).print_help()
                return COMPLETED
            options = parser(named_in(words)).parse_args(words)
            from hcpr_tune.training.plugins import only_vouched

            # What a user's code prints is kept off standard output, and code is only imported if it is trusted.
            with kept_for_us(to_the_end or arguments is None), only_vouched():
                return carried_out(options)
    except Unheard as error:
        # A reader that closed the pipe has read enough.
        if not error.closed:
            with suppress(OSError):
                print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr, flush=True)
        return NOT_READ if error.closed else NOTHING_COMPLETED


def named_in(words: Sequence[str]) -> list[str]:
    """The command that a command line begins with, if any."""
    return [word for word in words[:1] if word in COMMANDS]


def offer() -> None:
    """Answer a shell that asks for completions, and end the process."""
    names = named_in(completers.typed_so_far())
    top = parser(names)
    takes_name = any(not action.option_strings for name in names for action in command_parser(top, name)._actions)
    completers.complete(top, options_too=not takes_name)


def carried_out(options: argparse.Namespace) -> int:
    """Run the command that the options name; returns the exit code."""
    from hcpr_tune.training.plugins import Ended, users_traceback

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


def parser(names: Collection[str] = tuple(COMMANDS)) -> Parser:
    """The parser of all commands. Only the named ones have their arguments, since importing all takes long; the others
    have what `--help` says of them.
    """
    top = Parser(
        prog="hcpr_tune",
        description="Search the coefficients of adversarial training, on one machine or a cluster.",
        epilog=BEGIN,
    )
    top.add_argument("-V", "--version", action="version", version=f"hcpr_tune {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for one, summary in COMMANDS.items():
        if one in names:
            command_module(one).add_parser(commands)
        else:
            commands.add_parser(one, help=summary)
    return top


def command_parser(top: Parser, name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found
