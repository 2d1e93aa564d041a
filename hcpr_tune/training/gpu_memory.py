"""The memory of a GPU that several trials share: nobody takes more than its share, and who starts waits for who ends."""

from __future__ import annotations

import gc
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

ENOUGH = 0.9
"""A job starts where this part of its share is free: contexts and drivers take some of the memory for themselves."""

PATIENCE = 60.0
"""Seconds to wait for memory that somebody else holds. After that the job starts all the same: its cap, not the wait, guards the others."""

INTERVAL = 0.5
"""Seconds between two looks at the free memory."""

ON_GPU = re.compile(r"(cuda|hip)\b.*out of memory|cu\w+_status_alloc_failed", re.IGNORECASE)
ON_HOST = re.compile(r"can't allocate memory|cannot allocate memory", re.IGNORECASE)
"""Torch says that the host is out of memory by a plain `RuntimeError`."""

REQUEST = re.compile(r"(?:tried|unable) to allocate ([\d.]+ \w+)", re.IGNORECASE)
PACKAGE = Path(__file__).parents[1]


def claim(device: torch.device, share: float) -> float:
    """Take this process's `share` of the GPU `device`, in GPUs: wait until it is free, then cap what this process can allocate.

    Returns the seconds waited; on a CPU it does nothing. Only the first claim of a process waits: later on its own memory is part of what
    is taken. Raises `ValueError` unless `share` is above 0.
    """
    if device.type != "cuda":
        return 0.0
    waited = 0.0
    if not torch.cuda.is_initialized():
        waited = wait_for_room(share, lambda: _free_and_total(device), time.sleep, time.monotonic)
    cap(share, device)
    return waited


def cap(share: float, device: torch.device) -> None:
    """Let this process allocate at most `share` of the memory of a CUDA device; 1 and more lift an earlier cap. Nothing on other devices.

    The cap is on what torch allocates; the CUDA context of a process comes on top. Raises `ValueError` unless `share` is above 0.
    """
    if device.type != "cuda":
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_per_process_memory_fraction(_of_one_gpu(share), index)


def wait_for_room(
    share: float,
    free_and_total: Callable[[], tuple[int, int]],
    sleep: Callable[[float], object],
    clock: Callable[[], float],
    patience: float = PATIENCE,
) -> float:
    """Wait until `ENOUGH` of `share` (in GPUs, at most one counts) is free or `patience` (seconds) is over; returns the seconds waited.

    `free_and_total` gives bytes, `clock` seconds: a process that has just ended gives its memory back a little later. Raises `ValueError`
    unless `share` is above 0.
    """
    needed = ENOUGH * _of_one_gpu(share)
    began = now = clock()
    # A fixed end: what is left of the patience could become too small a step for the clock to move.
    end = began + patience
    while now < end:
        free, total = free_and_total()
        if free >= needed * total:
            break
        sleep(min(INTERVAL, end - now))
        now = clock()
    return now - began


def release() -> None:
    """Give the GPU memory that no tensor needs back to the device, for whoever shares it; nothing where CUDA was not used."""
    if torch.cuda.is_initialized():
        # Tensors in reference cycles, a generator's frame for instance, are only freed by a collection.
        gc.collect()
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> str | None:
    """One line that says where memory ran out and the way out; None for other errors. Looks through what the error was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_of_gpu(cause):
            return f"out of GPU memory{_details(cause)}; lower batch_size or the model's width, or raise resources.gpus_per_trial"
        if _is_of_host(cause):
            return f"out of memory of the machine{_details(cause)}; lower batch_size, or run fewer trials at once: resources.workers"
        cause = cause.__cause__
    return None


def _free_and_total(device: torch.device) -> tuple[int, int]:
    """Bytes of the device, of all processes together."""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        # On a full GPU not even the context of this process has room, without which nothing can be asked.
        if out_of_memory(error) is None:
            raise
        return 0, 1
    return free, total


def _of_one_gpu(share: float) -> float:
    if not share > 0:
        raise ValueError(f"a share of a GPU must be above 0, got {share}")
    return min(1.0, float(share))


def _is_of_gpu(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ON_GPU.search(str(error)) is not None


def _is_of_host(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and ON_HOST.search(str(error)) is not None


def _details(error: BaseException) -> str:
    """The innermost function of this package that was running, and how much it asked for, as far as they are known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    where = f" in {Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else ""
    asked = REQUEST.search(str(error))
    return where + (f" ({asked[1]} more were asked for)" if asked else "")
