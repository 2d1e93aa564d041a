"""`hcpr_tune kill`: ask a search to end one trial."""

from __future__ import annotations

import argparse

from hcpr_tune.cli.console import COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Check the trial and leave the request in the study's folder."""
    from hcpr_tune.search.storage.inbox import KILL, checked, post
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.views.next_commands import about

    folder, study, history = reopen(options.storage, options.name, "kill ")
    request = {"kind": KILL, "trial": options.trial}
    try:
        checked(request, study, history)
    except InputError as error:
        raise InputError(f"kill {options.name} {options.trial}: {error} ({folder.address})") from None
    post(folder.objects, request)
    when = (
        "a running epoch is finished first"
        if living_lease_holder(folder.objects) is not None
        else f"{about('tune --resume', folder)} takes it up"
    )
    say(f"asked {folder.address} to end trial {options.trial}; {when}")
    return COMPLETED
