"""What is known of the noise of a measured accuracy: one place for all that decides, estimates or simulates with it."""

from __future__ import annotations

from typing import Final

SEED_DEVIATION: Final = 0.01
"""Standard deviation of a recipe's accuracy between training seeds: 1 point; the counting noise comes on top.

On digits it was 0.3 to 1.7 points over three seeds (docs/benchmarks.md); ResNet-18 on CIFAR-10 has 0.2 to 0.4.
"""
OWN_NOISE: Final = 0.5
"""The fraction of a score's binomial variance that differs between recipes: all are scored on the same images, which
are hard or easy for all of them. Assumed.
"""
