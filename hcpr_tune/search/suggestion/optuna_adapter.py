"""The recorded trials as Optuna's trials: in memory for its samplers, and exported to an Optuna storage."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hcpr_tune.search.record.history import History, OldTrial, Trial
from hcpr_tune.search.scheduling.asha import earned_rungs
from hcpr_tune.search.scheduling.config import always_promoted
from hcpr_tune.search.spec.dimensions import Choice, Dimension, Params, Range, Space, Value, active_params
from hcpr_tune.search.spec.study import StudySpec

KIND = " kind"
"""Suffix of the extra parameter that chooses between a range and its extra values."""
IN_RANGE = "range"


class OptunaAdapter:
    """The recorded trials of one study as Optuna's frozen trials, cached while they do not change.

    With `rungs`, a trial is COMPLETE only at full length, and PRUNED with its rung values if it was not promoted or is
    on its way to the next rung. (Optuna ranks every COMPLETE trial above every PRUNED one, so a trial that is promoted
    whatever its score is PRUNED at the rung where it would have been stopped.) Without `rungs`, for samplers that use
    COMPLETE trials only, every trial has its value at the highest rung that all of them have reached, so that all have
    the same fidelity. A trial before its first rung is RUNNING; one that diverged, failed or was killed there is FAIL.
    """

    def __init__(self, study: StudySpec, rungs: bool = True, generation_of: int = 0, on_merits: bool = True) -> None:
        """`generation_of`: population size of a genetic sampler, 0 for others.

        Without `on_merits`, trials that were promoted regardless of their scores have all their rungs, and trainings
        under a single schedule are there too.
        """
        self._study, self._rungs, self._generation_of, self._on_merits = study, rungs, generation_of, on_merits
        self._asha_config = study.asha_config
        self._kept: dict[int, tuple[tuple[Any, ...], FrozenTrial]] = {}

    def trials(self, history: History) -> list[FrozenTrial]:
        """Trials of earlier studies, then of this one, numbered from 0."""
        common = 0 if self._rungs else common_rung(history)
        told = [self._old(old, number, common) for number, old in enumerate(history.old_trials)]
        for trial in history.trials.values():
            # A sampler learns nothing of its trials from trainings under another schedule.
            if not (self._on_merits and trial.single_schedule):
                told.append(self._kept_or_new(trial, history, common, len(told)))
        if self._generation_of:
            _count_generations(told, self._generation_of)
        return told

    def _kept_or_new(self, trial: Trial, history: History, common: int, place: int) -> FrozenTrial:
        # Everything depends on this key alone, except that the rungs of always promoted trials depend on other trials.
        key: tuple[Any, ...] = (trial.status, len(trial.rungs), common, place)
        if always_promoted(trial, history):
            key = (*key, *self._rungs_of(trial, history, common))
        kept = self._kept.get(trial.number)
        if kept is None or kept[0] != key:
            rungs = self._rungs_of(trial, history, common)
            state = self._state(trial, rungs)
            scores = {rung: trial.scores[rung] for rung in rungs}
            attributes = {"source": trial.source, "reason": trial.reason, "replicate_of": trial.replicate_of}
            kept = key, self._frozen(place, state, trial.params, scores, attributes)
            self._kept[trial.number] = kept
        return kept[1]

    def _rungs_of(self, trial: Trial, history: History, common: int) -> list[int]:
        if not self._rungs:
            return [common] * (common in trial.rungs)
        return earned_rungs(history, trial, self._asha_config) if self._on_merits else sorted(trial.rungs)

    def _state(self, trial: Trial, rungs: Sequence[int]) -> TrialState:
        if trial.lost or (not rungs and (trial.status == "killed" or trial.rungs)):
            return TrialState.FAIL
        if not rungs:
            return TrialState.RUNNING
        complete = not self._rungs or rungs[-1] == self._asha_config.rungs[-1]
        return TrialState.COMPLETE if complete else TrialState.PRUNED

    def _old(self, old: OldTrial, number: int, common: int) -> FrozenTrial:
        rungs = sorted(old.scores) if self._rungs else [common] * (common in old.scores)
        state = TrialState.PRUNED
        if old.lost or not rungs:
            state = TrialState.FAIL
        elif not self._rungs or (old.completed and rungs[-1] >= self._study.rungs[-1]):
            state = TrialState.COMPLETE
        scores = {rung: old.scores[rung] for rung in rungs}
        return self._frozen(number, state, old.params, scores, {"source": "an earlier study"})

    def _frozen(
        self,
        number: int,
        state: TrialState,
        params: Params,
        scores: dict[int, dict[str, float]],
        attributes: dict[str, Any],
    ) -> FrozenTrial:
        goal, space = self._study.goal, self._study.space
        judged = scores.get(goal.best_rung(scores), {})
        values = list(goal.values(judged)) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        floors = {f"constraints:{name}": floor - judged[name] for name, floor in goal.floors.items() if judged}
        several = len(goal.objectives) > 1
        now = datetime.fromtimestamp(0)
        return FrozenTrial(
            number=number,
            trial_id=-1 - number,
            state=state,
            value=None,
            values=None if state is TrialState.PRUNED and several else values,
            datetime_start=now,
            datetime_complete=now if state.is_finished() else None,
            params=to_optuna(params, space),
            distributions=distributions_of(params, space),
            user_attrs=attributes,
            system_attrs=floors,
            intermediate_values={} if several else {rung: goal.values(one)[0] for rung, one in scores.items()},
        )


def common_rung(history: History) -> int:
    """The highest rung that every trial with a score has reached; 0 for none.

    If each rung is a separate training, brackets may have no rung in common: then it is the rung that most trials have,
    the lowest one for ties.
    """
    reached = [
        set(trial.rungs)
        for trial in history.trials.values()
        if trial.rungs and not trial.lost and not trial.single_schedule
    ]
    if not reached:
        return 0
    common = set.intersection(*reached)
    if common:
        return max(common)
    return max(sorted(set.union(*reached)), key=lambda rung: sum(rung in rungs for rungs in reached))


def _count_generations(told: Sequence[FrozenTrial], size: int) -> None:
    """Set the generation, which genetic samplers store in trials they suggested, by the order of the trials."""
    complete = [trial for trial in told if trial.state is TrialState.COMPLETE]
    for index, trial in enumerate(complete):
        trial.system_attrs["NSGAIISampler:generation"] = index // size


class OptunaAdapterStorage(InMemoryStorage):
    """Optuna's in-memory storage with existing trials as a list, which spares adding them one by one."""

    def __init__(self, told: list[FrozenTrial]) -> None:
        super().__init__()
        self._told = told

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self.get_trial(trial_id).number += len(self._told)
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        asked = super().get_all_trials(study_id, deepcopy, states)
        return [trial for trial in self._told if states is None or trial.state in states] + asked


