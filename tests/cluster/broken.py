"""Methods of a user's own that break."""

from __future__ import annotations

import torch
from torch import Tensor


def no_memory(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    """Room for all batches but those of 64."""
    if len(labels) == 64:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    return torch.nn.functional.cross_entropy(adversarial, labels, reduction="none")


def no_layer(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    raise ValueError("there is no such layer")
