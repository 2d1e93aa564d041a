"""`hcpr_tune list`: all searches of a storage, from their records."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_storage
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.shell import command, storage_words
from hcpr_tune.views.terminal.console import has_width, make_console

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod

TITLES = ("study", "trials", "robust accuracy, %", "gain", "age", "state")


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    command = commands.add_parser(
        "list",
        description="List the searches of a storage, newest first: state, best trial, gain.",
    )
    add_storage(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print a line for each study, the one that was last heard of first."""
    from hcpr_tune.api.listing import UNREADABLE, listed

    console, studies = make_console(), listed(options.storage)
    if options.json:
        plain = {"storage": options.storage, "studies": studies}
        console.out(json.dumps(plain, indent=2, allow_nan=False), highlight=False)
        return COMPLETED
    if not studies:
        print_line(
            console,
            f"no study lies in {options.storage}; {command('tune', *storage_words(options.storage))} begins one, "
            "--storage DIR|URL looks elsewhere",
        )
        return COMPLETED
    print_table(console, [study for study in studies if study["state"] != UNREADABLE])
    for study in studies:
        if study["state"] == UNREADABLE:
            print_line(console, f"{study['study']} cannot be read: {study['reason']}")
    return COMPLETED


def print_table(console: Console, studies: Sequence[dict[str, Any]]) -> None:
    """A line for each study. The state comes last: where the terminal is narrow, it is what is cut."""
    rows = [TITLES, *map(row, studies)] if studies else []
    widths = [max(len(line[place]) for line in rows) for place in range(len(TITLES) - 1)] if rows else []
    for number, line in enumerate(rows):
        cells = [
            cell.rjust(width) if title in ("trials", "gain", "age") else cell.ljust(width)
            for title, cell, width in zip(TITLES[:-1], line[:-1], widths, strict=True)
        ]
        print_line(console, "  ".join([*cells, line[-1]]), fitted=True, style="bold" if number == 0 else "")


def row(study: dict[str, Any]) -> tuple[str, ...]:
    """A study's cells, by `TITLES`."""
    from hcpr_tune.views.status import STATES
    from hcpr_tune.views.wording import age

    best, gain, holder = study["best"], study["gain_points"], study["holder"]
    accuracy = "none yet"
    if best is not None:
        low, share, high = (100 * best["robust_accuracy_validation"][name] for name in ("low_95", "share", "high_95"))
        accuracy = f"{share:.1f} ({low:.1f} to {high:.1f})"
    state = STATES.get(study["state"], study["state"])
    # Before both have reached the last rung it is no answer.
    so_far = "" if study.get("gain_is_final", True) else f" at epoch {study['gain_at_epoch']}"
    return (
        study["study"],
        f"{study['trials_done']}/{study['trials']['budget']}",
        accuracy,
        "" if gain is None else f"{gain:+.1f}{so_far}",
        age(study["age_seconds"]),
        f"{state}, led by {holder['host']}" if holder is not None else state,
    )


def print_line(console: Console, words: str, fitted: bool = False, style: str = "") -> None:
    """A line without what would steer a terminal, whole unless it is to be `fitted` into the terminal's width."""
    from rich.text import Text

    from hcpr_tune.views.wording import printable

    fitted = fitted and (console.is_terminal or has_width())
    overflow: OverflowMethod = "ellipsis" if fitted else "ignore"
    console.print(Text(printable(words), style), no_wrap=True, overflow=overflow, crop=fitted)
