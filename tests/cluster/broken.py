"""Methods of a user's own that break."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor


def no_memory(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    """Room for all batches but those of 64."""
    if len(labels) == 64:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    return torch.nn.functional.cross_entropy(adversarial, labels, reduction="none")


def no_layer(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    raise ValueError("there is no such layer")


def broken_context(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    """The first call of all fails as on a GPU that has read where it must not. `BROKEN_ONCE`: a file it makes then."""
    marker = Path(os.environ["BROKEN_ONCE"])
    if not marker.exists():
        marker.touch()
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")
    return torch.nn.functional.cross_entropy(adversarial, labels, reduction="none")
