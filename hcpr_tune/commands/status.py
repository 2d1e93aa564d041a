"""`hcpr_tune status`: how a search stands, from its record."""

from __future__ import annotations

import argparse
import shlex
import time

from hcpr_tune.commands.console import COMPLETED, make_console, typed


def run(options: argparse.Namespace) -> int:
    """Print who leads the search, where it stands, and how to go on."""
    from hcpr_tune.search.holder import living_holder
    from hcpr_tune.search.studies import reopen
    from hcpr_tune.views.terminal import snapshot

    folder, study, history = reopen(options.storage, options.name, "status ")
    holder = living_holder(folder.place)
    console = make_console()
    if holder is not None:
        state = f"running, led by {holder.words(time.time())}"
    else:
        elsewhere = "" if options.storage == "results" else f" --storage {shlex.quote(options.storage)}"
        ended = {"": "its process died", "failed": "it failed", "storage": "its storage failed"}.get(
            history.ended, history.ended
        )
        state = f"not running ({ended}); {typed('hcpr_tune')} tune --resume {options.name}{elsewhere} goes on"
    console.print(f"study        {folder.address}", markup=False)
    console.print(f"state        {state}", markup=False)
    console.print(snapshot(study, history).body)
    return COMPLETED
