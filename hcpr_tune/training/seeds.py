"""Torch generators, each seeded for one purpose; see `hcpr_tune.common.seeds`."""

from __future__ import annotations

import torch

from hcpr_tune.common.seeds import derive_seed


def generator(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """A new generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
