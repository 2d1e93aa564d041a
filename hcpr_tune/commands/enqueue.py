"""`hcpr_tune enqueue`: ask a search to try a point."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.commands.console import COMPLETED, typed


def run(options: argparse.Namespace) -> int:
    """Check the point and leave the request in the study's folder."""
    from hcpr_tune.search.inbox import ENQUEUE, post
    from hcpr_tune.search.record import is_led
    from hcpr_tune.search.runner import reopen
    from hcpr_tune.search.space import point_params, with_params
    from hcpr_tune.settings import parse_assignment

    folder, study, _ = reopen(Path(options.storage), options.name, "enqueue ")
    given = dict(parse_assignment(text) for text in options.set)
    params = point_params(given, study.recipe, study.space, "--set ", str(folder.study))
    with_params(study.recipe, params)
    post(folder.inbox, {"kind": ENQUEUE, "params": given})
    when = (
        "its search takes it up with the next free worker"
        if is_led(folder.record)
        else f"{typed('hcpr_tune')} tune --resume {options.name} takes it up"
    )
    print(f"asked {folder.root} for a trial; {when}")
    return COMPLETED
