"""What a rung is worth: how far the order of the trials there is the order further on. Measured in every search, not assumed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.intervals import Z_95
from hcpr_tune.search.record.history import History

if TYPE_CHECKING:
    import numpy as np

FEWEST_POINTS = 5
"""With fewer trials a rank correlation says nothing: the rung halves as usual, which a later promotion can undo."""
MOST_POINTS = 1000
"""A rank correlation is measured on so many trials at most, the first that came to a score at both rungs.

More say nothing more: by then its interval at 95 % reaches 0.06 to either side at the most, at 0.9 it is 0.014. And a correlation of
all trials would have to be worked out anew, in O(n log n), with each trial that comes.
"""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the scores at two epochs, with its interval at 95 %, measured on the (first) `trials` that were scored at both.

    Those were picked by the earlier score, for the most part: they differ less there than all do, and `seen`, the correlation among them, is
    smaller than that among all, however good the rung is. Where `spread` is how much more all differ there than the picked ones do, `rho`
    is what it would be among all (Thorndike's case 2 of a restricted range; Sackett and Yang, J. Applied Psychology 85, 2000).
    """

    rung: int
    later: int
    trials: int
    seen: float | None
    spread: float = 1.0
    among: int = 0
    """How many trials `spread` was told by."""

    @property
    def rho(self) -> float | None:
        return None if self.seen is None else unrestricted(self.seen, self.spread)

    @property
    def low(self) -> float:
        return -1.0 if self.seen is None else unrestricted(spearman_interval(self.seen, self.trials)[0], self.spread)

    @property
    def high(self) -> float:
        return 1.0 if self.seen is None else unrestricted(spearman_interval(self.seen, self.trials)[1], self.spread)

    def to_plain(self) -> dict[str, float | int | None]:
        return {
            "rung": self.rung,
            "later": self.later,
            "trials": self.trials,
            "rank_correlation": self.rho,
            "low_95": self.low,
            "high_95": self.high,
        }

    def halves(self, least: float) -> bool:
        """Whether the rung may stop trials: unless this, its worth, is below `least` beyond what few points may feign.

        A stop can be undone by a later promotion, a training that went on for nothing cannot: so it takes some certainty (80 %) to say
        that a rung is worth too little, and with fewer than `FEWEST_POINTS` there is none.
        """
        return self.seen is None or unrestricted(upper_bound(self.seen, self.trials), self.spread) >= least

    def __str__(self) -> str:
        if self.rho is None:
            return f"unknown ({self.trials} trials)"
        return f"{self.rho:.2f} ({self.low:.2f} to {self.high:.2f}, {self.trials} trials)"


@dataclass(frozen=True)
class RungCorrelation:
    """What one rung says of the next one and of the end.

    Between the two a later rung may have picked too: then the figures are cautious.
    """

    next: Correlation
    end: Correlation

    @property
    def rung(self) -> int:
        return self.end.rung

    def halves(self, least: float) -> bool:
        """Whether the rung may stop trials (see `Correlation.halves`)."""
        return self.end.halves(least)


def rung_correlations(history: History, rungs: Sequence[int]) -> dict[int, RungCorrelation]:
    """The worth of every rung below the last."""
    return {
        rung: RungCorrelation(_correlation(history, rung, following), end_of(history, rungs, rung))
        for rung, following in pairwise(rungs)
    }


def end_of(history: History, rungs: Sequence[int], rung: int) -> Correlation:
    """What one rung says of the end: of the latest rung that enough trials with a score here have reached; where there is none, of the last."""
    for later in reversed(rungs):
        if later > rung and len(history.scored_at_both.get((rung, later), ())) >= FEWEST_POINTS:
            return _correlation(history, rung, later)
    return _correlation(history, rung, rungs[-1])


