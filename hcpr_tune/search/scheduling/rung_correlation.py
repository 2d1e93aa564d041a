"""Rank correlations between rungs: how well a rung predicts the ranking later on, measured in every search.

What is measured is lower than what a rung is worth, for two reasons that are both known and corrected: the later score
is noisy (`reliability_of`), and most trials that have one were selected by the earlier score (`spread_of`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from hcpr_tune.common.intervals import Z_95
from hcpr_tune.common.noise import SEED_DEVIATION
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


LEAST_RELIABILITY = 0.1
"""If less of the variance of the later scores than this is more than noise, their order says nothing of a rung."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the scores at two epochs, on the first `trials` scored at both.

    `seen` is the correlation among these. `rho` is an estimate of that of the earlier score, as it is seen, with the
    later one free of noise, among all trials: `seen`, corrected first for the later score's `reliability` among the
    same trials (Spearman, American J. of Psychology 15, 1904), then for selection by the earlier score, of which all
    trials vary `spread` times as much as these (Thorndike's case 2 of range restriction; Sackett and Yang, J. Applied
    Psychology 85, 2000). None if it is unknown. `low` and `high` are its 95 % interval, in which reliability and spread
    are taken for exact.
    """

    rung: int
    later: int
    trials: int
    seen: float | None
    spread: float = 1.0
    among: int = 0
    """Number of trials `spread` was computed from."""
    reliability: float = 1.0
    """Share of the variance of the later scores that is not noise; below 0 if they vary less than by chance."""

    @property
    def known(self) -> bool:
        """Whether there are enough trials, and the later scores tell them apart."""
        return self.seen is not None and self.reliability >= LEAST_RELIABILITY

    @property
    def rho(self) -> float | None:
        return None if self.seen is None or not self.known else self._corrected(self.seen)

    @property
    def low(self) -> float:
        if self.seen is None or not self.known:
            return -1.0
        return self._corrected(spearman_interval(self.seen, self.trials)[0])

    @property
    def high(self) -> float:
        if self.seen is None or not self.known:
            return 1.0
        return self._corrected(spearman_interval(self.seen, self.trials)[1])

    def _corrected(self, seen: float) -> float:
        return unrestricted(disattenuated(seen, self.reliability), self.spread)

    def to_plain(self) -> dict[str, float | int | None]:
        return {
            "rung": self.rung,
            "later": self.later,
            "trials": self.trials,
            "rank_correlation": self.rho,
            "low_95": self.low,
            "high_95": self.high,
            "seen": self.seen,
            "reliability": self.reliability,
        }

    def halves(self, least: float) -> bool:
        """Whether the rung may stop trials: unless its correlation is below `least` with 95 % confidence (one-sided).

        A later promotion can undo a stop, but nothing recovers an unnecessary training, and even a rung of a
        correlation of 0.3 is worth more than it costs: hence the confidence required to spare everybody there. It
        stops where nothing is known.
        """
        if self.seen is None or not self.known:
            return True
        return self._corrected(upper_bound(self.seen, self.trials)) >= least

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
    noise: array[float]
    """The noise variance of each later score."""


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
        kept = self._scores.setdefault((rung, later), [Scores(*(array("d") for _ in Scores._fields)) for _ in names])
        for number in history.scored_at[rung][len(kept[0].everybody) : among]:
            for name, of_name in zip(names, kept, strict=True):
                of_name.everybody.append(history.trials[number].scores[rung][name])
        for number in history.scored_at_both[rung, later][len(kept[0].first) : points]:
            trial = history.trials[number]
            images = trial.at_rung(later)["total_validation"]
            for name, of_name in zip(names, kept, strict=True):
                of_name.first.append(trial.scores[rung][name])
                of_name.second.append(trial.scores[later][name])
                of_name.noise.append(noise_variance(trial.scores[later][name], images))
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
            Correlation(
                rung,
                later,
                points,
                spearman(one.first, one.second),
                spread_of(one.everybody, one.first),
                among,
                reliability_of(one.second, one.noise),
            )
            for one in index.scores_of(history, rung, later, points, among)
        ]
        found = min(seen, key=lambda one: 1.0 if one.rho is None else one.rho)
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


def noise_variance(accuracy: float, images: int) -> float:
    """Variance of a measured accuracy around the recipe's own: of a count over `images`, and between seeds.

    An upper bound: all trials are scored on the same images, whose common part does not change their order.
    """
    return accuracy * (1 - accuracy) / images + SEED_DEVIATION**2


def reliability_of(scores: Sequence[float], noise: Sequence[float]) -> float:
    """1 - noise variance / variance of the scores, at least -1; 0 if all scores are equal.

    Sums are correctly rounded (`math.fsum`), so that they do not depend on the order of the trials.
    """
    mean = math.fsum(scores) / len(scores)
    variance = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return max(-1.0, 1 - math.fsum(noise) / len(noise) / variance) if variance else 0.0


def disattenuated(rho: float, reliability: float) -> float:
    """The correlation with the second value free of noise, from `rho` with the noisy one; at most 1 in size."""
    return max(-1.0, min(1.0, rho / math.sqrt(reliability)))


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


Z_95_ONE_SIDED = 1.6449


@lru_cache(maxsize=64)
def upper_bound(rho: float, points: int) -> float:
    """The upper bound of the correlation at a one-sided confidence of 95 %."""
    return spearman_interval(rho, points, Z_95_ONE_SIDED)[1]


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
