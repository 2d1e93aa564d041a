"""What the cluster's nodes are asked before a search: what a training takes there, their images, their storage."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hcpr_tune.common.settings import to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.capacity import Share
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.study import StudySpec

PROBE_SECONDS = 80.0
"""Together with Ray's start and imports this stays within two minutes."""
MOST_WORKERS = 8
"""The probe runs on as many workers at once as a search would use, up to this."""
MOST_NODES = 64
"""At most so many nodes are asked for their storage."""
CHECK_SECONDS = 120.0
"""Limit for an answer (file names and headers of a folder, the storage); what takes longer is left to the trials."""


def probe_cluster(study: StudySpec, share: Share) -> list[dict[str, Any]]:
    """What the published recipe costs on each of the probed workers: the fields of `training.probe.Probe`."""
    import ray

    remote = ray.remote(num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, max_retries=0)(_probe)
    recipe, on_gpu = to_plain(study.recipe), share.gpus_per_trial > 0
    tasks = [remote.remote(recipe, on_gpu, PROBE_SECONDS) for _ in range(min(share.workers, MOST_WORKERS))]
    try:
        found: list[dict[str, Any]] = ray.get(tasks, timeout=2 * PROBE_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise InputError(
            f"the probe had no answer from the cluster within {2 * PROBE_SECONDS:.0f} seconds: it may be busy with"
            " other work; try again later, or leave --probe out"
        ) from None
    except ray.exceptions.RayTaskError as error:
        raise InputError(f"the probe failed on a worker: {error.cause!r}; fix that before you search") from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the probe's worker was lost: {reason}; check the memory of the machine, and try again"
        ) from None
    return found


def check_data(study: StudySpec, share: Share) -> tuple[str, ...]:
    """Before the study starts, have a worker check a user's images, which the driver may not see.

    Of a folder, only file names and headers are read. Returns notes for the user, or nothing if no worker answers in
    time. Raises `InputError` for anything that would stop the search or its verdict.
    """
    import ray

    from hcpr_tune.training.data.registry import DATASETS

    if study.recipe.task.dataset in DATASETS:
        return ()
    task = ray.remote(num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, max_retries=0)(_check_data)
    answer = task.remote(to_plain(study.recipe))
    try:
        refusal, notes = ray.get(answer, timeout=CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(answer, force=True)
        return ()
    except ray.exceptions.RayError:
        # The first trials will run into the same error and report it.
        return ()
    if refusal:
        raise InputError(refusal)
    return tuple(notes)


def check_storage(folder: StudyFolder, share: Share) -> None:
    """Before a search on a cluster, have each node that has room for a trial use the study's storage.

    A bucket's credentials and endpoint, and a shared folder's mount, are each node's own. Nodes that do not answer in
    time are left to the trials. Raises `InputError` that names a node which cannot use the storage.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and share.fitting([node["Resources"]])][:MOST_NODES]
    with _to_be_found(folder) as place:
        tasks = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_use_storage).remote(place)
            tasks[task] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        answered, silent = ray.wait(list(tasks), num_returns=len(tasks), timeout=CHECK_SECONDS) if tasks else ([], [])
        for task in silent:
            ray.cancel(task, force=True)
        for task in answered:
            with contextlib.suppress(ray.exceptions.RayError):  # the first trials will run into it and report it
                reason, server = ray.get(task)
                if reason:
                    raise _unusable(folder, tasks[task], reason, server)


@contextmanager
def _to_be_found(folder: StudyFolder) -> Iterator[str]:
    """What the nodes are to use: the bucket's URL, or a new file in the storage folder or above it."""
    if folder.bucket is not None:
        yield folder.bucket.url
        return
    above = next(path for path in folder.root.absolute().parents if path.is_dir())
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(tempfile.NamedTemporaryFile(dir=above, prefix=".hcpr_tune-check-")).name
        except OSError:  # the study will not be begun either, which says why
            place = str(above)
        yield place


def _unusable(folder: StudyFolder, node: str, reason: str, server: str) -> InputError:
    if folder.bucket is None:
        return InputError(
            f"--storage: node {node} does not see the folder {reason} of this machine; choose one that all nodes share"
            " under the same path, or a bucket"
        )
    here, hint = folder.bucket.server, ""
    if server != here:
        hint = (
            f"; where the search is started it is {here}: make both the same (a node has the variables that its Ray was"
            " started with), or write the endpoint into the URL, for all nodes: ?endpoint_override=http://HOST:PORT"
        )
    return InputError(f"node {node} cannot use the storage: {reason}{hint}")


def _use_storage(place: str) -> tuple[str, str]:
    # On the node: why the storage cannot be used, and which server was asked.
    from hcpr_tune.common.buckets.location import is_bucket

    if not is_bucket(place):
        return ("" if Path(place).exists() else str(Path(place).parent)), ""
    from hcpr_tune.common.buckets.bucket import Bucket

    bucket = Bucket(place)
    try:
        bucket.check_objects()
    except InputError as error:
        return str(error), bucket.server
    return "", bucket.server


def _check_data(recipe: dict[str, Any]) -> tuple[str, list[str]]:
    # On the worker: why the data cannot be used, and notes for the user.
    from hcpr_tune.training.data.sources import check_parts
    from hcpr_tune.training.recipe import recipe_from_plain

    try:
        return "", list(check_parts(recipe_from_plain(recipe, "the recipe").task))
    except InputError as error:
        return str(error), []


def _probe(recipe: dict[str, Any], on_gpu: bool, seconds: float) -> dict[str, Any]:
    # On the worker: torch is imported here, not on the driver.
    from hcpr_tune.training.probe import probe
    from hcpr_tune.training.recipe import recipe_from_plain
    from hcpr_tune.training.session import DataShelf

    return asdict(probe(recipe_from_plain(recipe, "the probe's recipe"), DataShelf(on_gpu), seconds))
