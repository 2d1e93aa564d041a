"""Rank correlations between rungs: how well a rung predicts the ranking later on, measured in every search."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from hcpr_tune.common.intervals import Z_95
from hcpr_tune.search.record.history import History

if TYPE_CHECKING:
    import numpy as np

FEWEST_POINTS = 5
"""With fewer trials a rank correlation says nothing: the rung stops trials, which later promotions can undo."""
MOST_POINTS = 1000
"""A rank correlation uses at most this many trials, the first with a score at both rungs.

More would hardly change it: with 1000, the 95 % interval is at most 0.06 to either side, and 0.014 at a correlation of
0.9. A correlation over all trials would have to be recomputed, in O(n log n), for each new trial.
"""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the scores at two epochs, on the first `trials` scored at both.

    Most of those were selected by the earlier score, so they vary less there than all trials do, and `seen`, the
    correlation among them, underestimates that among all. `spread` is how much more all trials vary there; `rho` is the
    correlation corrected by it (Thorndike's case 2 of range restriction; Sackett and Yang, J. Applied Psychology 85,
    2000), and `low` and `high` its 95 % interval.
    """

    rung: int
    later: int
    trials: int
    seen: float | None
    spread: float = 1.0
    among: int = 0
    """Number of trials `spread` was computed from."""

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
        """Whether the rung may stop trials: unless the correlation is below `least` with 80 % confidence.

        A later promotion can undo a stop, but nothing recovers an unnecessary training, hence the confidence required
        to disable a rung. With fewer than `FEWEST_POINTS` trials a rung is never disabled.
        """
        return self.seen is None or unrestricted(upper_bound(self.seen, self.trials), self.spread) >= least

    def __str__(self) -> str:
        if self.rho is None:
            return f"unknown ({self.trials} trials)"
        return f"{self.rho:.2f} ({self.low:.2f} to {self.high:.2f}, {self.trials} trials)"


@dataclass(frozen=True)
class RungCorrelation:
    """The correlation of one rung with the next one and with the last one.

    If rungs in between have selected trials too, the figures are conservative.
    """

    next: Correlation
    end: Correlation

    @property
    def rung(self) -> int:
        return self.end.rung

    def halves(self, least: float) -> bool:
        """Whether the rung may stop trials (see `Correlation.halves`)."""
        return self.end.halves(least)


class Scores(NamedTuple):
    """Scores of one accuracy at a rung: of all trials, and of those with a score at a later rung, with that score."""

    everybody: array[float]
    first: array[float]
    second: array[float]


@dataclass
class Correlations:
    """An index of a history: correlations and the scores that they are computed from, by (rung, later rung)."""

    found: dict[tuple[int, int], Correlation] = field(default_factory=dict)
    _scores: dict[tuple[int, int], list[Scores]] = field(default_factory=dict)

    def scores_of(self, history: History, rung: int, later: int, points: int, among: int) -> list[Scores]:
        """Scores for each accuracy that decides on promotions.

        Each has the scores at the rung of the first `among` trials there, and the scores at both rungs of the first
        `points` trials that have both. Only new trials are looked up.
        """
        names = sorted({*history.goal.objectives, *history.goal.floors})
        kept = self._scores.setdefault((rung, later), [Scores(array("d"), array("d"), array("d")) for _ in names])
        for number in history.scored_at[rung][len(kept[0].everybody) : among]:
            for name, (everybody, _, _) in zip(names, kept, strict=True):
                everybody.append(history.trials[number].scores[rung][name])
        for number in history.scored_at_both[rung, later][len(kept[0].first) : points]:
            scores = history.trials[number].scores
            for name, (_, first, second) in zip(names, kept, strict=True):
                first.append(scores[rung][name])
                second.append(scores[later][name])
        return kept


def rung_correlations(history: History, rungs: Sequence[int]) -> dict[int, RungCorrelation]:
    """The correlations of every rung below the last."""
    return {
        rung: RungCorrelation(_correlation(history, rung, following), end_of(history, rungs, rung))
        for rung, following in pairwise(rungs)
    }


def end_of(history: History, rungs: Sequence[int], rung: int) -> Correlation:
    """The correlation of `rung` with the latest rung that at least `FEWEST_POINTS` of its trials have reached.

    If there is none, with the last rung.
    """
    for later in reversed(rungs):
        if later > rung and len(history.scored_at_both.get((rung, later), ())) >= FEWEST_POINTS:
            return _correlation(history, rung, later)
    return _correlation(history, rung, rungs[-1])


def _correlation(history: History, rung: int, later: int) -> Correlation:
    """The lowest correlation over objectives and accuracies with a floor, as both decide on promotions.

    Recomputed only if there are new trials.
    """
    points = min(len(history.scored_at_both.get((rung, later), ())), MOST_POINTS)
    among = min(len(history.scored_at.get(rung, ())), MOST_POINTS)
    index = history.index(Correlations)
    kept = index.found.get((rung, later))
    if kept is not None and (kept.trials, kept.among) == (points, among):
        return kept
    found = Correlation(rung, later, points, None, among=among)
    if points >= FEWEST_POINTS:
        seen = [
            Correlation(rung, later, points, spearman(first, second), spread_of(all_of_them, first), among)
            for all_of_them, first, second in index.scores_of(history, rung, later, points, among)
        ]
        found = min(seen, key=lambda one: one.rho or 0.0)
    index.found[rung, later] = found
    return found


def spread_of(everybody: Sequence[float], picked: Sequence[float]) -> float:
    """Ratio of the standard deviation of all scores to that of the picked ones, at least 1; 1 if the latter is 0.

    Computed on normal scores (the normal quantile of each rank), since a few diverged trials would otherwise dominate.
    """
    import numpy as np
    from scipy.special import ndtri

    ordered = np.sort(np.asarray(everybody))

    def deviation(values: Sequence[float]) -> float:
        below, upto = (np.searchsorted(ordered, np.asarray(values), side) for side in ("left", "right"))
        share = (below + upto) / (2 * len(ordered))
        edge = 0.5 / len(ordered)  # a later trial may lie outside the range of `everybody`
        return float(np.std(ndtri(np.clip(share, edge, 1 - edge))))

    among_picked = deviation(picked)
    return max(1.0, deviation(everybody) / among_picked) if among_picked else 1.0


def unrestricted(rho: float, spread: float) -> float:
    """The correlation among all, from `rho` among a selection whose first value varies `spread` times less.

    Keeps the sign, and increases with `rho`.
    """
    return rho * spread / math.sqrt(1 + rho * rho * (spread * spread - 1))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, with mean ranks for ties; 0 if all values of one side are equal."""
    x, y = _centred_ranks(first), _centred_ranks(second)
    # Ranks are multiples of 1/2, so the sums are exact in any order.
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
    """The upper bound of the correlation at a confidence of 80 %."""
    return spearman_interval(rho, points, Z_80_ONE_SIDED)[1]


def spearman_interval(rho: float, points: int, quantile: float = Z_95) -> tuple[float, float]:
    """The 95 % interval (or that of another normal quantile).

    Fisher's z with the standard error of Bonett and Wright (Psychometrika 65, 2000).
    """
    if points <= 3:
        return -1.0, 1.0
    # z is infinite at a perfect correlation: use the next lower value that this number of points can have.
    nearest = 1 - 6 / (points * (points**2 - 1))
    z = math.atanh(max(-nearest, min(nearest, rho)))
    half = quantile * math.sqrt((1 + rho**2 / 2) / (points - 3))
    return math.tanh(z - half), math.tanh(z + half)
