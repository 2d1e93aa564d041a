"""The samplers: how each suggests points, and what it is told. A user's own is the same object.

Optuna is not imported before a sampler is built, so that its name can be checked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.common.text import one_line
from hcpr_tune.errors import InputError
from hcpr_tune.training.plugins import accepted, call, load

if TYPE_CHECKING:
    import optuna

    from hcpr_tune.search.spec.dimensions import Params
    from hcpr_tune.search.spec.study import StudySpec

WHAT = "sampler.name"


@dataclass(frozen=True)
class SamplerSpec:
    """A source of points: an Optuna sampler, or a function that needs no Optuna.

    `build(study, seed)` returns an Optuna sampler, anew for each suggestion. `point(study, number, attempt, trials)`
    returns the searched values of trial `number` of `trials` so far; `attempt` counts how often the values were those
    of another trial.
    """

    build: Callable[[StudySpec, int], optuna.samplers.BaseSampler] | None = None
    point: Callable[[StudySpec, int, int, int], Params] | None = None
    understands_rungs: bool = False
    """Whether it is told trials that were not promoted as PRUNED with their rung values, instead of as COMPLETE with
    their value at a common rung."""
    generation: Callable[[StudySpec], int] | None = None
    """Trials in a generation, of genetic samplers."""
    learns: bool = True
    """Whether its points depend on the results; otherwise it is told nothing, and costs the same at any size."""


def population_size(study: StudySpec) -> int:
    """Population size of NSGA-II."""
    return max(4, study.settings.sampler.startup_trials)


def trial_seed(study: StudySpec, number: int, attempt: int) -> int:
    """The seed of one suggestion."""
    return derive_seed(study.settings.seed, "trial", number, *([attempt] if attempt else [])) % 2**32


def _tpe(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    # Groups handle conditional dimensions.
    conditional = any(dimension.when or getattr(dimension, "extra_values", ()) for dimension in study.space.values())
    startup = study.settings.sampler.startup_trials
    return optuna.samplers.TPESampler(
        n_startup_trials=startup, multivariate=True, group=conditional, constant_liar=True, seed=seed
    )


def _gp(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    startup = study.settings.sampler.startup_trials
    return optuna.samplers.GPSampler(n_startup_trials=startup, seed=seed, warn_independent_sampling=False)


def _nsgaii(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.NSGAIISampler(population_size=population_size(study), seed=seed)


def _random(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


def _qmc(study: StudySpec, number: int, attempt: int, trials: int) -> Params:
    from hcpr_tune.search.suggestion.initial_points import low_discrepancy_point

    return low_discrepancy_point(study, number + attempt * trials)


SAMPLERS = {
    "tpe": SamplerSpec(_tpe, understands_rungs=True),
    "random": SamplerSpec(_random, learns=False),
    "qmc": SamplerSpec(point=_qmc, learns=False),
    "gp": SamplerSpec(_gp),
    "nsgaii": SamplerSpec(_nsgaii, generation=population_size),
}
"""The samplers by name."""


def sampler_spec(name: str) -> SamplerSpec:
    """The sampler of that name, or the user's: package.module:name is an Optuna sampler class, a function that returns
    a sampler, or a `SamplerSpec`.

    Raises `InputError` if it cannot be imported.
    """
    return SAMPLERS.get(name) or _own(name)


def _own(name: str) -> SamplerSpec:
    factory = load(name, WHAT, SamplerSpec)
    if isinstance(factory, SamplerSpec):
        return factory

    def build(study: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
        """Called with those of `seed`, `startup_trials` and `n_startup_trials` that it takes."""
        from optuna.samplers import BaseSampler

        startup = study.settings.sampler.startup_trials
        offered = {"seed": seed, "startup_trials": startup, "n_startup_trials": startup}
        sampler = call(factory, name, WHAT, **accepted(factory, offered))
        if not isinstance(sampler, BaseSampler):
            raise InputError(
                f"{WHAT} {name} must return an Optuna sampler, got {one_line(type(sampler).__name__)}; return one"
            )
        return sampler

    return SamplerSpec(build)
