"""How many trials the cluster can run right now: nodes join and leave while a search runs."""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hcpr_tune.errors import ClusterLost

QUERY_EVERY = 1.0
"""Minimum seconds between two queries of the cluster: Ray asks for work many times a second."""
SHARE_OF_TIME, AT_LATEST = 0.05, 10.0
"""The share of the driver's time that queries may take (with a thousand nodes one takes a good part of a second), and
the most seconds until a node that joined or left is noticed.
"""
SILENT_SECONDS = 40.0
"""How long the head may not answer. After 60 s Ray would kill the process without saying how to go on."""
TELL_EVERY = 60.0
"""Seconds between two messages while waiting."""


@dataclass(frozen=True)
class Share:
    """The study's share of the cluster: the number of concurrent trials, and the CPUs and GPUs of each."""

    workers: int
    cpus_per_trial: float
    gpus_per_trial: float

    def fitting(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many trials fit on these nodes. A trial runs on one node: halves of a GPU on two nodes do not add up."""
        return sum(self._fitting(node) for node in nodes)

    def _fitting(self, node: Mapping[str, float]) -> int:
        wanted = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}
        return min(
            math.floor(node.get(name, 0.0) / amount + 1e-9)
            if name == "CPU" or amount >= 1
            else _shares(node.get(name, 0.0), amount)
            for name, amount in wanted.items()
            if amount
        )


def _shares(gpus: float, amount: float) -> int:
    """How many trials fit on whole GPUs if each takes a fraction of one: two GPUs have room for two shares of 0.6."""
    return math.floor(gpus) * math.floor(1 / amount + 1e-9)


def living_nodes() -> list[dict[str, float]]:
    """The resources of each node of the connected cluster.

    Raises `ClusterLost` if this process started the cluster and it is dead, or if its head is gone.
    """
    import ray

    # Ray's client has no address.
    address = str(getattr(getattr(ray._private.worker.global_worker, "gcs_client", None), "address", "") or "")

    check_own_ray()
    # While the head does not answer, ray.nodes() would block until Ray kills the process.
    if not address or HEAD.answers(address):
        HEAD.nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return HEAD.nodes


@dataclass
class Head:
    """The head of the connected cluster, and the nodes it last reported."""

    clock: Callable[[], float] = time.monotonic
    nodes: list[dict[str, float]] = field(default_factory=list)
    _silent: tuple[str, float] | None = None

    def answers(self, address: str) -> bool:
        """Whether the head accepts connections. Raises `ClusterLost` after `SILENT_SECONDS` without an answer."""
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
        except OSError as error:
            if self._silent is None or self._silent[0] != address:
                self._silent = address, self.clock()
            seconds = self.clock() - self._silent[1]
            if seconds < SILENT_SECONDS:
                return False
            self._silent = None
            raise ClusterLost(
                f"the head of the Ray cluster at {address} has not answered for {seconds:.0f} seconds ({error}):"
                " start the cluster again, and continue"
            ) from None
        self._silent = None
        return True


HEAD = Head()


def check_own_ray() -> None:
    """Raises `ClusterLost` if the Ray that this process started is dead."""
    if dead := lost_process():
        raise ClusterLost(
            f"Ray's {dead} on this machine has died or was killed (out of memory? check `dmesg`), and nothing can be"
            " trained without it"
        )


def lost_process() -> str:
    """The essential process that has died of the Ray started by this process.

    Empty if all of them run, or if this process started no Ray.
    """
    import ray

    node: Any = ray._private.worker._global_node
    if node is None or not node.ray_init_cluster:
        return ""
    dead = {name for name, _ in node.dead_processes()}
    return next((name for name in ("gcs_server", "raylet") if name in dead), "")


def to_stderr(words: str) -> None:
    """Write to stderr, as stdout may carry JSON or a live view. Ignores a terminal that is gone."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"hcpr_tune: {words}\n")
        sys.stderr.flush()


@dataclass
class Waiting:
    """Says every minute what it waits for, as long as no node has room for a trial."""

    share: Share
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = to_stderr
    _since: float | None = None
    _said: float = 0.0

    def note(self, room: int) -> None:
        """Note that there is room for `room` trials now."""
        now = self.clock()
        if room:
            self._since = None
        elif self._since is None:
            self._since = self._said = now
        elif now - self._said >= TELL_EVERY:
            self._said = now
            minutes = (now - self._since) / 60
            self.say(
                f"waiting for {minutes:.0f} min: no node has room for a trial ({self.share.cpus_per_trial:g} CPUs,"
                f" {self.share.gpus_per_trial:g} GPUs); it continues as soon as one joins the cluster; Ctrl-C ends it"
            )


@dataclass
class Capacity:
    """The number of trials the cluster can run now, up to `limit` (0: no limit); queried at most every second."""

    share: Share
    limit: int = 0
    nodes: Callable[[], Iterable[Mapping[str, float]]] = living_nodes
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = to_stderr
    _next: float = field(default=-math.inf)
    _found: int = 0

    def __post_init__(self) -> None:
        self._waiting = Waiting(self.share, self.clock, self.say)

    def now(self) -> int:
        """How many trials fit. Raises `ClusterLost` if the cluster is gone."""
        began = self.clock()
        if began >= self._next:
            fitting = self.share.fitting(self.nodes())
            self._found = min(fitting, self.limit) if self.limit else fitting
            self._waiting.note(self._found)
            took = self.clock() - began
            self._next = began + max(QUERY_EVERY, min(AT_LATEST, took / SHARE_OF_TIME))
        return self._found


@contextmanager
def requested(share: Share, trials: int) -> Iterator[None]:
    """Ask the autoscaler for room for `trials` trials while the block runs (0: do not ask).

    A cluster without an autoscaler ignores the request.
    """
    if not trials:
        yield
        return
    from ray.autoscaler.sdk import request_resources

    bundle: dict[str, Any] = {"CPU": share.cpus_per_trial} | (
        {"GPU": share.gpus_per_trial} if share.gpus_per_trial else {}
    )
    request_resources(bundles=[bundle] * trials)
    try:
        yield
    finally:
        request_resources(bundles=[])
