"""How many trials the cluster holds at the moment: nodes join and leave while a search runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LOOK_EVERY = 1.0
"""Seconds between two looks: Ray asks for work many times a second."""
SHARE_OF_TIME, AT_LATEST = 0.05, 10.0
"""What looks may take of the time: with a thousand nodes one takes a good part of a second, in which the search does nothing else. But a node that is gone, or new,
is found out within so many seconds.
"""


@dataclass(frozen=True)
class Share:
    """What Ray gives the study: so many trials at once, each with so many CPUs and GPUs."""

    workers: int
    cpus_per_trial: float
    gpus_per_trial: float

    def fitting(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many trials these nodes hold; a trial lies on one node, so that two halves of a GPU on two nodes are none."""
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
    """A share of a GPU lies on one GPU: two GPUs have room for two shares of 0.6."""
    return math.floor(gpus) * math.floor(1 / amount + 1e-9)


def living_nodes() -> list[dict[str, float]]:
    """The resources of each node of the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@dataclass
class Capacity:
    """`share.workers` trials at the beginning; later what the cluster holds, up to `limit` (0: no limit)."""

    share: Share
    limit: int = 0
    nodes: Callable[[], Iterable[Mapping[str, float]]] = living_nodes
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=-math.inf)
    _found: int = 0

    def now(self) -> int:
        """How many trials fit."""
        began = self.clock()
        if began >= self._next:
            fitting = self.share.fitting(self.nodes())
            self._found = min(fitting, self.limit) if self.limit else fitting
            took = self.clock() - began
            self._next = began + max(LOOK_EVERY, min(AT_LATEST, took / SHARE_OF_TIME))
        return self._found


@contextmanager
def requested(share: Share, trials: int) -> Iterator[None]:
    """Ask an autoscaler for room for so many trials as long as the block lasts; 0: ask for nothing. A cluster without one takes no notice."""
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
