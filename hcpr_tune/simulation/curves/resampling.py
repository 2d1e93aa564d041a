"""Resampling of trials' scores: continuing stopped trials, estimating measurement noise and true scores.

Arrays are (trials, epochs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hcpr_tune.common.noise import OWN_NOISE

FEWEST = 3
"""The fewest trials from which a mean and a spread can be estimated."""
MOST_NOISE = 0.9
"""Noise is at most this fraction of the variance between trials."""
FAR = 5.0
"""Robust standard deviations beyond which a trial is an outlier."""
SMALLEST = 1e-9

Array = np.ndarray


def continued(robust: Array, clean: Array, draws: np.random.Generator) -> Array:
    """Scores (trials, epochs) of both kinds, stacked horizontally and without gaps.

    A missing score is predicted from the nearest earlier epoch that has one, else from the nearest later one.
    """
    full = [robust.copy(), clean.copy()]
    columns = robust.shape[1]
    for column in [*range(1, columns), *range(columns - 2, -1, -1)]:
        for other in (column - 1, column + 1):
            if not 0 <= other < columns:
                continue
            both = np.isfinite(robust[:, column]) & np.isfinite(robust[:, other])
            missing = ~np.isfinite(full[0][:, column]) & np.isfinite(full[0][:, other])
            if not missing.any() or not both.any():
                continue
            like = _alike(robust[both, other], full[0][missing, other], draws)
            for scores, filled in zip((robust, clean), full, strict=True):
                x, y, at = scores[both, other], scores[both, column], filled[missing, other]
                filled[missing, column] = y[like] + _slope(x, y) * (at - x[like])
    for scores, filled in zip((robust, clean), full, strict=True):
        # Nothing is known of a trial that was lost before its first score; it is lost again.
        filled[~np.isfinite(filled).all(axis=1)] = np.nanmean(scores, axis=0)
    return np.asarray(np.clip(np.hstack(full), 0.0, 1.0))


def _alike(x: Array, at: Array, draws: np.random.Generator) -> Array:
    """For each value in `at`, the index of one of the nearest in `x`: failed trials continue unlike the others."""
    nearest = np.argsort(np.abs(at[:, None] - x), axis=1, kind="stable")[:, :FEWEST]
    chosen: Array = nearest[np.arange(len(at)), draws.integers(nearest.shape[1], size=len(at))]
    return chosen


def _slope(x: Array, y: Array) -> float:
    """Regression slope of y on x, clipped to [0, 1]."""
    if len(x) < FEWEST or np.var(x) < SMALLEST:
        return 1.0
    return float(np.clip(np.cov(x, y)[0, 1] / np.var(x, ddof=1), 0.0, 1.0))


def noise_of(scores: Array, images: int) -> Array:
    """The variance of the noise in each column of scores (trials, columns)."""
    mean = np.median(scores, axis=0)
    return np.asarray(OWN_NOISE * mean * (1 - mean) / images if images else np.zeros(len(mean)))


def usual(scores: Array, noise: Array) -> Array:
    """Which rows are not outliers, (trials, columns) -> (trials,). Failed trials would make the rest look alike."""
    away = np.abs(scores - np.median(scores, axis=0))
    scale = np.maximum(1.4826 * np.median(away, axis=0), np.sqrt(noise) + SMALLEST)
    within = (away <= FAR * scale).all(axis=1)
    return within if within.sum() >= FEWEST else np.ones(len(scores), dtype=bool)


@dataclass(frozen=True)
class Redrawn:
    """Curves whose true scores are drawn given the measured ones, (trials, columns).

    `expected`: means of the true scores; `spread`: a root of their covariance; `noise`: standard deviations of the
    measurement.
    """

    expected: Array
    spread: Array
    noise: Array

    @classmethod
    def of(cls, scores: Array, noise: Array) -> Redrawn:
        """If the truth t is normal with covariance T and the measurement is m = t + noise, t given m has the mean
        E(m) + T (T + N)^-1 (m - E(m)) and the covariance T - T (T + N)^-1 T. For outliers, the measurement is the mean.
        """
        many = usual(scores, noise)
        mean = scores[many].mean(axis=0)
        between = np.atleast_2d(np.cov(scores[many], rowvar=False))
        noise = np.minimum(noise, MOST_NOISE * np.diag(between))
        truth = positive(between - np.diag(noise))
        gain = truth @ np.linalg.pinv(truth + np.diag(noise), hermitian=True)
        expected = np.where(many[:, None], mean + (scores - mean) @ gain.T, scores)
        return cls(expected, root(truth - gain @ truth), np.sqrt(noise))

    def draw(self, trial: int, draws: np.random.Generator) -> tuple[Array, Array]:
        """(measured, true) scores of a new trial like this one."""
        normal = draws.standard_normal(2 * self.expected.shape[1])
        half = len(normal) // 2
        true = np.clip(self.expected[trial] + self.spread @ normal[:half], 0.0, 1.0)
        return np.clip(true + self.noise * normal[half:], 0.0, 1.0), true


def positive(matrix: Array) -> Array:
    """The nearest covariance matrix: negative eigenvalues are noise and set to 0."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
