"""The answer of a search that has ended: the chosen recipe next to the published one, on the same fresh seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from hcpr_tune.search.record.history import History, Trial

if TYPE_CHECKING:
    from hcpr_tune.common.statistics import Difference


@dataclass(frozen=True)
class Answer:
    """`chosen` is the trial whose recipe is the answer, found by the search; `replicates` trained it again.

    `published` has the published recipe's replicates, on the same seeds in the same order.
    """

    chosen: Trial
    replicates: tuple[Trial, ...]
    published: tuple[Trial, ...]

    @property
    def score(self) -> float:
        """Mean robust accuracy over the fresh seeds, collapsed ones left out."""
        return mean_score(self.replicates)

    @property
    def gain(self) -> float | None:
        """Over the published recipe, in points, on the seeds that collapsed for neither; None without any."""
        pairs = self.pairs
        return (
            100 * fmean(one.rungs[one.last_rung] - other.rungs[other.last_rung] for one, other in pairs)
            if pairs
            else None
        )

    @property
    def difference(self) -> Difference | None:
        """The same as a share with its 95 % interval, over seeds and images; None where images were not recorded."""
        import numpy as np

        from hcpr_tune.common.statistics import differences

        both = [[survived(one), survived(other)] for one, other in self.pairs]
        if not both or any(rows is None for pair in both for rows in pair):
            return None
        one, other = (np.array([pair[side] for pair in both]) for side in (0, 1))
        return differences({"": (one, other)})[""]

    @property
    def pairs(self) -> list[tuple[Trial, Trial]]:
        """Trainings of both recipes on the same seed, neither of which collapsed."""
        published = {trial.seed: trial for trial in self.published if not trial.collapsed}
        return [
            (trial, published[trial.seed])
            for trial in self.replicates
            if trial.seed in published and not trial.collapsed
        ]

    @property
    def optimism(self) -> float | None:
        """By how many points the search's own score of the recipe was above that on fresh seeds; None for trial 0."""
        if self.chosen.single_schedule or self.chosen.score is None:
            return None
        return 100 * (self.chosen.score - self.score)


def mean_score(trials: tuple[Trial, ...]) -> float:
    """Mean robust accuracy of trainings at their last rung; collapsed ones count only if all are."""
    alive = [trial for trial in trials if not trial.collapsed] or trials
    return fmean(trial.rungs[trial.last_rung] for trial in alive)


def survived(trial: Trial) -> list[bool] | None:
    """Which validation images its model classifies correctly under attack; None if that was not recorded."""
    report = trial.at_rung(trial.last_rung)
    packed = report.get("survived_validation")
    if packed is None:
        return None
    bits = int(packed, 16)
    width, total = 4 * len(packed), report["total_validation"]
    return [bool(bits >> (width - 1 - place) & 1) for place in range(total)]


def answer_of(history: History) -> Answer | None:
    """None before the end of a search, and for one without replicates of its choice."""
    if history.choice is None:
        return None
    chosen = history.choice["trial"]
    replicates = tuple(history.replicates_of(chosen))
    if not replicates:
        return None
    return Answer(history.trials[chosen], replicates, tuple(history.replicates_of(0)))
