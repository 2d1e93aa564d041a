"""The top of ASHA's ladder: which recipe is trained again on which seed, and which is the search's answer.

Pure functions of the study and the record, like `scheduling.asha`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, NamedTuple

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.events.search import Estimate
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.selection.posterior import Estimated, Score, estimates
from hcpr_tune.search.spec.study import StudySpec

SEEDS_FROM = 2**20
"""Seeds of replicates begin here. Verdicts use the study's seed plus small numbers, and must not meet them."""
ROBUST = "robust_accuracy"
MOST_SCORES = 300
"""The posterior takes O(n^3): of more scores, those of the trials that were trained longest, then of the best."""


class Replicate(NamedTuple):
    """Train the recipe of trial `of` again, on this seed."""

    of: int
    seed: int


def replicate_seed(study: StudySpec, index: int) -> int:
    """The seed of each recipe's replicate number `index`: the same for all recipes, which are compared in pairs."""
    return SEEDS_FROM + derive_seed(study.settings.seed, "replicate", index) % 2**30


def next_replicate(study: StudySpec, history: History, exploring: bool) -> Replicate | Literal["wait", "finished"]:
    """The next replicate to start; `exploring`: whether jobs of the search itself still run.

    A finalist is chosen when its training begins, from all that is recorded then: one whose first replicate disappoints
    makes room for another. All get their first seed before one gets its second, in case the time ends; the published
    recipe, which is compared with whichever wins, may begin while a finalist may still come.
    """
    wanted = study.replicates
    if not wanted or not history.scored:
        return "wait" if exploring else "finished"
    begun = _begun(history)
    if exploring:
        return "wait" if begun[0] else Replicate(0, replicate_seed(study, 0))
    finalists, order = study.settings.replication.finalists, list[int]()
    if _since_the_last_search(history) < wanted * finalists:
        order = [number for number in _by_estimate(study, history) if number][:finalists]
    open_ones = [number for number in (*order, 0) if begun[number] < wanted]
    if not open_ones:
        return "wait" if history.running_jobs else "finished"
    chosen = min(open_ones, key=lambda number: (begun[number], open_ones.index(number)))
    return Replicate(chosen, replicate_seed(study, begun[chosen]))


def _since_the_last_search(history: History) -> int:
    """How many replicates of finalists were begun after the latest trial of the search, which may have been extended.

    So an extended search replicates new finalists too, and finalists that keep changing come to an end.
    """
    latest = max(number for number, trial in history.trials.items() if trial.replicate_of is None)
    return sum(trial.number > latest and trial.replicate_of != 0 for trial in history.replicates)


def _begun(history: History) -> Counter[int]:
    """Replicates to the present last epoch by the trial they repeat; lost ones count, as they tell something too."""
    return Counter(
        trial.replicate_of
        for trial in history.replicates
        if trial.replicate_of is not None and trial.target in (0, history.last_epoch)
    )


def answer(study: StudySpec, history: History) -> tuple[int, list[Estimate]] | None:
    """The trial whose recipe is expected to be the best, and the estimates of those compared, best first.

    Those trained again on fresh seeds are compared with those with the best scores, whose weights are kept (of these
    the ones that reached the last epoch, if there are any): where time was short, the recipes that were trained again
    may be few and disappoint. None with two objectives, or without any score.
    """
    if len(study.settings.objective) > 1 or not history.scored:
        return None
    found = expected(study, history)
    again = {number for number in found if history.replicates_of(number)}
    leading = {trial.number for trial in history.ranked()[: study.settings.keep_weights]} & found.keys()
    complete = {number for number in leading if history.last_epoch in history.trials[number].rungs}
    compared = again | complete or leading or set(found)
    order = _ordered(history, found, compared)
    return order[0], [
        {"trial": number, "mean": found[number].mean, "deviation": found[number].deviation} for number in order
    ]


def _by_estimate(study: StudySpec, history: History) -> list[int]:
    found = expected(study, history)
    return _ordered(history, found, found)


def _ordered(history: History, found: dict[int, Estimated], numbers: Iterable[int]) -> list[int]:
    """By what is expected of them, best first; recipes that missed a floor at their latest rung come last."""

    def key(number: int) -> tuple[float, float, int]:
        trial = history.trials[number]
        return history.goal.shortfall(trial.scores[trial.last_rung]), -found[number].mean, number

    return sorted(numbers, key=key)


