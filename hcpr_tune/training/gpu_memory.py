"""Sharing the memory of a GPU between trials: each is capped at its share, and waits until that much is free."""

from __future__ import annotations

import gc
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from hcpr_tune.errors import InputError

ENOUGH = 0.9
"""A job starts once this fraction of its share is free: contexts and drivers take some of the memory."""

PATIENCE = 60.0
"""Seconds to wait for memory. After that the job starts anyway: its cap, not the wait, protects the others."""

CONTEXT_BYTES = 640 * 2**20
"""What a process's context takes of the GPU's memory beyond what torch allocates: half a gigabyte and more."""

INTERVAL = 0.5
"""Seconds between two checks of the free memory."""

ON_GPU = re.compile(r"(cuda|hip)\b.*out of memory|cu\w+_status_alloc_failed", re.IGNORECASE)
ON_HOST = re.compile(r"can't allocate memory|cannot allocate memory", re.IGNORECASE)
"""Torch raises a plain `RuntimeError` when the host is out of memory."""

REQUEST = re.compile(r"(?:tried|unable) to allocate ([\d.]+ \w+)", re.IGNORECASE)
PACKAGE = Path(__file__).parents[1]


def claim(device: torch.device, share: float) -> float:
    """Wait until this process's `share` of the GPU `device` (in GPUs) is free, then cap what it can allocate.

    Returns the seconds waited; on a CPU it does nothing. Only the first claim of a process waits: later, its own memory
    counts as used. Raises `ValueError` unless `share` is above 0.
    """
    if device.type != "cuda":
        return 0.0
    waited = 0.0
    if not torch.cuda.is_initialized():
        waited = wait_for_room(share, lambda: _free_and_total(device), time.sleep, time.monotonic)
    cap(share, device)
    return waited


def cap(share: float, device: torch.device) -> None:
    """Cap this process at `share` of a CUDA device's memory, its context included; 1 or more lifts an earlier cap.

    Does nothing on other devices. Raises `ValueError` unless `share` is above 0, and `InputError` if it has no room for
    more than the context.
    """
    if device.type != "cuda":
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    fraction = _of_one_gpu(share)
    if fraction < 1:
        # The cap covers what torch allocates.
        total = _free_and_total(torch.device("cuda", index))[1]
        room = fraction * total - CONTEXT_BYTES
        if room <= 0:
            raise InputError(
                f"resources.gpus_per_trial must leave a trial more than the {CONTEXT_BYTES / 2**30:.2f} GB that CUDA"
                f" itself takes in each process, got {share:g} of {total / 2**30:.1f} GB; raise it"
            )
        fraction = room / total
    torch.cuda.set_per_process_memory_fraction(fraction, index)


def wait_for_room(
    share: float,
    free_and_total: Callable[[], tuple[int, int]],
    sleep: Callable[[float], object],
    clock: Callable[[], float],
    patience: float = PATIENCE,
) -> float:
    """Wait at most `patience` seconds until `ENOUGH` of `share` (in GPUs, capped at one) is free.

    A process that has just ended frees its memory a little later. `free_and_total` returns bytes, `clock` seconds.
    Returns the seconds waited. Raises `ValueError` unless `share` is above 0.
    """
    needed = ENOUGH * _of_one_gpu(share)
    began = now = clock()
    # A fixed end: counting down the remaining time could leave steps too small for the clock to advance.
    end = began + patience
    while now < end:
        free, total = free_and_total()
        if free >= needed * total:
            break
        sleep(min(INTERVAL, end - now))
        now = clock()
    return now - began


def release() -> None:
    """Return unused GPU memory to the device, for processes that share it; does nothing if CUDA was not used."""
    if torch.cuda.is_initialized():
        # Tensors in reference cycles (such as a generator's frame) are only freed by a collection.
        gc.collect()
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> str | None:
    """One line on where memory ran out, with a hint; None for other errors. Also looks at the error's causes."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_of_gpu(cause):
            return (
                f"out of GPU memory{_details(cause)}; "
                "lower batch_size or the model's width, or raise resources.gpus_per_trial"
            )
        if _is_of_host(cause):
            return (
                f"out of host memory{_details(cause)}; lower batch_size, or run fewer trials at once: resources.workers"
            )
        cause = cause.__cause__
    return None


def _free_and_total(device: torch.device) -> tuple[int, int]:
    """Free and total bytes of the device, over all processes."""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        # A full GPU has no room even for this process's context, which the query needs.
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
    """The innermost running function of this package and the amount requested, where known."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    where = f" in {Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else ""
    asked = REQUEST.search(str(error))
    return where + (f" ({asked[1]} more requested)" if asked else "")
