"""Learning curves for simulated trials: their measured scores at each rung, and their true scores.

A source of curves (`Curves`) makes a `Play` for each repeat of a plan. All variants of a plan see the same plays, so
that they can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hcpr_tune.common.noise import SEED_DEVIATION
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.spec.dimensions import Params


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial at the epochs of its play.

    `robust` and `clean` are the accuracies that the search would see, from 0 to 1; `true_robust` and `true_clean` are
    the same without measurement noise.
    """

    robust: Sequence[float]
    clean: Sequence[float]
    true_robust: Sequence[float]
    true_clean: Sequence[float]
    lost_at: int = 0
    """The epoch in which the trial is lost; 0: never."""
    lost_as: tuple[str, str] = ("diverged", "it diverges")
    """Status and reason of a lost trial."""
    relative_seconds: float = 1.0
    """The time of an epoch, relative to the mean of all trials."""
    survivors: tuple[tuple[float, float], ...] = ()
    """At the last epoch: (radius as a multiple of epsilon, share of the images that survive there), if known."""


class Play(Protocol):
    """The curves of one repeat."""

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs at which curves have scores, in ascending order."""

    @property
    def images(self) -> int:
        """The number of images behind a score; 0 if not known."""

    def curve(self, trial: int, params: Params) -> Curve:
        """The curve of a trial; always the same for the same trial."""

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        """The curve of trial `trial`, which trains the recipe of trial `of` again on another seed."""


def other_seed(curve: Curve, images: int, seed: int) -> Curve:
    """The curve of the same recipe with another seed: true accuracies nearby, measured anew on `images` images."""
    draws = np.random.default_rng(seed & (2**63 - 1))
    moved = SEED_DEVIATION * draws.standard_normal()

    def measured(true: Sequence[float]) -> tuple[list[float], list[float]]:
        now = np.clip(np.asarray(true) + moved, 0.0, 1.0)
        return (draws.binomial(images, now) / images if images else now).tolist(), now.tolist()

    if curve.survivors:
        return _counted_by_radius(curve, images, moved, draws)
    (robust, true_robust), (clean, true_clean) = measured(curve.true_robust), measured(curve.true_clean)
    return replace(curve, robust=robust, clean=clean, true_robust=true_robust, true_clean=true_clean)


def _counted_by_radius(curve: Curve, images: int, moved: float, draws: np.random.Generator) -> Curve:
    """The same where survivors at several radii are known: each image survives up to some radius."""
    radii, shares = (np.array(column) for column in zip(*curve.survivors, strict=True))
    resists = draws.random(images)
    true_robust, true_clean = (
        np.clip(np.asarray(one) + moved, 0.0, 1.0) for one in (curve.true_robust, curve.true_clean)
    )
    robust, clean = ([float((resists < share).mean()) for share in true] for true in (true_robust, true_clean))
    at_radii = [float((resists < share).mean()) for share in np.clip(shares + moved, 0.0, 1.0)]
    survivors = tuple(zip(radii.tolist(), at_radii, strict=True))
    return replace(
        curve,
        robust=robust,
        clean=clean,
        true_robust=true_robust.tolist(),
        true_clean=true_clean.tolist(),
        survivors=survivors,
    )


class Curves(Protocol):
    """A source of curves."""

    @property
    def words(self) -> str:
        """Where the curves come from, as text for the user."""

    @property
    def guess(self) -> bool:
        """Whether the curves are assumed rather than measured."""

    @property
    def knows_params(self) -> bool:
        """Whether a trial's curve depends on its parameters, so that a sampler can learn."""

    def play(self, epochs: Sequence[int], trials: int, seed: int) -> Play:
        """Curves at `epochs` for `trials` trials, drawn from `seed`. Raises `InputError` if an epoch has no scores."""