def directions(study: StudySpec) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE] * len(study.settings.objective)


def to_optuna(params: Params, space: Space) -> dict[str, Any]:
    """Searched values as Optuna's parameters: a range with extra values takes two, a choice and the number."""
    told: dict[str, Any] = {}
    for name, value in params.items():
        dimension = space[name]
        if not isinstance(dimension, Range) or not dimension.extra_values:
            told[name] = value
        elif value in dimension.extra_values:
            told[name + KIND] = kinds_of(dimension)[1 + dimension.extra_values.index(float(value))]
        else:
            told |= {name + KIND: IN_RANGE, name: value}
    return told


def distributions_of(params: Params, space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the parameters from `to_optuna`."""
    found: dict[str, BaseDistribution] = {}
    for name in to_optuna(params, space):
        if name.endswith(KIND):
            found[name] = CategoricalDistribution(kinds_of(space[name.removesuffix(KIND)]))
        else:
            found[name] = distribution(space[name])
    return found


def kinds_of(dimension: Dimension) -> list[str]:
    """Labels of the range and of each extra value, in full precision if short ones would be equal."""
    extra_values: tuple[float, ...] = getattr(dimension, "extra_values", ())
    short = [f"{value:g}" for value in extra_values]
    return [IN_RANGE, *(short if len(set(short)) == len(short) else map(str, extra_values))]


def distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    assert isinstance(dimension, Range)
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def asked(trial: optuna.Trial, space: Space) -> Params:
    """Ask Optuna's trial for every dimension that exists, given the values before it."""
    params: Params = {}
    for name, dimension in space.items():
        if dimension.active(params):
            params[name] = _ask(trial, name, dimension)
    return active_params(space, params)


def _ask(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Choice):
        chosen: Value = trial.suggest_categorical(name, dimension.choices)  # type: ignore[assignment]  # never None
        return chosen
    assert isinstance(dimension, Range)
    if dimension.extra_values:
        kinds = kinds_of(dimension)
        kind = trial.suggest_categorical(name + KIND, kinds)
        if kind != IN_RANGE:
            return dimension.extra_values[kinds.index(kind) - 1]
    if dimension.integer:
        whole: int = trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
        return whole
    number: float = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return number


def export(study: StudySpec, history: History, storage: Any, name: str, still_running: bool) -> None:
    """Write the trials into an Optuna storage as a study `name`. Trials that no longer run are not left RUNNING."""
    model = optuna.create_study(study_name=name, storage=storage, directions=directions(study))
    epoch_began = datetime.fromtimestamp
    for frozen, trial in zip(
        OptunaAdapter(study, on_merits=False).trials(_own(history)), history.trials.values(), strict=True
    ):
        if frozen.state is TrialState.RUNNING and not (still_running and trial.job is not None):
            frozen.state = TrialState.FAIL
        times = [event["time"] for event in trial.epochs.values()]
        frozen.datetime_start = epoch_began(min(times, default=0))
        frozen.datetime_complete = epoch_began(max(times, default=0)) if frozen.state.is_finished() else None
        if frozen.state is TrialState.PRUNED and len(study.settings.objective) > 1:
            # Optuna has no pruning with several objectives.
            frozen.user_attrs = {**frozen.user_attrs, "stopped_at_epoch": trial.last_rung}
        model.add_trial(frozen)


def _own(history: History) -> History:
    """The history without trials of earlier studies."""
    own = History(history.last_epoch, history.goal)
    own.trials, own.audited = history.trials, history.audited
    return own
