"""`hcpr_tune status`: the state of a search, from its record."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.shell import typed
from hcpr_tune.views.terminal.console import has_width, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.storage.lease import LeaseHolder
    from hcpr_tune.study import Study

WIDE = 500
"""Characters of a line that goes into a pipe or a file: nothing that matters is cut off there."""


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    status = commands.add_parser(
        "status",
        description="Show the state of a search, running or not: its driver, its best trials, what was lost.",
    )
    add_study(status)
    status.add_argument(
        "--watch",
        action="store_true",
        help="follow it: on a terminal until q or Ctrl-C, which do not stop the search; elsewhere line by line "
        "until it ends",
    )
    status.add_argument("--json", action="store_true", help="print JSON; with --watch an object per line")


def run(options: argparse.Namespace) -> int:
    """Print the driver, the state, and the command that continues the search."""
    console = make_console()
    if options.watch:
        follow(console, options)
    elif options.json:
        console.out(json.dumps(opened(options).status, indent=2, allow_nan=False), highlight=False)
    else:
        print_status(console, opened(options))
    return COMPLETED


def opened(options: argparse.Namespace) -> Study:
    """The study as it is now."""
    from hcpr_tune.study import Study

    return Study.of(options.storage, options.name, "status ")


def follow(console: Console, options: argparse.Namespace) -> None:
    """Show how the study goes on, and in the end how it stands."""
    from hcpr_tune.cli.following import watch, watch_lines
    from hcpr_tune.views.terminal.phases import is_live

    if is_live(console) and not options.json:
        watch(console, options.storage, options.name)
    else:
        watch_lines(console, options.storage, options.name, options.json, lambda: opened(options).status)
    if not options.json:
        print_status(console, opened(options))


def print_status(console: Console, study: Study) -> None:
    """The state, the command that continues the search, and what the live view shows."""
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.views.terminal.live_view import view_of
    from hcpr_tune.views.wording import printable

    holder, history = study.lease, study.history
    if not console.is_terminal and not has_width():
        console.width = WIDE
    for line in state_lines(StoredStudy(study.folder, study.spec, history), holder):
        console.out(printable(line), highlight=False)  # not folded: a command can be copied
    since = max(0.0, time.time() - history.heard) if holder is not None and history.heard else 0.0
    console.print(replace(view_of(study.spec, history, holder is not None), since=since))


def state_lines(stored: StoredStudy, holder: LeaseHolder | None) -> list[str]:
    """Where a study is, its state in words, and the way on."""
    folder, study, history = stored
    from hcpr_tune.views.next_commands import about, way_on
    from hcpr_tune.views.status import STATES, state_of

    lines = [f"study        {folder.address}"]
    if holder is not None:
        lines.append(f"state        running, led by {holder.words(time.time())}")
        return [*lines, f"follow it    {about('status', folder, '--watch')}"]
    state = state_of(study, history, holder)
    lines.append(f"state        not running ({STATES.get(state, state)})")
    return [*lines, f"go on        {way_on(stored, state, typed())}"]
