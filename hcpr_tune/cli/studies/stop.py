"""`hcpr_tune stop`: ask a running search to stop, wherever it runs."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.arguments import add_study, whole_number
from hcpr_tune.cli.exit_codes import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.errors import InputError


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    stop = commands.add_parser(
        "stop",
        description="Stop a running search, wherever it runs, as Ctrl-C there would: running epochs are abandoned, "
        "all else is kept.",
    )
    add_study(stop)
    stop.add_argument(
        "--wait", type=whole_number, default=60, metavar="S", help="how long to wait for its end (default: 60 seconds)"
    )


def run(options: argparse.Namespace) -> int:
    """Leave the request where the driver looks, and wait for its end."""
    from hcpr_tune.execution.connection.local_ray import end_leftovers
    from hcpr_tune.study import Study

    study = Study.of(options.storage, options.name, "stop ")
    if not study.is_running:
        left = end_leftovers()
        more = (
            f", but {left} processes of Ray that a killed search had left on this machine, which were ended"
            if left
            else ""
        )
        raise InputError(
            f"stop {options.name}: {study.folder.address} is not being searched; there is nothing to stop{more}"
        )
    if not study.stop(options.wait):
        say(f"asked {study.folder.address} to stop; it had not ended {options.wait} seconds later")
        return NOTHING_COMPLETED
    say(f"{study.folder.address} has stopped; everything recorded is kept")
    return COMPLETED
