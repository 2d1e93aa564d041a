"""`hcpr_tune kill`: ask a search to end one trial."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.arguments import add_study, whole_number
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    kill = commands.add_parser(
        "kill",
        description="End one trial of a search; a running one ends with its epoch.",
    )
    add_study(kill)
    kill.add_argument("trial", type=whole_number, metavar="TRIAL", help="its number")


def run(options: argparse.Namespace) -> int:
    """Check the trial and leave the request in the study's folder."""
    from hcpr_tune.study import Study
    from hcpr_tune.views.next_commands import about

    study = Study.of(options.storage, options.name, "kill ")
    study.kill(options.trial)
    when = (
        "a running epoch is finished first"
        if study.is_running
        else f"it is taken up by: {about('tune --resume', study.folder)}"
    )
    say(f"asked {study.folder.address} to end trial {options.trial}; {when}")
    return COMPLETED
