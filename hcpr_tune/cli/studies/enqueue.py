"""`hcpr_tune enqueue`: ask a search to try a point."""

from __future__ import annotations

import argparse

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.study import Study


def run(options: argparse.Namespace) -> int:
    """Check the point and leave the request in the study's folder."""
    from hcpr_tune.common.settings import parse_assignments
    from hcpr_tune.views.next_commands import about

    study = Study.of(options.storage, options.name, "enqueue ")
    study.enqueue(dict(parse_assignments(options.set)))
    when = (
        "its search takes it up with the next free worker"
        if study.is_running
        else f"{about('tune --resume', study.folder)} takes it up"
    )
    say(f"asked {study.folder.address} for a trial; {when}")
    return COMPLETED