@dataclass(frozen=True)
class DrawnPlay:
    """A play whose curves were all drawn beforehand, one row per trial number."""

    epochs: Sequence[int]
    images: int
    seen: list[list[float]]
    true: list[list[float]]
    relative_seconds: list[float]
    seed: int = 0

    def curve(self, trial: int, params: Params) -> Curve:
        # Only requests add more trials than planned.
        row = trial % len(self.seen)
        return Curve(
            self.seen[row], self.seen[row], self.true[row], self.true[row], relative_seconds=self.relative_seconds[row]
        )

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        return other_seed(self.curve(of, params), self.images, derive_seed(self.seed, "replicate", trial))


SPREAD, FORETELLING, SECONDS_SPREAD = 0.25, 0.2, 0.1
MEDIAN_END = 0.5
LEAST_PROBED = 1.0


@dataclass(frozen=True)
class GuessedCurves:
    """An assumed family of curves, for a task of which only a probe's measurement is known.

    With chance level c and last epoch E, a trial of median quality has
    accuracy(e) = c + (a - c) (1 - exp(-5 e / E)) / (1 - exp(-5)), where `a` makes the curve pass through the probe's
    measurement, or is MEDIAN_END if the probe trained less than LEAST_PROBED epochs. Trials differ from it in their
    log-odds, by a random walk in (e / E)^(2 FORETELLING) whose standard deviation is SPREAD at every epoch (6 points at
    50 % accuracy): an early score's correlation with the end is (e / E)^FORETELLING, 0.64 at a ninth of the training,
    0.80 at a third. Scores are counts over `images` images; an epoch's seconds differ between trials by SECONDS_SPREAD.
    """

    classes: int
    last_epoch: int
    images: int
    probed_epoch: float
    """Number of epochs that the probe trained."""
    probed_accuracy: float
    """Robust accuracy after them, from 0 to 1."""

    guess = True
    knows_params = False

    @property
    def words(self) -> str:
        assumed = f"{100 * self.end:.0f} % at epoch {self.last_epoch}"
        if self.probed_epoch < LEAST_PROBED:
            return (
                "a guess: this recipe has never been trained to the end, and the probe was shorter than an epoch; "
                f"{assumed} is assumed"
            )
        probed = f"{100 * self.probed_accuracy:.1f} % robust accuracy in {self.probed_epoch:.2g} epochs"
        return (
            f"a guess: this recipe has never been trained to the end. The probe reached {probed}; "
            f"a typical curve from there to {assumed} is assumed"
        )

    @property
    def end(self) -> float:
        """The accuracy of a trial of median quality at the last epoch."""
        if self.probed_epoch < LEAST_PROBED:
            return MEDIAN_END
        chance = 1 / self.classes
        rise = (self.probed_accuracy - chance) / self._risen(self.probed_epoch)
        return float(min(0.9, max(chance + 0.05, chance + rise)))

    def _risen(self, epoch: float) -> float:
        """The fraction of the rise that is completed at an epoch."""
        return float((1 - np.exp(-5 * epoch / self.last_epoch)) / (1 - np.exp(-5)))

    def play(self, epochs: Sequence[int], trials: int, seed: int) -> DrawnPlay:
        draws = np.random.default_rng(derive_seed(seed, "guessed curves"))
        chance = 1 / self.classes
        time = np.minimum(1.0, np.array(epochs) / self.last_epoch) ** (2 * FORETELLING)
        steps = draws.standard_normal((trials, len(epochs))) * np.sqrt(np.diff(time, prepend=0.0))
        median = chance + (self.end - chance) * np.array([self._risen(epoch) for epoch in epochs])
        odds = median / (1 - median) * np.exp(SPREAD * np.cumsum(steps, axis=1) / np.sqrt(time))
        true = odds / (1 + odds)
        seen = draws.binomial(self.images, true) / self.images
        seconds = np.exp(SECONDS_SPREAD * draws.standard_normal(trials))
        return DrawnPlay(tuple(epochs), self.images, seen.tolist(), true.tolist(), seconds.tolist(), seed)
