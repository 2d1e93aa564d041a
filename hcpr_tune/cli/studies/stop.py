"""`hcpr_tune stop`: ask a running search to stop, wherever it runs."""

from __future__ import annotations

import argparse
import time

from hcpr_tune.cli.console import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Leave the request where the driver looks, and wait for its end."""
    from hcpr_tune.execution.local_ray import end_leftovers
    from hcpr_tune.search.storage.inbox import STOP, post
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen

    folder, _, _ = reopen(options.storage, options.name, "stop ")
    if living_lease_holder(folder.objects) is None:
        left = end_leftovers()
        more = (
            f", but {left} processes of Ray that a killed search had left on this machine, which were ended"
            if left
            else ""
        )
        raise InputError(f"stop {options.name}: {folder.address} is not being searched; there is nothing to stop{more}")
    post(folder.objects, {"kind": STOP})
    until = time.monotonic() + options.wait
    while living_lease_holder(folder.objects) is not None:
        if time.monotonic() >= until:
            say(f"asked {folder.address} to stop; it had not ended {options.wait} seconds later")
            return NOTHING_COMPLETED
        time.sleep(0.5)
    say(f"{folder.address} has stopped; everything recorded is kept")
    return COMPLETED
