"""What a verdict evaluates, and by which rules. Plan and record alone determine what to do next (`agenda.py`)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from hcpr_tune.common.settings import set_dotted, to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.methods.registry import METHODS, TABLES
from hcpr_tune.training.recipe import Recipe, Schedule, recipe_from_plain
from hcpr_tune.verdict.sizing import Work, measured_speed, size_verdict

Role = Literal["finalist", "published", "ablation", "compared", "given"]
PUBLISHED, PUBLISHED_COEFFICIENTS, PACE_0 = "published", "published coefficients", "pace 0"
TEST_SEEDS = 1_000
"""How far the seeds for the test images lie above those that choose the winner, of which there are at most as many."""
COEFFICIENTS = ("method", "coefficients", *TABLES, "pace", "consistency", "attack", "model")
"""Tables and fields of a recipe that belong to a method. The others (optimiser, averaging, ...) are common to all."""


@dataclass(frozen=True)
class Candidate:
    """A recipe to evaluate. `score` and `params`: its robust accuracy on validation and its values in the search.

    An external model has `weights`, the hash of its file. It can win only if it is evaluated alone, with role `given`:
    a study's winner is a recipe that can be trained again.
    """

    name: str
    role: Role
    recipe: Recipe
    trial: int | None = None
    score: float | None = None
    params: Mapping[str, Any] | None = None
    weights: str = ""

    def model(self, seed: int) -> Model:
        """The model of one seed, always the same object, so that its id is computed once."""
        if seed not in self._models:
            recipe = self.recipe if self.weights else replace(self.recipe, seed=seed)
            self._models[seed] = Model(self.name, seed, recipe, self.weights)
        return self._models[seed]

    @cached_property
    def _models(self) -> dict[int, Model]:
        return {}


@dataclass(frozen=True)
class Model:
    """A candidate's recipe with a seed: what is trained and attacked."""

    candidate: str
    seed: int
    recipe: Recipe
    weights: str = ""

    @cached_property
    def id(self) -> str:
        """A hash of everything that determines the model, so that none is trained twice. Cached: it is used often."""
        text = json.dumps([to_plain(self.recipe), self.weights], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Plan:
    """What to train and attack. `candidates` are started in this order.

    seeds: for the winner and its baseline, and as many fresh ones for the test images; other_seeds: for the others, and
    to choose the winner by. cascade: the attacks that pick the winner on
    validation (see `training.attacks.cascade`). images, test_images: how many are attacked, 0 for all; chunk: images
    per job. test: whether to attack the test images at the end. seconds, worker_seconds: limits after which it stops;
    after the first, what runs is abandoned.
    """

    candidates: tuple[Candidate, ...]
    goal: Goal
    seeds: int = 5
    other_seeds: int = 3
    first_seed: int = 1
    images: int = 0
    test_images: int = 0
    chunk: int = 100
    cascade: str = "strong"
    ablations: bool = False
    test: bool = False
    worker_deaths: int = 3
    search_seeds: tuple[int, ...] = ()
    """Seeds on which the search itself has trained all candidates: these trainings are attacked instead of new ones."""
    size: Literal["full", "small"] = "full"
    """A small verdict does what its seconds allow, in an order in which a statement can be made at any time."""
    seconds: float = math.inf
    worker_seconds: float = math.inf

    def scope(self, split: str) -> str:
        """Identifies a split's chunks: results on differently cut chunks cannot be used."""
        return f"{split}/{self.images if split == 'validation' else self.test_images}/{self.chunk} spread"

    def seed_numbers(self, count: int) -> Sequence[int]:
        """The seeds on validation."""
        return self.search_seeds[:count] or range(self.first_seed, self.first_seed + count)

    def seed_index(self, seed: int) -> int:
        """The place of a seed among them."""
        return self.search_seeds.index(seed) if seed in self.search_seeds else max(0, seed - self.first_seed)

    def models(self, candidate: Candidate, count: int) -> list[Model]:
        """A candidate's models of the first `count` seeds; an external model has only one."""
        return [candidate.model(seed) for seed in (range(1) if candidate.weights else self.seed_numbers(count))]

    def fresh_models(self, candidate: Candidate) -> list[Model]:
        """A candidate's models for the test images, of seeds that took part in no choice: no luck is in them."""
        first = self.first_seed + TEST_SEEDS
        return [candidate.model(seed) for seed in (range(1) if candidate.weights else range(first, first + self.seeds))]

    def models_on(self, split: str, candidate: Candidate, count: int) -> list[Model]:
        """A candidate's models on a split: on validation those of the first `count` seeds."""
        return self.fresh_models(candidate) if split == "test" else self.models(candidate, count)


def published(study: StudySpec, history: History) -> Candidate:
    """Trial 0."""
    trial = history.trials.get(0)
    score = trial.score if trial is not None else None
    params = trial.params if trial is not None else None
    return Candidate(PUBLISHED, "published", study.single_schedule, 0, score, params)


def finalists(study: StudySpec, history: History, count: int) -> list[Candidate]:
    """The `count` recipes that are expected to be best; in a Pareto study, trials spread along the front.

    The published recipe is evaluated anyway, so it is not included. Raises `InputError` if there are too few.
    """
    complete = completed(history)
    if not complete:
        raise InputError("no trial of this study reached its last epoch, so there is no finalist; search it further")
    if count > len(complete):
        raise InputError(
            f"--finalists must be at most the {len(complete)} trials that reached their last epoch, got {count}; lower"
            " it, or search further"
        )
    others = [trial for trial in complete if trial.number]
    if len(study.settings.objective) > 1:
        on_front = _spread([trial for trial in history.best_trials if trial in others], count)
        others = on_front + [trial for trial in others if trial not in on_front]
    return [candidate_of(study, trial) for trial in others[:count]]


def completed(history: History) -> list[Trial]:
    """The trials whose recipes were trained to the last epoch: those that the search compared at its end first."""
    chosen = [] if history.choice is None else [estimate["trial"] for estimate in history.choice["estimates"]]
    others = [trial.number for trial in history.ranked() if trial.status == "completed" and trial.replicate_of is None]
    return [history.trials[number] for number in dict.fromkeys([*chosen, *others])]


def _spread(trials: Sequence[Trial], count: int) -> list[Trial]:
    """`count` trials at even steps, including both ends."""
    if len(trials) <= count:
        return list(trials)
    places = [round(index * (len(trials) - 1) / max(1, count - 1)) for index in range(count)]
    return [trials[place] for place in dict.fromkeys(places)]


def candidate_of(study: StudySpec, trial: Trial) -> Candidate:
    """A trial as a finalist: its recipe under one schedule over the whole training, as the published one."""
    recipe = with_params(study.single_schedule, trial.params)
    return Candidate(f"trial {trial.number}", "finalist", recipe, trial.number, trial.score, trial.params)


def full_plan(study: StudySpec, history: History, test: bool, others: Sequence[Candidate] = ()) -> Plan:
    """The plan for the study's settings: finalists, the published recipe, and `others`.

    Raises `InputError` if there are too few finalists.
    """
    settings = study.settings.verdict
    candidates = (*finalists(study, history, settings.finalists), published(study, history), *others)
    plan = _plan(study, history, candidates)
    return replace(
        plan,
        other_seeds=min(settings.other_seeds, settings.seeds),
        ablations=True,
        test=test,
        worker_seconds=3600 * settings.worker_hours or math.inf,
    )


def _plan(study: StudySpec, history: History, candidates: tuple[Candidate, ...]) -> Plan:
    settings = study.settings.verdict
    return Plan(
        candidates,
        study.goal,
        seeds=settings.seeds,
        other_seeds=settings.seeds,
        first_seed=study.settings.seed + 1,
        images=settings.images,
        test_images=settings.test_images,
        chunk=_chunk(history) if settings.chunk == "auto" else settings.chunk,
        worker_deaths=study.settings.resources.worker_deaths,
    )


CHUNK_ON_CPU, CHUNK_ON_GPU = 100, 500


def _chunk(history: History) -> int:
    """As many images at once as suit what the search trained on, whoever attacks them: chunks are told apart by it."""
    devices = {event["device"] for trial in history.trials.values() for event in trial.epochs.values()}
    return CHUNK_ON_GPU if devices - {"cpu"} else CHUNK_ON_CPU


def given_plan(study: StudySpec, history: History, given: Candidate, test: bool) -> Plan:
    """The plan for an external model alone."""
    return replace(_plan(study, history, (replace(given, role="given"),)), test=test)


ENDING_SECONDS = 5.0
"""What Ray takes at most to end jobs that are abandoned."""


def small_plan(study: StudySpec, history: History) -> Plan | str:
    """The verdict at the end of a search: winner and published recipe on fresh seeds, on validation images.

    If the search has trained both again itself, these models are attacked, and none is trained. It is sized by the
    speed that the search has shown. If there is none, why, in words; empty if none is wanted.
    """
    limit, best = study.settings.verdict.seconds_at_end, history.best_trial
    if not limit:
        return ""
    speed = measured_speed(study.recipe, history)
    if best is None or best.status != "completed" or speed is None:
        return "the search's best was not trained to its last epoch"
    chosen = best if history.choice is None else history.trials[history.choice["trial"]]
    candidates = (*([candidate_of(study, chosen)] if chosen.number else []), published(study, history))
    work = _work(study, history, best, len(candidates))
    if seeds := replicated_seeds(history, [candidate.trial or 0 for candidate in candidates]):
        work = replace(work, seeds=len(seeds), trained=True)
    seconds = max(limit - ENDING_SECONDS, limit / 2)
    sized = size_verdict(speed, work, max(1, history.workers), seconds)
    if isinstance(sized, str):
        return f"{sized} (verdict.seconds_at_end)"
    plan = replace(_plan(study, history, candidates), seeds=sized.seeds, other_seeds=sized.seeds, chunk=sized.chunk)
    return replace(plan, search_seeds=seeds, cascade=sized.cascade, size="small", seconds=seconds)


def replicated_seeds(history: History, trials: Sequence[int]) -> tuple[int, ...]:
    """The seeds on which the recipes of all these trials were trained again to the end."""
    trained = [{one.seed: one for one in history.replicates_of(number)} for number in trials]
    return tuple(seed for seed in trained[0] if seed is not None and all(seed in of for of in trained))


def _work(study: StudySpec, history: History, best: Trial, candidates: int) -> Work:
    """The work of a small verdict, with the images and the shares that the search evaluated."""
    event, settings = best.at_rung(best.best_rung), study.settings.verdict
    total = event["total_validation"]
    all_images = math.inf if study.recipe.evaluation.images else total
    inputs = history.model_inputs
    return Work(
        candidates,
        images=min(all_images, settings.images or math.inf),
        batch=study.recipe.evaluation.batch_size,
        seeds=settings.seeds,
        classes=10 if inputs is None else inputs["classes"],
        clean=event["clean_correct_validation"] / total,
        robust=event["robust_correct_validation"] / total,
    )


def ablations(plan: Plan, chosen: Candidate) -> list[Candidate]:
    """Ablations: the published coefficients with the winner's common values, and the winner without the pace.

    An ablation with the same recipe as another candidate is left out.
    """
    base = next((one for one in plan.candidates if one.role == "published"), None)
    if base is None or chosen.role in ("published", "given"):
        return []
    plain, best = to_plain(base.recipe), to_plain(chosen.recipe)
    common = {name: value for name, value in best.items() if name not in COEFFICIENTS}
    made = [
        Candidate(PUBLISHED_COEFFICIENTS, "ablation", recipe_from_plain({**plain, **common}, PUBLISHED_COEFFICIENTS)),
        Candidate(PACE_0, "ablation", replace(chosen.recipe, pace=Schedule(0.0, 0.0))),
    ]
    if chosen.recipe.method not in METHODS or not METHODS[chosen.recipe.method].paced:
        # Whether an own method uses the pace is not known without importing it, which a plan does not.
        made = made[:1]
    known = {candidate.model(0).id for candidate in plan.candidates}
    unpaced = chosen.recipe.pace
    if unpaced.end == 0 and (unpaced.shape == "constant" or unpaced.start == 0):
        made = made[:1]
    return [candidate for candidate in made if candidate.model(0).id not in known]


def changed(recipe: Recipe, values: Sequence[tuple[str, Any]], where: str) -> Recipe:
    """The recipe with some fields changed, given by dotted name."""
    plain = to_plain(recipe)
    for name, value in values:
        set_dotted(plain, name, value)
    return recipe_from_plain(plain, where)
