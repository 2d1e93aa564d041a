"""Join a Ray cluster or start one on this machine, and say what was found."""

from __future__ import annotations

import logging
import math
import os
import socket
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

    if address is not None:
        _check_reachable(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            # Without "local" Ray would join whatever cluster was last started on this machine, dead or alive.
            context = ray.init(
                address="local",
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
        raise InputError(
            f"no Ray cluster could be reached {where}: {reason}; start one with `ray start --head`, or drop --address"
        ) from None
    try:
        found = ray.cluster_resources()
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield Cluster(url, found.get("CPU", 0.0), found.get("GPU", 0.0))
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Knock at the address first: Ray itself would try for minutes and print on the way."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdigit():
        raise InputError(
            f"--address must be HOST:PORT or auto, got {address}; `ray start --head` prints the address of a cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at --address {address}: {error}; start one with `ray start --head`, or drop --address"
        ) from None


def allot(resources: Resources, cluster: Cluster, where: str) -> Share:
    """Share the cluster out. Raises `InputError` that names `where` the settings stand if not even one trial fits."""
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    if gpus == "auto":
        gpus = 1.0 if cluster.gpus >= 1 else 0.0
    for name, wanted, there in (("gpus", gpus, cluster.gpus), ("cpus", cpus, cluster.cpus)):
        if wanted > there:
            raise InputError(
                f"resources.{name}_per_trial must be at most the {there:g} {name.upper().rstrip('S')}s that there are, got {wanted:g};"
                f" lower it, or leave it out ({where})"
            )
    fitting = math.floor(cluster.cpus / cpus + 1e-9)
    if gpus:
        fitting = min(fitting, math.floor(cluster.gpus / gpus + 1e-9))
    workers = min(fitting, resources.workers) if resources.workers else fitting
    return Share(workers, cpus, gpus)
