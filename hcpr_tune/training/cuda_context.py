"""A broken CUDA context: after some errors nothing runs on the GPU in this process any more."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from hcpr_tune.common.text import first_line
from hcpr_tune.training.gpu_memory import out_of_memory

BREAKING = re.compile(
    r"cuda error: (an illegal memory access|an illegal instruction|misaligned address|invalid program counter"
    r"|device-side assert|unspecified launch failure|the launch timed out|uncorrectable|hardware stack error"
    r"|unknown error)",
    re.IGNORECASE,
)
"""Errors after which CUDA says that the process must be ended to go on using it."""
OF_A_GPU = re.compile(r"\b(cuda|cudnn|cublas|nccl)", re.IGNORECASE)


def broken(error: BaseException) -> str | None:
    """One line if the error, or a cause of it, shows that the context is broken; None if later work may succeed.

    Where its words leave it open, the GPU is asked. Out of memory breaks nothing.
    """
    if out_of_memory(error) is not None:
        return None
    for one in _with_causes(error):
        if not isinstance(one, RuntimeError) or not OF_A_GPU.search(str(one)):
            continue
        if BREAKING.search(str(one)) or not _answers():
            return f"the CUDA context is broken: {first_line(one)}"
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _answers() -> bool:
    """Whether this process's GPU, if it uses one, completes what it was given."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
