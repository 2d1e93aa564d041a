"""How long a verdict would take."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from hcpr_tune.common.statistics import smallest_difference
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.curves.costs import Costs, costs_of_records
from hcpr_tune.simulation.curves.recorded import relative_seconds
from hcpr_tune.simulation.search import PlannedTiming
from hcpr_tune.simulation.verdict import SimulatedModels, VerdictCosts, VerdictJobs, verdict_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool
from hcpr_tune.training.attacks.cascade import CLEAN, gradient_steps
from hcpr_tune.training.data.registry import DATASETS
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.verdict.decision.agenda import is_settled
from hcpr_tune.verdict.plan import Model, Plan
from hcpr_tune.verdict.state import State
from hcpr_tune.views.verdicts import smallest_words

MASKING_STEPS = 110
"""Gradient steps of the gradient masking check."""
GUESSED_SCORE = 0.5
"""The robust accuracy of a candidate that the search has not scored: a model from elsewhere, a baseline."""


@dataclass(frozen=True)
class Power:
    """The smallest difference of two recipes that a verdict can see on a split with 80 % power, as a share."""

    split: str
    images: int
    seeds: int
    difference: float

    def __str__(self) -> str:
        return f"power        {smallest_words(self.split, self.images, self.seeds, self.difference)}"


def power_of(study: StudySpec, history: History, plan: Plan, known: State) -> list[Power]:
    """What the plan can see on each split that it attacks. Empty for a study without an evaluated epoch."""
    if not any("total_validation" in event for trial in history.trials.values() for event in trial.epochs.values()):
        return []
    images = images_of(study, history, plan, known)
    splits = ("validation", "test") if plan.test else ("validation",)
    return [Power(one, images[one], plan.seeds, smallest_difference(images[one], plan.seeds)) for one in splits]


@dataclass(frozen=True)
class VerdictForecast:
    """How long a verdict would take: an estimate from the times of the search's own epochs and evaluations."""

    workers: int
    hours: float
    worker_hours: float
    """Hours that jobs hold workers, as `verdict.worker_hours` counts them."""
    trainings: int
    training_hours: float
    """Worker hours for trainings; the others are for attacks and checks."""
    attacked: int
    """Number of attacked images, counted once for each model."""
    finished: bool
    """Whether all is done before the time or the worker hours that the plan allows are spent."""
    smallest_differences: list[Power]
    """What the verdict can see."""

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def forecast_verdict(
    study: StudySpec, history: History, plan: Plan, workers: int, known: State | None = None
) -> VerdictForecast:
    """How long `plan` would take on `workers` workers, after what is `known`, the verdict's state so far.

    Trainings take as long as the search's did, and so does each step of an attack; candidates survive as in the search.
    Raises `InputError` for a study without an evaluated epoch.
    """
    known = State() if known is None else known
    costs, classes = recorded_costs(study, history), classes_of(study, history, known)
    models = SimulatedModels(images_of(study, history, plan, known), scores_of(plan), survival_of(plan), classes)
    jobs, timing = (
        VerdictJobs(models, verdict_costs(history, plan, costs, classes)),
        PlannedTiming(costs, study, workers),
    )
    state = verdict_simulation(plan, jobs, timing, WorkerPool(workers), state=deepcopy(known)).run()
    return VerdictForecast(
        workers,
        hours=state.seconds / 3600,
        worker_hours=(state.worker_seconds - known.worker_seconds) / 3600,
        trainings=_trainings(state) - _trainings(known),
        training_hours=(_training_seconds(state) - _training_seconds(known)) / 3600,
        attacked=_attacked(state) - _attacked(known),
        finished=is_settled(plan, state),
        smallest_differences=power_of(study, history, plan, known),
    )


def _trainings(state: State) -> int:
    return sum(model.finished and not model.weights for model in state.models.values())


def _training_seconds(state: State) -> float:
    return sum(model.seconds for model in state.models.values())


