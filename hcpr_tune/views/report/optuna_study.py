"""A study converted for Optuna's plots: every trial has a value for every dimension, and a score of the same kind.

For the sampler's Optuna adapter, in contrast, a dimension may be missing and a trial may be pruned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hcpr_tune.common.settings import get_dotted, to_plain
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.rung_correlation import rung_correlations
from hcpr_tune.search.spec.dimensions import Choice, Dimension, Params, Range, Value, field_of
from hcpr_tune.search.spec.objectives import OBJECTIVES
from hcpr_tune.search.spec.study import StudySpec

Scores = Callable[[Trial], dict[str, float] | None]
"""The accuracies to show for a trial; None leaves it out."""


def full_params(study: StudySpec, params: Params) -> Params:
    """A value for each searched dimension: the published recipe's if the dimension's condition does not hold."""
    recipe = to_plain(study.recipe)
    return {name: params[name] if name in params else get_dotted(recipe, field_of(name)) for name in study.space}


def drawn_space(study: StudySpec, points: Sequence[Params]) -> dict[str, BaseDistribution]:
    """The axis of each dimension: wide enough for its range and for all points."""
    return {name: _axis(dimension, [point[name] for point in points]) for name, dimension in study.space.items()}


def _axis(dimension: Dimension, values: Sequence[Value]) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(sorted({*dimension.choices, *values}, key=str))
    assert isinstance(dimension, Range)
    ends = [float(value) for value in (*dimension.ends(), *values)]
    low, high = min(ends), max(ends)
    log = dimension.log and low > 0
    return IntDistribution(int(low), int(high), log=log) if dimension.integer else FloatDistribution(low, high, log=log)


def common_epoch(history: History, rungs: Sequence[int], enough: int) -> int:
    """The latest rung with at least `enough` trials, else the rung with most trials (the later in a tie), else 0.

    Of those with the search's own schedule: the others' scores are not comparable.
    """
    trials = [trial for trial in history.trials.values() if not trial.single_schedule]
    counts = {rung: sum(rung in trial.scores for trial in trials) for rung in rungs}
    if late := [rung for rung, count in counts.items() if count >= enough]:
        return max(late)
    most = max(counts.values(), default=0)
    return max((rung for rung, count in counts.items() if count == most), default=0) if most else 0


def compared_at(history: History, epoch: int, rungs: Sequence[int]) -> str:
    """The epoch at which trials are compared, and its rank correlation with the last one."""
    if epoch == rungs[-1]:
        return f"at the last epoch, {epoch}"
    end = rung_correlations(history, rungs)[epoch].end
    known = "the final scores: not known yet" if end.rho is None else f"the scores at epoch {end.later}: {end.rho:.2f}"
    return f"at epoch {epoch} of {rungs[-1]} (rank correlation with {known})"


def at_epoch(epoch: int) -> Scores:
    """Scores of all trials at the same rung, under the search's own schedule."""
    return lambda trial: None if trial.single_schedule else trial.scores.get(epoch)


def best_rung_scores(trial: Trial) -> dict[str, float] | None:
    """The scores of a trial at its best rung."""
    return trial.scores[trial.best_rung] if trial.scores else None


def optuna_study(
    study: StudySpec, history: History, scores: Scores, most: int = 0, among: Iterable[Trial] | None = None
) -> optuna.Study:
    """The scored trials `among` these (default: all) as completed trials of an in-memory Optuna study.

    If there are more than `most`, a fixed sample of them. `target(name)` selects an accuracy.
    """
    trials = history.trials.values() if among is None else among
    scored = [(trial, found) for trial in trials if (found := scores(trial))]
    if 0 < most < len(scored):
        chosen = sorted(random.Random(0).sample(range(len(scored)), most))
        scored = [scored[index] for index in chosen]
    points = [full_params(study, trial.params) for trial, _ in scored]
    space = drawn_space(study, points)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        model = optuna.create_study(directions=["maximize"] * len(OBJECTIVES))
    finally:
        optuna.logging.set_verbosity(level)
    model.add_trials(
        [
            create_trial(
                state=TrialState.COMPLETE,
                values=[found[name] for name in OBJECTIVES],
                params=dict(params),
                distributions=space,
                user_attrs={"trial": trial.number},
            )
            for (trial, found), params in zip(scored, points, strict=True)
        ]
    )
    return model


def target(name: str) -> Callable[[FrozenTrial], float]:
    """The target for Optuna's plots: one of a trial's accuracies."""
    index = OBJECTIVES.index(name)
    return lambda trial: float(trial.values[index])
