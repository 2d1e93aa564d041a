"""Number formats: which one a training has on its device, and torch's switches for it.

bfloat16: what torch's autocast runs in bfloat16, which are the convolutions and what lies between them; weights, losses
and the built-in networks' heads stay in float32. tf32: TensorFloat-32 in convolutions and matrix products. float32:
neither.
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
def number_format(name: str, device: torch.device) -> Iterator[None]:
    """Set torch's switches for TensorFloat-32 as the format says, inside the block; on a CPU there are none to set.

    In bfloat16, matrix products stay in float32: those of the built-in networks' heads, which autocast leaves alone.
    """
    places = _switches() if _switches_on(device) else {}
    before = [(place, place.fp32_precision) for place in places]
    for place, formats in places.items():
        place.fp32_precision = "tf32" if name in formats else "ieee"
    try:
        yield
    finally:
        for place, precision in before:
            place.fp32_precision = precision


def _switches_on(device: torch.device) -> bool:
    return device.type == "cuda"


def _switches() -> dict[Any, tuple[str, ...]]:
    """Torch's switches, and the formats in which each is on."""
    cudnn: Any = torch.backends.cudnn  # torch's type stubs lack these
    return {torch.backends.cuda.matmul: (TF32,), cudnn.conv: (TF32, BFLOAT16), cudnn.rnn: (TF32, BFLOAT16)}


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