def _attacked(state: State) -> int:
    return sum(len(chunk.labels) for chunk in state.chunks.values())


def recorded_costs(study: StudySpec, history: History) -> Costs:
    """What the epochs of a search took."""
    epochs = [event for trial in history.trials.values() for event in trial.epochs.values()]
    if not any("robust_correct_validation" in event for event in epochs):
        raise InputError("nothing is known of how long an epoch takes: no trial of this study was evaluated")
    return costs_of_records([epochs], 0, "the study's own epochs")


def verdict_costs(history: History, plan: Plan, costs: Costs, classes: int) -> VerdictCosts:
    """The times of a verdict. A step of an attack takes an image as long as a step of the search's evaluation did."""
    relative = relative_seconds(history)
    trials = {candidate.name: candidate.trial for candidate in plan.candidates}

    def epochs(model: Model) -> list[float]:
        factor = relative.get(trials.get(model.candidate) or 0, 1.0)
        return [factor * seconds for seconds in costs.epochs_of_recipe(model.recipe, lambda epoch: True)]

    step = step_seconds(history, costs, plan.candidates[0].recipe)
    return VerdictCosts(
        epochs,
        {name: step * count for name, count in gradient_steps(classes).items()},
        masking=step * MASKING_STEPS * plan.candidates[0].recipe.evaluation.masking_images,
        start=costs.start,
        job=costs.job,
        report=costs.report,
    )


def step_seconds(history: History, costs: Costs, recipe: Recipe) -> float:
    """Seconds of one gradient step for one image, as in the evaluations of the search."""
    return costs.evaluation / evaluated_images(history) / (recipe.evaluation.restarts * recipe.evaluation.steps + 1)


def evaluated_images(history: History) -> int:
    """Number of validation images that an epoch of the search was evaluated on."""
    events = (event for trial in history.trials.values() for event in trial.epochs.values())
    return next(int(event["total_validation"]) for event in events if "total_validation" in event)


def images_of(study: StudySpec, history: History, plan: Plan, state: State) -> dict[str, int]:
    """Number of images that are attacked by split: as recorded, else from the sizes of the data set's parts."""
    task = study.recipe.task
    evaluated = evaluated_images(history)
    training, test = DATASETS[task.dataset].images if task.dataset in DATASETS else (0, 0)
    if study.recipe.evaluation.images and training:
        evaluated = round((task.images or training) * task.validation_fraction)
    test = test or round(evaluated * task.test_fraction / task.validation_fraction)
    found = {
        "validation": min(plan.images, evaluated) or evaluated,
        "test": min(plan.test_images, test) or test,
    }
    return {split: state.totals.get(plan.scope(split), number) for split, number in found.items()}


def classes_of(study: StudySpec, history: History, state: State) -> int:
    """Number of classes: as workers have reported it, else that of the built-in data set."""
    spec = DATASETS.get(study.recipe.task.dataset)
    if history.model_inputs is not None:
        return history.model_inputs["classes"]
    return state.classes if spec is None else spec.classes


def scores_of(plan: Plan) -> Callable[[Model, int], tuple[float, float]]:
    """Robust and clean accuracy after an epoch: best at the end, where they are as in the search."""
    survival = survival_of(plan)

    def scores(model: Model, epoch: int) -> tuple[float, float]:
        share = epoch / model.recipe.last_epoch
        return share * survival(model, ""), share * survival(model, CLEAN)

    return scores


def survival_of(plan: Plan) -> Callable[[Model, str], float]:
    """The share of images that survive an attack: as many as in the search, and before any attack a few more."""
    scores = {candidate.name: candidate.score for candidate in plan.candidates}

    def survival(model: Model, attack: str) -> float:
        score = scores.get(model.candidate)
        robust = GUESSED_SCORE if score is None else score
        return (1 + robust) / 2 if attack == CLEAN else robust

    return survival
