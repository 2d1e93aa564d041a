"""Number formats: which one a training has on its device, and torch's switches for it.

bfloat16: convolutions run in bfloat16 under autocast, everything else in float32, with TensorFloat-32 inside
convolutions and matrix products. tf32: that without autocast. float32: neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hcpr_tune.training.recipe import AUTO, BFLOAT16, FLOAT32, TF32


def format_of(precision: str, device: torch.device) -> str:
    """The number format that a recipe's `precision` means on a device: on a CPU always float32."""
    if device.type != "cuda":
        return FLOAT32
    if precision == AUTO:
        return BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else FLOAT32
    return precision


@contextmanager
def number_format(name: str) -> Iterator[None]:
    """Set torch's switches for TensorFloat-32 as the format says, inside the block."""
    cudnn: Any = torch.backends.cudnn  # torch's type stubs lack `conv`
    places = (torch.backends.cuda.matmul, cudnn.conv)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee" if name == FLOAT32 else TF32
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextmanager
def convolution_choice(deterministic: bool) -> Iterator[None]:
    """How cuDNN chooses its algorithms inside the block: only repeatable ones, or the fastest of a trial of each."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def forward_in(name: str, model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The model's forward pass in a number format; logits are float32 or wider, whatever the head returns."""

    def forward(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16) if name == BFLOAT16 else nullcontext():
            logits = model(images)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    return forward
