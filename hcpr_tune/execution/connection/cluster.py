"""Join a Ray cluster or start one on this machine. A cluster runs any code it is sent, so it is never left open."""

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
from hcpr_tune.execution.connection.access import AUTO, LOCAL, checked_address
from hcpr_tune.execution.connection.capacity import Share, Waiting, living_nodes
from hcpr_tune.execution.connection.handshake import mode_of
from hcpr_tune.execution.connection.head_watch import watched
from hcpr_tune.execution.connection.host import borrowed, restore, without_c_output
from hcpr_tune.execution.connection.local_ray import end_processes, private_folder, starting
from hcpr_tune.execution.connection.ray_options import LOOPBACK, NO_DASHBOARD
from hcpr_tune.execution.connection.tokens import ensure_token, own_mode, use_mode
from hcpr_tune.search.spec.settings import Resources

LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2
"""Trials exchange reports of a few hundred bytes; by default Ray would reserve 30 % of the memory."""
NO_NODE_HERE = "No node info found"
"""What Ray says on a machine that is not of the cluster."""
MOST_WORDS = 300
"""At most this many characters of one of Ray's messages are shown."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What happens to workers is recorded and reported anyway; Ray's messages about it would mix with the results.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
"""Environment variables for Ray, unless the user has set them."""
OF_A_GUEST = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
"""The same where a cluster is joined: what Ray's C++ says of a head that does not answer, we say in one line."""


@dataclass(frozen=True)
class Cluster:
    """The current resources of each node, and the dashboard's URL.

    `token`: the token file, if it is not in Ray's usual place.
    """

    dashboard_url: str
    nodes: list[dict[str, float]]
    token: Path | None = None

    def most(self, name: str) -> float:
        """The largest amount of a resource on any one node."""
        return max((node.get(name, 0.0) for node in self.nodes), default=0.0)


@contextmanager
def connected(
    address: str | None, plugins: Iterable[str] = (), dashboard_host: str = LOOPBACK, name: str = ""
) -> Iterator[Cluster]:
    """Connect to Ray while the block runs: join the cluster at `address`, or start one here.

    A process that is connected to Ray already uses that, and stays connected.

    A joined cluster is sent this package's code and the user's own modules among `plugins` (package.module:name), so
    its nodes need neither installed. `name`: this driver's name among the cluster's jobs.
    Raises `InputError` if Ray cannot be joined or started.
    """
    with ExitStack() as stack:
        # Ray reads these when it is imported.
        joins = address is not None and address != LOCAL
        settings = RAY_SETTINGS | (OF_A_GUEST if joins else {})
        stack.enter_context(borrowed({name: os.environ.get(name, value) for name, value in settings.items()}))
        if _is_connected():
            yield _already_connected(address)
            return
        stack.enter_context(own_mode())
        token = None
        if address is None or address == LOCAL:
            folder = stack.enter_context(private_folder())
            token = ensure_token(folder)
            context = _started(folder, dashboard_host, _quiet(name))
        else:
            context = _joined(address, plugins, _quiet("" if address.startswith("ray://") else name))
        import ray

        stack.callback(ray.shutdown)
        head = getattr(getattr(ray._private.worker.global_worker, "gcs_client", None), "address", "") if joins else ""
        if head:  # Ray's client has none
            stack.enter_context(watched(str(head)))
        yield Cluster(_url(context), living_nodes(), token)


