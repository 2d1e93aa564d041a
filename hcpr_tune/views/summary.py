"""A summary of a study so far, shared by the terminal, the metrics, the report and the notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from hcpr_tune.search.record.answer import Answer, answer_of, mean_score, survived
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import masking_alarms
from hcpr_tune.search.scheduling.rung_correlation import FEWEST_POINTS, rung_correlations
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.wording import number, percent


@dataclass(frozen=True)
class Gain:
    """The gain of the best trial over the published recipe, in points of robust accuracy on validation.

    `epoch`, `published_epoch`: those of the two scores. `final`: both recipes were trained to the last rung, so that
    this is an answer. `fresh`: on fresh seeds, the same for both.
    """

    points: float
    epoch: int
    published_epoch: int
    final: bool
    fresh: bool = False


def gain_at(points: float, epoch: int, published_epoch: int) -> str:
    """A gain with the epochs of the two scores."""
    words = f"{points:+.1f} points at epoch {epoch} over the published recipe"
    return words if epoch == published_epoch else f"{words} (at epoch {published_epoch})"


def gain_of(history: History) -> Gain | None:
    """On the same fresh seeds once the search has chosen, before that between their scores in the search.

    None while one of them has no score.
    """
    found = answer_of(history)
    if found is not None and found.gain is not None:
        return Gain(found.gain, history.last_epoch, history.last_epoch, final=True, fresh=True)
    best, published = history.best_trial, history.trials.get(0)
    if best is None or published is None or best.score is None or published.score is None:
        return None
    final = min(best.last_rung, published.last_rung) >= history.last_epoch
    return Gain(100 * (best.score - published.score), best.best_rung, published.best_rung, final)


def gain_points(history: History) -> float | None:
    """The points alone."""
    gain = gain_of(history)
    return None if gain is None else gain.points


def answer_words(history: History) -> str:
    """The answer on fresh seeds, in sentences; empty without one."""
    found = answer_of(history)
    if found is None or found.gain is None:
        return ""
    seeds = number(len(found.pairs), "fresh seed")
    of_published = mean_score(found.published)
    if found.chosen.single_schedule:
        return f"No recipe is expected to beat the published one, which reaches {percent(of_published)} on {seeds}."
    words = (
        f"The recipe of trial {found.chosen.number} and the published one were each trained again on {seeds}, with the"
        f" same learning rate schedule: {percent(found.score)} and {percent(of_published)} robust accuracy, a gain of"
        f" {gain_interval(found)}."
    )
    if found.optimism is not None:
        searched = percent(found.score + found.optimism / 100)
        words += f" In the search, trial {found.chosen.number} had scored {searched}."
    return words


@dataclass(frozen=True)
class SeedMean:
    """Mean accuracies of a recipe over seeds that did not collapse; `words`: robust accuracy with its 95 % interval."""

    seeds: int
    clean: float
    words: str


def mean_of(replicates: Sequence[Trial]) -> SeedMean | None:
    """None without a training that did not collapse."""
    alive = [trial for trial in replicates if not trial.collapsed]
    if not alive:
        return None
    clean = fmean(trial.scores[trial.last_rung]["clean_accuracy"] for trial in alive)
    images = [survived(trial) for trial in alive]
    words = percent(mean_score(tuple(alive)))
    if all(images):
        import numpy as np

        from hcpr_tune.common.statistics import mean_over_seeds

        mean = mean_over_seeds(np.array(images, dtype=float))
        words += f" ({100 * mean.low:.1f} to {100 * mean.high:.1f})"
    return SeedMean(len(alive), clean, words)


def gain_interval(found: Answer) -> str:
    """The gain on fresh seeds in points, with its 95 % interval if images were recorded."""
    words = f"{found.gain:+.1f} points"
    difference = found.difference
    if difference is None or difference.seeds < 2:
        return words
    low, high = 100 * difference.low, 100 * difference.high
    return f"{words} ({low:+.1f} to {high:+.1f}{', which includes zero' if low <= 0 <= high else ''})"


def stopped_at(history: History) -> dict[int, int]:
    """The number of trials stopped early at each rung, by the rung's epoch in ascending order."""
    found = Counter(trial.last_rung for trial in history.trials.values() if trial.state == "stopped")
    return dict(sorted(found.items()))


def rung_lines(study: StudySpec, history: History) -> list[str]:
    """Each rung's rank correlation with a later epoch, in words."""
    least = study.settings.early_stopping.min_rank_correlation
    lines = []
    for rung, rung_correlation in rung_correlations(history, study.rungs).items():
        known = f"rung {rung}: rank correlation with epoch {rung_correlation.end.later} {rung_correlation.end}"
        if rung_correlation.end.seen is None:
            lines.append(
                f"rung {rung}: rank correlation not known yet ({rung_correlation.end.trials} of {FEWEST_POINTS} trials)"
            )
        elif rung_correlation.end.rho is None:
            lines.append(
                f"rung {rung}: rank correlation unknown, as the scores at epoch {rung_correlation.end.later} hardly"
                f" differ by more than chance ({rung_correlation.end.trials} trials); the rung stops trials"
            )
        elif rung_correlation.end.rho >= least:
            lines.append(f"{known}; the rung stops trials")
        elif rung_correlation.halves(least):
            lines.append(
                f"{known}, below {least:g}, but perhaps by chance; the rung stops trials, and promotes them later if"
                " the correlation proves too low"
            )
        else:
            lines.append(f"{known}, below {least:g}, which is too low: the rung stops no trial")
    return lines


@dataclass(frozen=True)
class Alarm:
    """Something that the user should look at: `kind` is `masking`, `diverged`, `failed` or `floor`."""

    kind: str
    words: str
    trials: tuple[int, ...] = ()


def alarms(study: StudySpec, history: History) -> list[Alarm]:
    """Signs of masked gradients, best trial first; lost trials, by their reason; a floor that no trial reaches."""
    found = [
        Alarm("masking", f"trial {trial.number} may mask its gradients: {words}", (trial.number,))
        for trial in history.ranked()
        for words in masking_alarms(trial)
    ]
    lost: dict[tuple[str, str], list[Trial]] = {}
    for trial in history.trials.values():
        if trial.lost:
            lost.setdefault((trial.status, trial.reason), []).append(trial)
    for (status, reason), trials in lost.items():
        numbers = tuple(trial.number for trial in trials)
        many = f"{len(trials)} trials" if len(trials) > 1 else f"trial {numbers[0]}"
        found.append(Alarm(status, f"{many} {status}: {reason}", numbers))
    best = history.best_trial
    short = study.goal.shortfall(best.scores[best.best_rung]) if best is not None else 0.0
    if short:
        floor = study.settings.constraints.clean_accuracy
        words = (
            f"no trial satisfies the constraint of at least {floor:g} clean accuracy; the closest one is"
            f" {100 * short:.1f} points below"
        )
        found.append(Alarm("floor", words))
    return found