@dataclass
class _Known:
    """An index of a history: the estimates for its first `scores` scores."""

    scores: tuple[int, int] = (0, 0)
    found: dict[int, Estimated] | None = None


def expected(study: StudySpec, history: History) -> dict[int, Estimated]:
    """What each recipe is expected to score at the end, on a fresh seed under the single schedule; by its first trial.

    Of the trials with a score that were not lost or killed. Computed once for each state of the scores.
    """
    known = history.index(_Known)
    state = sum(len(trial.rungs) for trial in history.trials.values()), len(history.trials)
    if known.found is None or known.scores != state:
        known.scores, known.found = state, _expected(study, history)
    return known.found


def _expected(study: StudySpec, history: History) -> dict[int, Estimated]:
    trials = [trial for trial in history.trials.values() if trial.rungs and not trial.lost]
    trials = _most_telling(history, trials)
    first: dict[int, int] = {}
    recipes: list[int] = []
    scores: list[Score] = []
    levels = {rung: level for level, rung in enumerate(study.rungs)}
    on_robust = study.goal.objectives[0] == ROBUST
    shift = _shift(trials)
    for trial in trials:
        of = trial.number if trial.replicate_of is None else trial.replicate_of
        if of not in first:
            first[of] = len(recipes)
            recipes.append(of)
        for rung, accuracy in trial.scores.items():
            level = len(levels) if trial.single_schedule else levels[rung]
            if trial.single_schedule and rung != study.rungs[-1]:
                continue  # from before the search was extended to longer trials
            total = trial.at_rung(rung)["total_validation"]
            value = history.goal.values(accuracy)[0]
            graded = _graded(trial, rung) if on_robust else None
            if graded is not None:
                value, variance = graded.value + shift, graded.variance
            else:
                variance = None
            scores.append(Score(first[of], trial.number, level, value, total, variance))
    if not scores:
        return {}
    params = [history.trials[number].params for number in recipes]
    found = estimates(study.space, params, scores, len(levels) + 1)
    killed = {number for number in recipes if history.trials[number].status == "killed"}
    return {
        number: one
        for number, one in zip(recipes, found, strict=True)
        if number not in killed and _scored(history, number)
    }


class _Graded(NamedTuple):
    """The mean share of survivors over several radii, and the variance of that of one image."""

    value: float
    variance: float


def _graded(trial: Trial, rung: int) -> _Graded | None:
    """None where only epsilon was attacked.

    Who survives at one radius survives at all smaller ones, so the variance follows from the counts: of two radii, the
    larger one's survivors are those who survive at both.
    """
    event = trial.at_rung(rung)
    counts = event.get("survivors_validation")
    if not counts:
        return None
    shares = [count / event["total_validation"] for _, count in counts]
    mean = fmean(shares)
    second = sum((2 * place + 1) * share for place, share in enumerate(shares)) / len(shares) ** 2
    return _Graded(mean, max(0.0, second - mean**2))


def _shift(trials: Iterable[Trial]) -> float:
    """From the mean over radii to the accuracy at epsilon, the median over trainings that did not collapse."""
    differences = [
        trial.rungs[rung] - graded.value
        for trial in trials
        for rung in trial.rungs
        if not trial.collapsed and (graded := _graded(trial, rung)) is not None
    ]
    return median(differences) if differences else 0.0


def _scored(history: History, number: int) -> bool:
    return bool(history.trials[number].rungs)


def _most_telling(history: History, trials: list[Trial]) -> list[Trial]:
    """At most so many that they have `MOST_SCORES` scores, in the order of their numbers."""
    if sum(len(trial.rungs) for trial in trials) <= MOST_SCORES:
        return trials

    def key(trial: Trial) -> tuple[bool, int, float, float, int]:
        return (
            not trial.single_schedule,
            -trial.last_rung,
            *history.goal.place(trial.scores[trial.last_rung]),
            trial.number,
        )

    kept: list[Trial] = []
    count = 0
    for trial in sorted(trials, key=key):
        count += len(trial.rungs)
        if count > MOST_SCORES:
            break
        kept.append(trial)
    return sorted(kept, key=lambda trial: trial.number)