def _is_connected() -> bool:
    """Whether the calling program has connected this process to Ray already."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _already_connected(address: str | None) -> Cluster:
    """The Ray that the calling program is connected to; it stays connected. Raises `InputError` for another address."""
    if address not in (None, AUTO):
        raise InputError(
            f"address {address}: this process is connected to Ray already; leave the address out to use that, "
            "or call ray.shutdown() first"
        )
    import ray

    return Cluster(_url(ray.init(ignore_reinit_error=True, configure_logging=False)), living_nodes())


def _url(context: Any) -> str:
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def _quiet(name: str) -> dict[str, Any]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if name:  # Ray's client does not support it
        from ray.job_config import JobConfig

        quiet["job_config"] = JobConfig(metadata={"job_name": name})
    return quiet


def _joined(address: str, plugins: Iterable[str], quiet: dict[str, Any]) -> Any:
    """Join the cluster at `address`. Nothing is sent to an address before it is checked."""
    checked = checked_address(address)
    use_mode(mode_of(checked))
    import ray

    # If Ray finds the cluster itself, it assumes that it requires a token.
    before = os.environ.get("RAY_ADDRESS")
    if address == AUTO:
        os.environ["RAY_ADDRESS"] = checked
    try:
        with without_c_output():
            return ray.init(address=address, runtime_env=shipped(plugins), **quiet)
    except ConnectionError as error:
        if NO_NODE_HERE in str(error.__cause__):
            raise InputError(
                f"--address {address}: this machine is no node of that cluster, and a search runs on one; start it on"
                f" the head, or join here first: NUM_CPUS=0 NUM_GPUS=0 launch/cluster/worker.sh {checked}"
            ) from None
        raise InputError(
            f"no Ray cluster could be reached at --address {address}: {_reason(error)}; check that it runs, start one"
            " with `ray start --head`, or drop --address"
        ) from None
    except Exception as error:
        raise InputError(f"the Ray cluster at --address {address} could not be joined: {_reason(error)}") from None
    finally:
        if address == AUTO:
            restore("RAY_ADDRESS", before)


def _started(folder: Path, dashboard_host: str, quiet: dict[str, Any]) -> Any:
    """Start Ray on this machine, in the private `folder`. Tries twice: on a busy machine its server may time out.

    Ray reports that as a bare `Exception`, or fails in a later step, so any exception counts as a failed start.
    """
    import ray

    for last in (False, True):
        try:
            with starting(folder) as temporary:
                # Without "local" Ray would join the cluster last started on this machine, dead or alive.
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
            # A setting that Ray refuses, or a full disk, would fail again.
            lasting = isinstance(error, (ValueError, OSError)) and not isinstance(
                error, (ConnectionError, TimeoutError)
            )
            if last or lasting:
                raise InputError(
                    f"Ray could not be started on this machine: {_reason(error)}; make sure that there is room on the"
                    f" disk of {folder.parent} and in memory, and try again"
                ) from None
    raise AssertionError


def _reason(error: Exception) -> str:
    """Ray's message in one line, cut to `MOST_WORDS` characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}..."


def shipped(plugins: Iterable[str]) -> dict[str, Any]:
    """A Ray runtime environment with the code that the nodes may lack. Downloads nothing."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # the driver was submitted with its code
        return {}
    modules = {Path(__file__).parents[2]}
    for plugin in plugins:
        top = plugin.partition(":")[0].partition(".")[0]
        spec = importlib.util.find_spec(top) if ":" in plugin else None
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is not None and not _installed(origin):
            modules.add(origin.parent if origin.name == "__init__.py" else origin)
    return {"py_modules": sorted(map(str, modules)), "excludes": ["__pycache__"]}


def _installed(path: Path) -> bool:
    """Whether a module is part of Python or an installed package, so that the nodes have it as they have torch."""
    folders = [*site.getsitepackages(), site.getusersitepackages(), sys.base_prefix]
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def allot(
    resources: Resources, cluster: Cluster, where: str, patience: float = 0.0, nodes: Callable[[], Any] = living_nodes
) -> Share:
    """The study's share of the cluster. Waits up to `patience` seconds for a node that has room for a trial.

    Raises `InputError` that names `where` the settings come from if not even one trial fits.
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
        waiting.note(0)
        time.sleep(1.0)
        cluster = replace(cluster, nodes=nodes())


def _too_large(share: Share, cluster: Cluster, where: str) -> InputError:
    for name, wanted in (("gpus", share.gpus_per_trial), ("cpus", share.cpus_per_trial)):
        there = cluster.most(name.upper().rstrip("S"))
        if wanted > there:
            return InputError(
                f"resources.{name}_per_trial must be at most the {there:g} {name.upper().rstrip('S')}s that the largest"
                f" node has, got {wanted:g}; lower it, or leave it out, or --wait for nodes ({where})"
            )
    return InputError(
        f"no node has {share.cpus_per_trial:g} CPUs and {share.gpus_per_trial:g} GPUs at once; lower"
        f" resources.cpus_per_trial or resources.gpus_per_trial ({where})"
    )
