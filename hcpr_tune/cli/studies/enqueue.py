"""`hcpr_tune enqueue`: ask a search to try a point."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.arguments import add_set, add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    enqueue = commands.add_parser(
        "enqueue",
        description="Add a trial to a search, while it runs or for when it is resumed.",
    )
    add_study(enqueue)
    add_set(enqueue, "a searched dimension by dotted name, the others as in the published recipe")


def run(options: argparse.Namespace) -> int:
    """Check the point and leave the request in the study's folder."""
    from hcpr_tune.common.settings import parse_assignments
    from hcpr_tune.study import Study
    from hcpr_tune.views.next_commands import about

    study = Study.of(options.storage, options.name, "enqueue ")
    study.enqueue(dict(parse_assignments(options.set)))
    when = (
        "its search takes it up with the next free worker"
        if study.is_running
        else f"it is taken up by: {about('tune --resume', study.folder)}"
    )
    say(f"asked {study.folder.address} for a trial; {when}")
    return COMPLETED
