"""Join a Ray cluster or start one on this machine, and say what was found. What runs on a cluster's port runs code, so it is never open."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import os
import secrets
import site
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.search.capacity import Share, living_nodes
from hcpr_tune.search.study import Resources

LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2
"""Trials exchange reports of a few hundred bytes; Ray would set aside 30 % of the memory."""
LOOPBACK = "127.0.0.1"
NO_DASHBOARD = "none"
"""In place of an address: a Ray that is started here without its dashboard, which is several processes."""


@dataclass(frozen=True)
class Cluster:
    """What a search can use: the resources of each node at the moment, and where the dashboard is."""

    dashboard_url: str
    nodes: list[dict[str, float]]

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
    if address is None:
        ensure_token()
    else:
        check_address(address)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if name and not (address or "").startswith("ray://"):  # Ray's client has no way for it
        from ray.job_config import JobConfig

        quiet["job_config"] = JobConfig(metadata={"job_name": name})
    try:
        if address is None:
            context = _started(dashboard_host, quiet)
        else:
            context = ray.init(address=address, runtime_env=shipped(plugins), **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "here" if address is None else f"at --address {address}"
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"no Ray cluster could be reached {where}: {reason}; start one with `ray start --head`, or drop --address"
        ) from None
    try:
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield Cluster(url, living_nodes())
    finally:
        ray.shutdown()


def _started(dashboard_host: str, quiet: dict[str, Any]) -> Any:
    """A Ray on this machine. On a busy one its server does not always come up in time: then once more."""
    import ray

    for last in (False, True):
        try:
            # Without "local" Ray would join whatever cluster was last started on this machine, dead or alive.
            return ray.init(
                address="local",
                include_dashboard=dashboard_host != NO_DASHBOARD,
                dashboard_host=LOOPBACK if dashboard_host == NO_DASHBOARD else dashboard_host,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                **quiet,
            )
        except RuntimeError:
            ray.shutdown()
            if last:
                raise
    raise AssertionError


def ensure_token() -> None:
    """Token authentication for the cluster that is started here, with a token that nobody else on this machine can read."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        # Unset, Ray turns it on for what it starts here, also where it was imported before.
        del os.environ["RAY_AUTH_MODE"]
    path = token_path()
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    if path.exists():
        if path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    # A link is made whole or not at all, and by one of several searches that begin in the same moment.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def token_path() -> Path:
    """Where Ray looks for a token that is not in the environment."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "") or Path.home() / ".ray" / "auth_token")


def check_address(address: str) -> None:
    """Raises `InputError` for an address that nobody answers at, and for one outside this machine where no token is at hand."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(
            f"--address must be HOST:PORT or auto, got {address}; `ray start --head` prints the address of a cluster"
        )
    if not is_loopback(host) and "RAY_AUTH_TOKEN" not in os.environ and not token_path().is_file():
        raise InputError(
            f"--address {address} is outside this machine and there is no token: whoever reaches an open cluster can run code on it; start the"
            " cluster with RAY_AUTH_MODE=token, and put its token (`ray get-auth-token` there) into RAY_AUTH_TOKEN or ~/.ray/auth_token here"
        )
    # Knock first: Ray itself would try for minutes and print on the way.
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at --address {address}: {error}; start one with `ray start --head`, or drop --address"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether the host is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def shipped(plugins: Iterable[str]) -> dict[str, Any]:
    """Ray's runtime environment with the code that a cluster's nodes may lack. Nothing is downloaded for it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # this driver was submitted together with its code
        return {}
    modules = {Path(__file__).parent}
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
    until = time.monotonic() + patience
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
        time.sleep(1.0)
        cluster = Cluster(cluster.dashboard_url, nodes())


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
