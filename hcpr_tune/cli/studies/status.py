"""`hcpr_tune status`: the state of a search, from its record."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.shell import typed
from hcpr_tune.views.terminal.console import has_width, make_console

if TYPE_CHECKING:
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.search.storage.lease import LeaseHolder

WIDE = 500
"""Characters of a line that goes into a pipe or a file: nothing that matters is cut off there."""


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    status = commands.add_parser(
        "status",
        description="Show the state of a search, running or not: its driver, its best trials, what was lost.",
    )
    add_study(status)
    status.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the driver, the state, and the command that continues the search."""
    from hcpr_tune.search.record.results import StoredStudy
    from hcpr_tune.study import Study
    from hcpr_tune.views.terminal.live_view import view_of
    from hcpr_tune.views.wording import printable

    opened, console = Study.of(options.storage, options.name, "status "), make_console()
    if options.json:
        console.out(json.dumps(opened.status, indent=2, allow_nan=False), highlight=False)
        return COMPLETED
    folder, study, history, holder = opened.folder, opened.spec, opened.history, opened.lease
    if not console.is_terminal and not has_width():
        console.width = WIDE
    console.out(printable(f"study        {folder.address}"), highlight=False)
    console.out(printable(f"state        {state_words(StoredStudy(folder, study, history), holder)}"), highlight=False)
    console.print(view_of(study, history, holder is not None))
    return COMPLETED


def state_words(stored: StoredStudy, holder: LeaseHolder | None) -> str:
    """The state of a study in words, with the way on."""
    _, study, history = stored
    from hcpr_tune.views.next_commands import way_on
    from hcpr_tune.views.status import STATES, state_of

    if holder is not None:
        return f"running, led by {holder.words(time.time())}"
    state = state_of(study, history, holder)
    command = way_on(stored, state, typed("hcpr_tune"))
    return f"not running ({STATES.get(state, state)}); {command} goes on"
