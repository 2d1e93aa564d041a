"""`hcpr_tune stop`: ask a running search to stop, wherever it runs."""

from __future__ import annotations

import argparse

from hcpr_tune.cli.exit_codes import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.errors import InputError
from hcpr_tune.study import Study


def run(options: argparse.Namespace) -> int:
    """Leave the request where the driver looks, and wait for its end."""
    from hcpr_tune.execution.local_ray import end_leftovers

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
