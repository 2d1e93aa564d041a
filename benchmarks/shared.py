"""What the benchmarks that train share: the space, the output file, the pool, what an epoch says."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from figures import machine

ROOT = Path(__file__).resolve().parent.parent
Plain = dict[str, Any]
Override = tuple[str, Any]


def space_file(name: str) -> Path:
    """A name in search_spaces/, or a path."""
    return Path(name).resolve() if name.endswith(".toml") else ROOT / "search_spaces" / f"{name}.toml"


def opened(path: Path, settings: Plain, kind: str) -> Plain:
    """The output file as it was left, or a new one. Ends the program where it was begun with other settings."""
    if not path.exists():
        return {"settings": settings, "machine": machine(), kind: []}
    results: Plain = json.loads(path.read_text())
    if results["settings"] != settings:
        raise SystemExit(f"{path} was begun with other settings, {results['settings']}; choose another --out")
    return results


def save(path: Path, results: Plain) -> None:
    """Write the file in one go, so that a kill leaves the one before."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def single_thread() -> None:
    """Before a pool's worker does anything: two workers with two threads each would stand in each other's way."""
    import torch

    torch.set_num_threads(1)


def make_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=single_thread)


def epoch_seconds(epoch: Any) -> float:
    return float(epoch.seconds_attack + epoch.seconds_update + epoch.seconds_evaluation)


def epoch_score(epoch: Any) -> float | None:
    return None if epoch.validation is None else epoch.validation.robust_correct / epoch.validation.total
