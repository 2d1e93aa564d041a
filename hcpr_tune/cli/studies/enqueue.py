"""`hcpr_tune enqueue`: ask a search to try a point."""

from __future__ import annotations

import argparse

from hcpr_tune.cli.console import COMPLETED
from hcpr_tune.common.output import say


def run(options: argparse.Namespace) -> int:
    """Check the point and leave the request in the study's folder."""
    from hcpr_tune.common.settings import parse_assignments
    from hcpr_tune.search.spec.space import point_params, with_params
    from hcpr_tune.search.storage.inbox import ENQUEUE, post
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.views.next_commands import about

    folder, study, _ = reopen(options.storage, options.name, "enqueue ")
    given = dict(parse_assignments(options.set))
    params = point_params(given, study.recipe, study.space, "--set ", str(folder.study))
    with_params(study.recipe, params)
    post(folder.objects, {"kind": ENQUEUE, "params": given})
    when = (
        "its search takes it up with the next free worker"
        if living_lease_holder(folder.objects) is not None
        else f"{about('tune --resume', folder)} takes it up"
    )
    say(f"asked {folder.address} for a trial; {when}")
    return COMPLETED
