"""Every random draw has a seed of its own, derived from the recipe's seed and the draw's name and epoch.

So no generator has a state to save: a training that continues from an epoch's end draws what it would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a seed and what it is for."""
    text = ":".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """A new generator on `device`, seeded by `derive`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))
