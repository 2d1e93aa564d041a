"""Suggestions: a pure function of the study, the trial's number and the recorded results. The modelling is Optuna's.

A generator is seeded anew for each suggestion, so that a restart can neither repeat nor change a draw. Optuna's study lives in
memory and is rebuilt from the record.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from hcpr_tune.search.halving import earned_rungs
from hcpr_tune.search.record import History, Trial
from hcpr_tune.search.space import Choice, Dimension, Params
from hcpr_tune.search.study import Sampler, Study
from hcpr_tune.seeds import derive_seed

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


def suggest(study: Study, number: int, history: History) -> Params:
    """The searched values of trial `number`, given what is recorded of the trials before it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        # Multivariate TPE and the constant liar are marked experimental; they are chosen on purpose.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = OPTUNA_SAMPLERS[study.settings.sampler.name](
            study.settings.sampler, derive_seed(study.settings.seed, "trial", number)
        )
        model = optuna_study(study, history, sampler)
        distributions = {name: _distribution(dimension) for name, dimension in study.space.items()}
        trial = model.ask(distributions)
    return dict(trial.params)


def _tpe(settings: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(
        n_startup_trials=settings.startup_trials, multivariate=True, constant_liar=True, seed=seed % 2**32
    )


def _random(settings: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed % 2**32)


OPTUNA_SAMPLERS: dict[str, Callable[[Sampler, int], optuna.samplers.BaseSampler]] = {"tpe": _tpe, "random": _random}


def optuna_study(study: Study, history: History, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """The recorded trials as an Optuna study in memory.

    Optuna is told how far each trial got on its own merits: COMPLETE only at full length, PRUNED with its rung values where it was not
    promoted or is on its way to the next rung, RUNNING before its first rung, FAIL where it diverged or failed. Optuna ranks every
    COMPLETE trial above every PRUNED one; a trial that is promoted whatever its score is told as PRUNED where it would have been stopped.
    """
    import optuna

    told = optuna.create_study(direction="maximize", sampler=sampler, study_name=study.fingerprint)
    distributions = {name: _distribution(dimension) for name, dimension in study.space.items()}
    reduction_factor = study.settings.early_stopping.reduction_factor
    for trial in history.trials.values():
        rungs = earned_rungs(history, trial, study.rungs, reduction_factor)
        told.add_trial(_frozen_trial(trial, rungs, study.rungs[-1], distributions))
    return told


def _frozen_trial(
    trial: Trial, rungs: dict[int, float], last_epoch: int, distributions: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    if trial.status in ("diverged", "failed"):
        state = TrialState.FAIL
    elif last_epoch in rungs:
        state = TrialState.COMPLETE
    else:
        state = TrialState.PRUNED if rungs else TrialState.RUNNING
    return create_trial(
        state=state,
        params=trial.params,
        distributions=distributions,
        value=max(rungs.values()) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        intermediate_values=rungs,
        user_attrs={"source": trial.source, "reason": trial.reason},
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
