"""`hcpr_tune logs`: what a detached search has printed."""

from __future__ import annotations

import argparse

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import stream
from hcpr_tune.common.text import clean


def run(options: argparse.Namespace) -> int:
    """Print the log of the cluster's job that runs the search."""
    from hcpr_tune.cli.detach import read_log

    # It contains what users' models have printed.
    stream().write(clean(read_log(options.storage, options.name, options.address)))
    return COMPLETED
