"""`hcpr_tune logs`: what a detached search has printed."""

from __future__ import annotations

import argparse
import sys

from hcpr_tune.commands.console import COMPLETED


def run(options: argparse.Namespace) -> int:
    """Print the log of the cluster's job that runs the search."""
    from hcpr_tune.commands.detaching import read_log

    sys.stdout.write(read_log(options.storage, options.name, options.address))
    return COMPLETED