def _correlation(history: History, rung: int, later: int) -> Correlation:
    """The lowest over the objectives, and over what has a floor: both decide who goes on. Worked out anew only where a trial has come."""
    points = min(len(history.scored_at_both.get((rung, later), ())), MOST_POINTS)
    among = min(len(history.scored_at.get(rung, ())), MOST_POINTS)
    kept: Correlation | None = history.lasting.get(("correlation", rung, later))
    if kept is not None and (kept.trials, kept.among) == (points, among):
        return kept
    found = Correlation(rung, later, points, None, among=among)
    if points >= FEWEST_POINTS:
        seen = [
            Correlation(rung, later, points, spearman(first, second), spread_of(all_of_them, first), among)
            for all_of_them, first, second in _scores(history, rung, later, points, among)
        ]
        found = min(seen, key=lambda one: one.rho or 0.0)
    history.lasting["correlation", rung, later] = found
    return found


def _scores(
    history: History, rung: int, later: int, points: int, among: int
) -> list[tuple[array[float], array[float], array[float]]]:
    """For each accuracy that decides: the scores at the rung of the first `among` trials that came to it, and those at both rungs of the first
    `points` that have them. Only new trials are looked up.
    """
    names = sorted({*history.goal.objectives, *history.goal.floors})
    kept: list[tuple[array[float], array[float], array[float]]] = history.lasting.setdefault(
        ("scores", rung, later), [(array("d"), array("d"), array("d")) for _ in names]
    )
    for number in history.scored_at[rung][len(kept[0][0]) : among]:
        for name, (everybody, _, _) in zip(names, kept, strict=True):
            everybody.append(history.trials[number].scores[rung][name])
    for number in history.scored_at_both[rung, later][len(kept[0][1]) : points]:
        scores = history.trials[number].scores
        for name, (_, first, second) in zip(names, kept, strict=True):
            first.append(scores[rung][name])
            second.append(scores[later][name])
    return kept


def spread_of(everybody: Sequence[float], picked: Sequence[float]) -> float:
    """How much more all differ than the picked ones do among them; 1 where these differ as much, or more, or not at all.

    By normal scores, the normal quantile of each one's rank among all: trials that broke would make all others look the same.
    """
    import numpy as np
    from scipy.special import ndtri

    ordered = np.sort(np.asarray(everybody))

    def deviation(values: Sequence[float]) -> float:
        below, upto = (np.searchsorted(ordered, np.asarray(values), side) for side in ("left", "right"))
        share = (below + upto) / (2 * len(ordered))
        edge = 0.5 / len(ordered)  # somebody who came later may lie beyond all of them
        return float(np.std(ndtri(np.clip(share, edge, 1 - edge))))

    among_picked = deviation(picked)
    return max(1.0, deviation(everybody) / among_picked) if among_picked else 1.0


def unrestricted(rho: float, spread: float) -> float:
    """A correlation among all, from that among some whose first value differs `spread` times less. It keeps its sign, and rises with `rho`."""
    return rho * spread / math.sqrt(1 + rho * rho * (spread * spread - 1))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, equals sharing their mean rank; 0 where one side is all equal and orders nothing."""
    x, y = _centred_ranks(first), _centred_ranks(second)
    # Ranks are whole or half: the sums are exact, in whatever order.
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else 0.0


def _centred_ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: np.ndarray[Any, np.dtype[np.float64]] = ends - (counts + 1) / 2 - (len(values) - 1) / 2
    return means[place]


Z_80_ONE_SIDED = 0.8416


@lru_cache(maxsize=64)
def upper_bound(rho: float, points: int) -> float:
    """What the correlation is below with a certainty of 80 %."""
    return spearman_interval(rho, points, Z_80_ONE_SIDED)[1]


def spearman_interval(rho: float, points: int, quantile: float = Z_95) -> tuple[float, float]:
    """At 95 % (or another normal quantile), by Fisher's z with the standard error of Bonett and Wright (Psychometrika 65, 2000)."""
    if points <= 3:
        return -1.0, 1.0
    # At a perfect correlation z is infinite, but so few points prove nothing: the bound is that of the next lower one that can be.
    nearest = 1 - 6 / (points * (points**2 - 1))
    z = math.atanh(max(-nearest, min(nearest, rho)))
    half = quantile * math.sqrt((1 + rho**2 / 2) / (points - 3))
    return math.tanh(z - half), math.tanh(z + half)
