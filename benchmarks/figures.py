"""What all benchmarks say: on which machine, and how the figures spread."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

Plain = dict[str, Any]


def machine() -> Plain:
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }


def spread(values: Sequence[float]) -> Plain:
    if not values:
        return {"n": 0}
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}
