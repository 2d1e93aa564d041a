"""What an attack may change, and how it searches: values that every attack takes. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threat:
    """The perturbations an attacker may choose from: a ball of radius `epsilon` in `norm`, for images in [0, 1]."""

    norm: str
    """"linf" or "l2"."""
    epsilon: float


@dataclass(frozen=True)
class PGDConfig:
    """Projected gradient descent (Madry et al., ICLR 2018)."""

    steps: int
    step_size: float
    """Per pixel (L-inf), or of the whole image (L2)."""
    restarts: int = 1
    """Random starts per image."""
    start: str = "uniform"
    """"uniform" in the ball, or "normal" noise of standard deviation `initial_noise`, which may leave the ball."""
    initial_noise: float = 0.001
    objective: str = "margin"
    """What an evaluation raises: "margin" or "cross_entropy". A training raises its method's own objective."""
