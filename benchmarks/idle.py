"""Searches whose jobs do nothing, on a Ray of this machine: all that costs time in them is the service itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from made_up import made_up_epoch

ROOT = Path(__file__).parent.parent
GATE_SECONDS = 600.0


def idle_trainable(epoch_seconds: float, gate: Path | None = None, processes: int = 0) -> type:
    """A trainable that does nothing but report as the real one does.

    With a folder `gate`, no process reports before so many `processes` have come up: Ray Tune gives the process of a
    job that ends to one whose process is still starting, and drops that, so that with short jobs most would never come
    up.
    """
    import numpy as np

    from hcpr_tune.execution.trainable import REPORT, TrainJob

    class Idle(TrainJob):
        def step(self) -> dict[str, Any]:
            job = json.loads(self._text)
            if gate is not None and not hasattr(self, "_came_up"):
                self._came_up = True
                (gate / str(os.getpid())).touch()
                until = time.monotonic() + GATE_SECONDS
                while len(list(gate.iterdir())) < processes and time.monotonic() < until:
                    time.sleep(0.5)
            self._epoch = getattr(self, "_epoch", 0) if self._reports is not None else job["start"]
            self._reports = self._reports or iter(())
            self._epoch += 1
            time.sleep(epoch_seconds)
            last = self._epoch >= job["end"]
            epoch = made_up_epoch(self._epoch, last, np.random.default_rng(self._epoch))
            report: dict[str, Any] = {"epoch": epoch | {"worker": str(os.getpid())}, "losses": []}
            if last:
                report["end"] = {"status": "reached", "reason": ""}
                self._reports = None
            return {REPORT: json.dumps(report), "done": last}

    return Idle


@contextmanager
def idle_ray(cpus: int) -> Iterator[None]:
    """A Ray of its own that believes in so many CPUs, and whose workers find the benchmarks."""
    import ray

    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        yield
    finally:
        ray.shutdown()
