"""Proportions and their confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

Z_95 = 1.959963984540054


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of `count` out of `total`; (0, 1) if total is 0. Wilson, JASA 22 (1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = count / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # At 0 and at `total` the interval ends exactly there; rounding could exclude the share.
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return low, high


class ProportionPlain(TypedDict):
    """A proportion with its interval, for JSON."""

    share: float
    low_95: float
    high_95: float
    count: int
    total: int


@dataclass(frozen=True)
class Proportion:
    """`count` out of `total`."""

    count: int
    total: int

    @property
    def share(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval."""
        return wilson_interval(self.count, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"

    def to_plain(self) -> ProportionPlain:
        low, high = self.interval
        return {"share": self.share, "low_95": low, "high_95": high, "count": self.count, "total": self.total}


def difference_interval(first: Proportion, second: Proportion) -> tuple[float, float]:
    """The 95 % interval of `first` minus `second`, as if measured on different images.

    On the same images it is conservative if the two are positively correlated. Source: Newcombe, Statistics in Medicine
    17 (1998), method 10.
    """
    (low_1, high_1), (low_2, high_2) = first.interval, second.interval
    difference = first.share - second.share
    return (
        difference - math.hypot(first.share - low_1, high_2 - second.share),
        difference + math.hypot(high_1 - first.share, second.share - low_2),
    )
