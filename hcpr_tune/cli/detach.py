"""Searches that a cluster runs by itself: submitted through Ray's Job API, found again through a file in the study."""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import begin, named_in_study
from hcpr_tune.cli.exit_codes import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.common.shell import study_command
from hcpr_tune.common.text import clean, first_line
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.access import is_loopback
from hcpr_tune.execution.jobs import DASHBOARD, job_client, on_head
from hcpr_tune.views.search_progress import Phase, SearchProgress, joining

if TYPE_CHECKING:
    from hcpr_tune.api.search_request import SearchRequest
    from hcpr_tune.search.record.results import StudyFolder

KEY = "job.json"
"""Where the cluster's dashboard and the job are named."""
BEGIN_SECONDS = 120.0


def detach(options: argparse.Namespace, request: SearchRequest, progress: SearchProgress) -> int:
    """Begin or extend the study, hand it to the cluster, and return once its driver leads it."""
    from hcpr_tune.common.buckets.bucket import is_bucket
    from hcpr_tune.execution.connection.cluster import connected, shipped
    from hcpr_tune.execution.runner import recording
    from hcpr_tune.search.storage.studies import exists
    from hcpr_tune.views.next_commands import storage_of_folder

    folder, spec, _ = request.study
    own = storage_of_folder(folder)
    storage = own if is_bucket(own) else str(Path(own).absolute())
    progress.phase(joining(options.address))
    with connected(options.address) as cluster:
        if not cluster.dashboard_url:
            raise InputError(
                f"--detach: the cluster at {options.address} has no dashboard, whose Job API takes searches; start "
                "its head with one"
            )
        client = job_client(cluster.dashboard_url)
        if not exists(folder):
            begin(request.study)
        python, visible = on_head(None if is_bucket(storage) else folder.study.absolute())
        if not visible:
            raise InputError(
                f"--detach: the cluster's head does not see {folder.root.absolute()}, which was just made; choose a "
                "--storage that is shared with it, or a bucket"
            )
    progress.phase(Phase("handing the search to the cluster", "10 to 60 s"))
    # What comes first goes into the record now: the job only goes on with it.
    with recording(request.study, 0, request.requests, request.patience):
        pass
    name = folder.root.name
    command = _command(python, storage, options, request)
    runtime = {name: value for name, value in shipped(named_in_study(spec)).items() if value}
    try:
        job = client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env=runtime,
            metadata={"job_name": name},
            submission_id=f"{name}-{secrets.token_hex(4)}",
        )
    except RuntimeError as error:
        raise InputError(f"the cluster did not take the search: {first_line(error)}; look into its dashboard") from None
    folder.objects.write(KEY, json.dumps({"dashboard": cluster.dashboard_url, "job": job}).encode())
    begun = _has_begun(folder, client, job, BEGIN_SECONDS + options.wait)
    progress.close()
    if not begun:
        say_why_not(folder, client, job)
        return NOTHING_COMPLETED
    for verb, what in (("status", "its state"), ("logs", "its output"), ("stop", "stop it")):
        say(f"{what:<13}{study_command(verb, name, own)}")
    return COMPLETED


def _command(python: str, storage: str, options: argparse.Namespace, request: SearchRequest) -> list[str]:
    """The command that continues the study on the cluster."""
    return [
        *(python, "-m", "hcpr_tune", "tune", "--resume", request.study.name, "--storage", storage),
        *("--address", "auto", "--wait", str(options.wait)),
        # Trust is decided here: on the cluster no one can be asked, and what was started here is not known.
        *(["--trust"] if named_in_study(request.study.spec) else []),
        *(word for tracker in options.log_to for word in ("--log-to", tracker)),
    ]


def _has_begun(folder: StudyFolder, client: Any, job: str, seconds: float) -> bool:
    """Wait until the job's driver leads the study; False if it does not."""
    from hcpr_tune.search.storage.lease import living_lease_holder

    until = time.monotonic() + seconds
    while living_lease_holder(folder.objects) is None:
        status = str(client.get_job_status(job))
        if status == "SUCCEEDED":  # there was nothing left to do
            return True
        if status in ("FAILED", "STOPPED") or time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def say_why_not(folder: StudyFolder, client: Any, job: str) -> None:
    """What a job that does not lead the study has printed."""
    say(clean(client.get_job_logs(job)))
    status = client.get_job_status(job)
    say(f"the cluster's job {job} for {folder.address} is {status} and does not lead the study; see its output above")


def submitted(folder: StudyFolder, address: str | None) -> tuple[Any, str] | None:
    """The client and the name of the cluster's job that searches the study; None if it was not detached.

    Raises `InputError` if its cluster does not answer, or only a file says where that is.
    """
    name, data = folder.root.name, folder.objects.read(KEY)
    if data is None:
        return None
    try:
        named = json.loads(data)
        dashboard, job = str(named["dashboard"]), str(named["job"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"logs {name}: {KEY} in {folder.address} makes no sense; look into Ray's dashboard") from None
    if address is None:
        # The token is sent with the request: a file may direct it to this machine, and nowhere else.
        host = DASHBOARD.fullmatch(dashboard)
        if host is None or not is_loopback(host[1]):
            raise InputError(
                f"logs {name}: the study says that its cluster's dashboard is at {dashboard}; if you trust that, add "
                f"--address {dashboard.partition('://')[2] or 'HOST:PORT'}"
            )
    return job_client(address or dashboard), job
