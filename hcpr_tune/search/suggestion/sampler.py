"""Suggestions by Optuna's samplers, as a pure function of the study, the trial's number and the recorded results.

The generator is seeded for each suggestion, so that a restart neither repeats nor changes a draw. Optuna's study is in
memory and rebuilt from the record.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.text import first_line, one_line
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import PRIOR, History, Source
from hcpr_tune.search.spec.space import Params
from hcpr_tune.search.spec.study import Sampler, StudySpec
from hcpr_tune.search.suggestion.initial_points import (
    follows_prior,
    fresh,
    low_discrepancy_point,
    planned_point,
    with_priors,
)

if TYPE_CHECKING:
    import optuna

    from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapter

    Build = Callable[[StudySpec, int], optuna.samplers.BaseSampler]


@dataclass(frozen=True)
class Kind:
    """How an Optuna sampler is built, and how trials that were not promoted are shown to it.

    With `understands_rungs` these are PRUNED with their rung values, otherwise COMPLETE with their value at a common
    rung. One that does not learn is shown no trials, so that its suggestions cost the same at any size. `point` is for
    samplers that do not need Optuna: a function of trial number, attempt and number of trials.
    """

    build: Build | None = None
    learns: bool = True
    understands_rungs: bool = False
    genetic: bool = False
    point: Callable[[StudySpec, int, int, int], Params] | None = None


def _tpe(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    # Groups handle conditional dimensions.
    conditional = any(dimension.when or getattr(dimension, "extra_values", ()) for dimension in study.space.values())
    startup = study.settings.sampler.startup_trials
    return optuna.samplers.TPESampler(
        n_startup_trials=startup, multivariate=True, group=conditional, constant_liar=True, seed=seed
    )


def _random(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


def _gp(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    startup = study.settings.sampler.startup_trials
    return optuna.samplers.GPSampler(n_startup_trials=startup, seed=seed, warn_independent_sampling=False)


def population_size(settings: Sampler) -> int:
    """Population size of NSGA-II."""
    return max(4, settings.startup_trials)


def _nsgaii(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.NSGAIISampler(population_size=population_size(study.settings.sampler), seed=seed)


def _by_path(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    """A user's factory or class, called with those of `seed`, `startup_trials` and `n_startup_trials` that it takes."""
    from optuna.samplers import BaseSampler

    from hcpr_tune.training.plugins import call, load

    path, what = study.settings.sampler.name, "sampler.name"
    factory = load(path, what)
    try:
        takes: Iterable[str] = inspect.signature(factory).parameters
    except ValueError:  # built-in types may have no signature
        takes = ()
    startup = study.settings.sampler.startup_trials
    offered = {"seed": seed, "startup_trials": startup, "n_startup_trials": startup}
    sampler = call(factory, path, what, **{name: value for name, value in offered.items() if name in takes})
    if not isinstance(sampler, BaseSampler):
        raise InputError(
            f"{what} {path} must return an Optuna sampler, got {one_line(type(sampler).__name__)}; return one"
        )
    return sampler


def _seed(study: StudySpec, number: int, attempt: int) -> int:
    return derive_seed(study.settings.seed, "trial", number, *([attempt] if attempt else [])) % 2**32


def _qmc(study: StudySpec, number: int, attempt: int, trials: int) -> Params:
    return low_discrepancy_point(study, number + attempt * trials)


KINDS = {
    "tpe": Kind(_tpe, understands_rungs=True),
    "random": Kind(_random, learns=False),
    "qmc": Kind(point=_qmc),
    "gp": Kind(_gp),
    "nsgaii": Kind(_nsgaii, genetic=True),
}
"""The samplers by name. Any other name is the path of a user's sampler, which gets values at a common rung."""


def kind_of(study: StudySpec) -> Kind:
    return KINDS.get(study.settings.sampler.name, Kind(_by_path))


class Suggester:
    """Suggests the points of one study. Its state is only a cache: a new instance suggests the same points."""

    def __init__(self, study: StudySpec) -> None:
        self._study, self._kind = study, kind_of(study)
        self._told: OptunaAdapter | None = None

    def suggest(self, number: int, history: History) -> tuple[Params, Source]:
        """The searched values of trial `number`, given the recorded trials before it, and their source."""
        planned = planned_point(self._study, history)
        if planned is not None:
            return planned
        name = self._study.settings.sampler.name
        sampled = history.by_source[name] + history.by_source[PRIOR]
        guided = follows_prior(self._study, number, sampled)

        def attempt(which: int) -> Params:
            params = self._sample(number, which, history) if name in KINDS else self._of_user(number, which, history)
            return with_priors(self._study, number + (which << 32), params) if guided else params

        return fresh(attempt, history.has_begun), PRIOR if guided else name

    def _of_user(self, number: int, attempt: int, history: History) -> Params:
        """Like `_sample`, for a user's sampler. Raises `PluginError` for any exception."""
        from hcpr_tune.training.plugins import PluginError, did, guarded, users_traceback

        try:
            with guarded():
                return self._sample(number, attempt, history)
        except PluginError:
            raise
        except Exception as error:
            name = self._study.settings.sampler.name
            message = f"sampler.name {name}: suggesting trial {number} {did(error)}; fix it, then go on by --resume"
            raise PluginError(message, users_traceback(error)) from error

    def _sample(self, number: int, attempt: int, history: History) -> Params:
        if self._kind.point is not None:
            return self._kind.point(self._study, number, attempt, len(history.trials))
        assert self._kind.build is not None
        import optuna

        from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapterStorage, asked, directions

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = _seed(self._study, number, attempt)
        with warnings.catch_warnings():
            # Multivariate TPE and the constant liar raise experimental warnings.
            warnings.simplefilter("ignore")
            sampler = self._kind.build(self._study, seed)
            storage = OptunaAdapterStorage(self._tell().trials(history) if self._kind.learns else [])
            model = optuna.create_study(storage=storage, sampler=sampler, directions=directions(self._study))
            return asked(model.ask(), self._study.space)

    def _tell(self) -> OptunaAdapter:
        from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapter

        if self._told is None:
            settings = self._study.settings
            # Optuna has no pruning with several objectives, so every sampler gets values at a common rung.
            rungs = self._kind.understands_rungs and len(settings.objective) == 1
            self._told = OptunaAdapter(
                self._study, rungs, population_size(settings.sampler) if self._kind.genetic else 0
            )
        return self._told


def check_sampler(study: StudySpec) -> None:
    """Raises `InputError` if the sampler cannot be built or cannot handle the study's objectives."""
    name = study.settings.sampler.name
    if name in KINDS:
        return
    rungs = {rung: {"robust_accuracy": 0.5, "clean_accuracy": 0.5} for rung in study.rungs}
    from hcpr_tune.search.record.history import OldTrial
    from hcpr_tune.training.plugins import guarded

    history = History(study.recipe.epochs, study.goal)
    history.old_trials = [
        OldTrial(low_discrepancy_point(study, index), rungs, completed=True, lost=False)
        for index in range(study.settings.sampler.startup_trials + 2)
    ]
    suggester = Suggester(study)
    try:
        with guarded():
            suggester._sample(1, 0, history)
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"sampler.name {name} cannot search this study (objective {', '.join(study.settings.objective)}): {reason};"
            f" choose one of {', '.join(KINDS)}"
        ) from None
