"""`hcpr_tune logs`: what a detached search has printed."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import stream
from hcpr_tune.common.text import clean


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    logs = commands.add_parser("logs", description="Print what a detached search has printed so far.")
    add_study(logs)
    logs.add_argument("--address", metavar="ADDRESS", help="the cluster's dashboard, where it has moved since")


def run(options: argparse.Namespace) -> int:
    """Print the log of the cluster's job that runs the search."""
    from hcpr_tune.cli.detach import read_log

    # It contains what users' models have printed.
    stream().write(clean(read_log(options.storage, options.name, options.address)))
    return COMPLETED
