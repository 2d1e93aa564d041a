"""Suggestions by Optuna's samplers, as a pure function of the study, the trial's number and the recorded results.

The generator is seeded for each suggestion, so that a restart neither repeats nor changes a draw. Optuna's study is in
memory and rebuilt from the record.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING

from hcpr_tune.common.text import first_line, one_line
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import PRIOR, History, OldTrial, Source
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.suggestion.initial_points import (
    follows_prior,
    fresh,
    low_discrepancy_point,
    planned_point,
    with_priors,
)
from hcpr_tune.search.suggestion.registry import SAMPLERS, WHAT, SamplerSpec, sampler_spec, trial_seed
from hcpr_tune.training.plugins import guarded, reporting

if TYPE_CHECKING:
    from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapter


class Suggester:
    """Suggests the points of one study. Its state is only a cache: a new instance suggests the same points."""

    def __init__(self, study: StudySpec) -> None:
        self._study = study
        self._told: OptunaAdapter | None = None

    @cached_property
    def _spec(self) -> SamplerSpec:
        """A user's sampler is imported only when it is needed."""
        return sampler_spec(self._study.settings.sampler.name)

    def suggest(self, number: int, history: History) -> tuple[Params, Source]:
        """The searched values of trial `number`, given the recorded trials before it, and their source."""
        planned = planned_point(self._study, history)
        if planned is not None:
            return planned
        name = self._study.settings.sampler.name
        sampled = history.by_source[name] + history.by_source[PRIOR]
        guided = follows_prior(self._study, number, sampled)

        def attempt(which: int) -> Params:
            params = self._sample(number, which, history) if name in SAMPLERS else self._of_user(number, which, history)
            return with_priors(self._study, number + (which << 32), params) if guided else params

        return fresh(attempt, history.has_begun), PRIOR if guided else name

    def _of_user(self, number: int, attempt: int, history: History) -> Params:
        """Like `_sample`, for a user's sampler. Raises `PluginError` for any exception, and for a point of no trial."""
        what, space = f"{WHAT} {self._study.settings.sampler.name}: suggesting trial {number}", self._study.space
        with reporting(what, "fix it, then continue with --resume"):
            params = self._sample(number, attempt, history)
            active = {name: space[name] for name in space if space[name].active(params)}
            if params.keys() != active.keys() or not all(one.holds(params[name]) for name, one in active.items()):
                raise ValueError(f"a point outside the search space: {one_line(repr(params))}")
            return params

    def _sample(self, number: int, attempt: int, history: History) -> Params:
        if self._spec.point is not None:
            return self._spec.point(self._study, number, attempt, len(history.trials))
        assert self._spec.build is not None
        import optuna

        from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapterStorage, asked, directions

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = trial_seed(self._study, number, attempt)
        with warnings.catch_warnings():
            # Multivariate TPE and the constant liar raise experimental warnings.
            warnings.simplefilter("ignore")
            sampler = self._spec.build(self._study, seed)
            storage = OptunaAdapterStorage(self._tell().trials(history) if self._spec.learns else [])
            model = optuna.create_study(storage=storage, sampler=sampler, directions=directions(self._study))
            return asked(model.ask(), self._study.space)

    def _tell(self) -> OptunaAdapter:
        from hcpr_tune.search.suggestion.optuna_adapter import OptunaAdapter

        if self._told is None:
            # Optuna has no pruning with several objectives, so every sampler gets values at a common rung.
            rungs = self._spec.understands_rungs and len(self._study.settings.objective) == 1
            generation = self._spec.generation
            self._told = OptunaAdapter(self._study, rungs, 0 if generation is None else generation(self._study))
        return self._told


def check_sampler(study: StudySpec) -> None:
    """Raises `InputError` if the sampler cannot be built or cannot handle the study's objectives."""
    name = study.settings.sampler.name
    if name in SAMPLERS:
        return
    rungs = {rung: {"robust_accuracy": 0.5, "clean_accuracy": 0.5} for rung in study.rungs}
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
            f"{WHAT} {name} cannot search this study (objective {', '.join(study.settings.objective)}): {reason};"
            f" choose one of {', '.join(SAMPLERS)}"
        ) from None
