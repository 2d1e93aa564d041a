"""Join a Ray cluster or start one on this machine, and say what was found."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hcpr_tune.errors import InputError
from hcpr_tune.search.runner import Share
from hcpr_tune.search.study import Resources

LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2
"""Trials exchange reports of a few hundred bytes; Ray would set aside 30 % of the memory."""


@dataclass(frozen=True)
class Cluster:
    """What a search can use."""

    dashboard_url: str
    cpus: float
    gpus: float


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Ray running, joined at `address` or started here for as long as the block lasts. Raises `InputError` where it cannot be."""
    # Ray reads these when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            context = ray.init(
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            context = ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "here" if address is None else f"at --address {address}"
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"no Ray cluster could be reached {where}: {reason}; start one with `ray start --head`, or drop --address") from None
    try:
        found = ray.cluster_resources()
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield Cluster(url, found.get("CPU", 0.0), found.get("GPU", 0.0))
    finally:
        ray.shutdown()


def allot(resources: Resources, cluster: Cluster) -> Share:
    """Share the cluster out. Raises `InputError` where not even one trial fits."""
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    if gpus == "auto":
        gpus = 1.0 if cluster.gpus >= 1 else 0.0
    if gpus > cluster.gpus:
        raise InputError(
            f"resources.gpus_per_trial (--gpus-per-trial) must be at most the {cluster.gpus:g} GPUs that there are, got {gpus:g};"
            " lower it, or leave it out"
        )
    if cpus > cluster.cpus:
        raise InputError(
            f"resources.cpus_per_trial (--cpus-per-trial) must be at most the {cluster.cpus:g} CPUs that there are, got {cpus:g};"
            " lower it, or leave it out"
        )
    fitting = math.floor(cluster.cpus / cpus + 1e-9)
    if gpus:
        fitting = min(fitting, math.floor(cluster.gpus / gpus + 1e-9))
    workers = min(fitting, resources.workers) if resources.workers else fitting
    return Share(workers, cpus, gpus)
