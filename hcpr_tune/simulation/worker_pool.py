"""The workers of a plan: how many, how fast, when they join, how often they die."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

from hcpr_tune.common.seeds import derive_seed


@dataclass(frozen=True)
class WorkerPool:
    """A number of `workers`, which get the `speeds` in turn."""

    workers: int
    speeds: tuple[float, ...] = (1.0,)
    """Relative: a worker of speed 0.5 takes twice as long."""
    join_seconds: float = 0.0
    """They join evenly over this time, the first one at once."""
    deaths_per_hour: float = 0.0
    """How often a worker dies, per hour; at random, whatever it does."""
    back_seconds: float = 0.0
    """Seconds until a lost worker is replaced."""

    def speed(self, worker: int) -> float:
        return self.speeds[worker % len(self.speeds)]

    def joins_at(self, worker: int) -> float:
        return self.join_seconds * worker / max(1, self.workers - 1)


class FailureModel:
    """Draws how long each worker process lives, from a seed."""

    def __init__(self, worker_pool: WorkerPool, seed: int) -> None:
        self._worker_pool, self._draws = worker_pool, random.Random(derive_seed(seed, "deaths"))

    def seconds(self) -> float:
        """Seconds until the next death; infinite if workers never die."""
        rate = self._worker_pool.deaths_per_hour
        return self._draws.expovariate(rate / 3600) if rate else math.inf


class Idle:
    """The idle workers; the one that has waited longest is next."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int]] = []
        self._there: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._there)

    def add(self, worker: int, since: float) -> None:
        self._there.add(worker)
        heapq.heappush(self._waiting, (since, worker))

    def pop(self) -> int:
        """Take the next one."""
        while (worker := heapq.heappop(self._waiting)[1]) not in self._there:
            pass
        self._there.discard(worker)
        return worker

    def discard(self, worker: int) -> None:
        self._there.discard(worker)
