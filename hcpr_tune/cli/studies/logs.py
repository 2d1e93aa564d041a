"""`hcpr_tune logs`: what a search has printed or recorded, and with `--follow` what it does now."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say, stream
from hcpr_tune.common.text import clean

if TYPE_CHECKING:
    from hcpr_tune.search.record.results import StoredStudy

LOOK_SECONDS = {False: 0.3, True: 1.0}
"""Between two looks at a record in a folder (False), and at one in a bucket or at a cluster's job (True)."""


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    logs = commands.add_parser(
        "logs",
        description="Print what a search has done so far: the output of a detached one, of others a line for each "
        "event of its record.",
    )
    add_study(logs)
    logs.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on with what comes, until the search has ended or Ctrl-C, which does not stop the search",
    )
    logs.add_argument("--address", metavar="ADDRESS", help="the cluster's dashboard, where it has moved since")


def run(options: argparse.Namespace) -> int:
    """Print the log of the cluster's job that runs the search; without one, that of the record."""
    from hcpr_tune.cli.detach import submitted
    from hcpr_tune.search.storage.studies import find_study, reopen

    job = submitted(find_study(options.name, options.storage, "logs "), options.address)
    if job is None:
        show_record(reopen(options.storage, options.name, "logs "), options.follow)
    else:
        show_job(*job, options.follow)
    return COMPLETED


def show_job(client: Any, job: str, follow: bool) -> None:
    """Print what a job has printed, or does until it ends."""
    shown, ended = 0, not follow
    while True:
        # Asked first: what it prints until then is in the log.
        ended = ended or client.get_job_status(job).is_terminal()
        log: str = client.get_job_logs(job)
        # It contains what users' models have printed.
        stream().write(clean(log[shown:]))
        stream().flush()
        shown = len(log)
        if ended:
            return
        time.sleep(LOOK_SECONDS[True])


def show_record(stored: StoredStudy, follow: bool) -> None:
    """Print the events that are recorded, or are until no process searches the study."""
    from hcpr_tune.search.record.follow import RecordFollower
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import as_begun
    from hcpr_tune.views.terminal.record_log import RecordLog

    folder = stored.folder
    follower, log = RecordFollower(folder, as_begun(stored)), RecordLog(stored.spec)
    waits = False
    while True:
        ended = not follow or living_lease_holder(folder.objects) is None
        for event in follower.new():
            for line in log.of(event, follower.history):
                say(line)
        stream().flush()
        if ended and (not follow or follower.history.fingerprint):
            return
        if ended and not waits:
            waits = True
            sys.stderr.write(f"hcpr_tune: {folder.address} is not searched yet: waiting for its search to begin\n")
        time.sleep(LOOK_SECONDS[folder.bucket is not None])
