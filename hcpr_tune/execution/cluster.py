"""Join a Ray cluster or start one on this machine, and say what was found. What runs on a cluster's port runs code, so it is never open."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import site
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.execution.access import AUTO, LOCAL, checked_address, ensure_token
from hcpr_tune.execution.capacity import Share, Waiting, living_nodes
from hcpr_tune.execution.local_ray import end_processes, private_folder, restore, starting
from hcpr_tune.search.spec.study import Resources

LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2
"""Trials exchange reports of a few hundred bytes; Ray would set aside 30 % of the memory."""
LOOPBACK = "127.0.0.1"
MOST_WORDS = 300
"""Characters of a message of Ray's that are told."""
NO_DASHBOARD = "none"
"""In place of an address: a Ray that is started here without its dashboard, which is several processes."""


@dataclass(frozen=True)
class Cluster:
    """What a search can use: the resources of each node at the moment, and where the dashboard is.

    `token`: the file with what it asks for, where that is not the user's usual one.
    """

    dashboard_url: str
    nodes: list[dict[str, float]]
    token: Path | None = None

    def most(self, name: str) -> float:
        """What the largest node has of a resource."""
        return max((node.get(name, 0.0) for node in self.nodes), default=0.0)


@contextmanager
def connected(
    address: str | None, plugins: Iterable[str] = (), dashboard_host: str = LOOPBACK, name: str = ""
) -> Iterator[Cluster]:
    """Ray running, joined at `address` or started here for as long as the block lasts. Raises `InputError` where it cannot be.

    A cluster gets this package's code, and the modules `plugins` (package.module:name) where they are the user's own: its nodes need neither.
    `name`: what this driver is called among the cluster's jobs.
    """
    # Ray reads these when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What befalls a worker is in the record, and told; Ray's own words about it would stand among the results, or frighten people beside them.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    with ExitStack() as stack:
        token = None
        if address is None or address == LOCAL:
            folder = stack.enter_context(private_folder())
            token = ensure_token(folder)
            context = _started(folder, dashboard_host, _quiet(name))
        else:
            context = _joined(address, plugins, _quiet("" if address.startswith("ray://") else name))
        import ray

        stack.callback(ray.shutdown)
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield Cluster(url, living_nodes(), token)


def _quiet(name: str) -> dict[str, Any]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if name:  # Ray's client has no way for it
        from ray.job_config import JobConfig

        quiet["job_config"] = JobConfig(metadata={"job_name": name})
    return quiet


def _joined(address: str, plugins: Iterable[str], quiet: dict[str, Any]) -> Any:
    """The cluster at `address`. Nothing is sent to an address before it is checked."""
    checked = checked_address(address)
    import ray

    # Of a cluster that is found by itself Ray takes for granted that it wants a token.
    before = os.environ.get("RAY_ADDRESS")
    if address == AUTO:
        os.environ["RAY_ADDRESS"] = checked
    try:
        return ray.init(address=address, runtime_env=shipped(plugins), **quiet)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster could be reached at --address {address}: {_reason(error)}; look whether it runs, start one with `ray start --head`, or drop --address"
        ) from None
    except Exception as error:
        raise InputError(f"the Ray cluster at --address {address} could not be joined: {_reason(error)}") from None
    finally:
        if address == AUTO:
            restore("RAY_ADDRESS", before)


def _started(folder: Path, dashboard_host: str, quiet: dict[str, Any]) -> Any:
    """A Ray on this machine, in the private `folder`. On a busy one its server does not always come up in time: then once more.

    Ray says so by a bare `Exception`, or by what its next step stumbled over: whatever it is, it is no fault of this program.
    """
    import ray

    for last in (False, True):
        try:
            with starting(folder) as temporary:
                # Without "local" Ray would join whatever cluster was last started on this machine, dead or alive.
                return ray.init(
                    address=LOCAL,
                    include_dashboard=dashboard_host != NO_DASHBOARD,
                    dashboard_host=LOOPBACK if dashboard_host == NO_DASHBOARD else dashboard_host,
                    object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                    _temp_dir=str(temporary),
                    **quiet,
                )
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            end_processes(folder)
            # A setting that Ray refuses, or a disk that is full, is the same the second time.
            lasting = isinstance(error, (ValueError, OSError)) and not isinstance(
                error, (ConnectionError, TimeoutError)
            )
            if last or lasting:
                raise InputError(
                    f"Ray could not be started on this machine: {_reason(error)}; look for room on the disk of {folder.parent} and in memory, and try again"
                ) from None
    raise AssertionError


def _reason(error: Exception) -> str:
    """What Ray says, which may be long: its beginning."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}..."


def shipped(plugins: Iterable[str]) -> dict[str, Any]:
    """Ray's runtime environment with the code that a cluster's nodes may lack. Nothing is downloaded for it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # this driver was submitted together with its code
        return {}
    modules = {Path(__file__).parents[1]}
    for plugin in plugins:
        top = plugin.partition(":")[0].partition(".")[0]
        spec = importlib.util.find_spec(top) if ":" in plugin else None
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is not None and not _installed(origin):
            modules.add(origin.parent if origin.name == "__init__.py" else origin)
    return {"py_modules": sorted(map(str, modules)), "excludes": ["__pycache__"]}


def _installed(path: Path) -> bool:
    """Whether a module came with Python or with a package manager, so that nodes have it as they have torch."""
    places = [*site.getsitepackages(), site.getusersitepackages(), sys.base_prefix]
    return any(path.resolve().is_relative_to(Path(place).resolve()) for place in places)


def allot(
    resources: Resources, cluster: Cluster, where: str, patience: float = 0.0, nodes: Callable[[], Any] = living_nodes
) -> Share:
    """Share the cluster out, waiting up to `patience` seconds for the first node that has room for a trial.

    Raises `InputError` that names `where` the settings stand if not even one trial fits.
    """
    until, waiting = time.monotonic() + patience, None
    while True:
        gpus = resources.gpus_per_trial
        if gpus == "auto":
            gpus = 1.0 if cluster.most("GPU") >= 1 else 0.0
        share = Share(0, resources.cpus_per_trial, gpus)
        fitting = share.fitting(cluster.nodes)
        if fitting:
            workers = min(fitting, resources.workers) if resources.workers else fitting
            return Share(workers, share.cpus_per_trial, gpus)
        if time.monotonic() >= until:
            raise _too_large(share, cluster, where)
        waiting = waiting or Waiting(share)
        waiting.look(0)
        time.sleep(1.0)
        cluster = replace(cluster, nodes=nodes())


def _too_large(share: Share, cluster: Cluster, where: str) -> InputError:
    for name, wanted in (("gpus", share.gpus_per_trial), ("cpus", share.cpus_per_trial)):
        there = cluster.most(name.upper().rstrip("S"))
        if wanted > there:
            return InputError(
                f"resources.{name}_per_trial must be at most the {there:g} {name.upper().rstrip('S')}s that the largest node has, got {wanted:g};"
                f" lower it, or leave it out, or --wait for nodes ({where})"
            )
    return InputError(
        f"no node has {share.cpus_per_trial:g} CPUs and {share.gpus_per_trial:g} GPUs at once; lower resources.cpus_per_trial or resources.gpus_per_trial ({where})"
    )
