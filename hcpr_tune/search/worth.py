"""What a rung is worth: how far the order of the trials there is the order further on. Measured in every search, not assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hcpr_tune.proportions import Z_95
from hcpr_tune.search.history import History

FEWEST_POINTS = 5
"""With fewer trials a rank correlation says nothing: the rung halves as usual, which a later promotion can undo."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the scores at two epochs, over the `trials` that were scored at both, with its interval at 95 %."""

    rung: int
    later: int
    trials: int
    rho: float | None
    low: float = -1.0
    high: float = 1.0

    def to_plain(self) -> dict[str, float | int | None]:
        return {
            "rung": self.rung,
            "later": self.later,
            "trials": self.trials,
            "rank_correlation": self.rho,
            "low_95": self.low,
            "high_95": self.high,
        }

    def __str__(self) -> str:
        if self.rho is None:
            return f"unknown ({self.trials} trials)"
        return f"{self.rho:.2f} ({self.low:.2f} to {self.high:.2f}, {self.trials} trials)"


@dataclass(frozen=True)
class Worth:
    """What one rung says of the next one and of the end.

    Promoted trials are the better ones and differ less than all do, so that the figures are cautious where few were promoted whatever
    their scores.
    """

    next: Correlation
    end: Correlation

    @property
    def rung(self) -> int:
        return self.end.rung

    def halves(self, least: float) -> bool:
        """Whether the rung may stop trials: unless its worth is below `least` beyond what few points may feign.

        A stop can be undone by a later promotion, a training that went on for nothing cannot: so it takes some certainty (80 %) to say
        that a rung is worth too little, and with fewer than `FEWEST_POINTS` there is none.
        """
        return self.end.rho is None or upper_bound(self.end.rho, self.end.trials) >= least


def rung_worths(history: History, rungs: Sequence[int]) -> dict[int, Worth]:
    """The worth of every rung below the last.

    The end is the latest rung that enough trials with a score here have reached; where there is none, the last one.
    """
    kept: dict[int, Worth] | None = history.derived.get(("worths", tuple(rungs)))
    if kept is not None:
        return kept
    reached = {rung: {number for number, trial in history.trials.items() if rung in trial.rungs} for rung in rungs}
    worths: dict[int, Worth] = {}
    for place, rung in enumerate(rungs[:-1]):
        later = [end for end in rungs[place + 1 :] if len(reached[rung] & reached[end]) >= FEWEST_POINTS]
        end = max(later, default=rungs[-1])
        following = rungs[place + 1]
        worths[rung] = Worth(
            _correlation(history, rung, following, reached[rung] & reached[following]),
            _correlation(history, rung, end, reached[rung] & reached[end]),
        )
    history.derived["worths", tuple(rungs)] = worths
    return worths


def _correlation(history: History, rung: int, later: int, numbers: set[int]) -> Correlation:
    """The lowest over the objectives, and over what has a floor: both decide who goes on."""
    if len(numbers) < FEWEST_POINTS:
        return Correlation(rung, later, len(numbers), None)
    trials = [history.trials[number] for number in sorted(numbers)]
    found = min(
        spearman([trial.scores[rung][name] for trial in trials], [trial.scores[later][name] for trial in trials])
        for name in sorted({*history.goal.objectives, *history.goal.floors})
    )
    return Correlation(rung, later, len(trials), found, *spearman_interval(found, len(trials)))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, equals sharing their mean rank; 0 where one side is all equal and orders nothing."""
    x, y = _centred_ranks(first), _centred_ranks(second)
    spread = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


def _centred_ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            ranks[index] = (start + end) / 2 - (len(values) - 1) / 2
        start = end + 1
    return ranks


Z_80_ONE_SIDED = 0.8416


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
