"""What to do next, as a pure function of the plan and the record.

Train, attack on validation, choose the winner, train more seeds and ablations, and attack the test images last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hcpr_tune.training.attacks.cascade import CASCADES, attacks_of
from hcpr_tune.verdict.decision.selection import Selection, masking_of, select
from hcpr_tune.verdict.plan import Candidate, Model, Plan, ablations
from hcpr_tune.verdict.state import State

Kind = Literal["train", "attack", "checks"]
VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Task:
    """A job: train a model, attack it on one chunk of a split, or check it (transfer attack, gradient masking)."""

    kind: Kind
    model: Model
    split: str = ""
    chunk: int = 0
    cascade: str = ""
    baseline: Model | None = None

    @property
    def key(self) -> str:
        """The task's name in the record."""
        if self.kind == "attack":
            return f"attack {self.model.id} {self.split} {self.chunk} {self.cascade}"
        return f"{self.kind} {self.model.id}" + (f" {self.baseline.id}" if self.baseline else "")

    @property
    def words(self) -> str:
        """The task's description for users."""
        who = f"{self.model.candidate}, seed {self.model.seed}"
        if self.kind == "train":
            return f"train {who}"
        if self.kind == "checks":
            return f"transfer attack on {who}" + (f" from {self.baseline.candidate}" if self.baseline else "")
        return f"attack {who}, {self.split} images, chunk {self.chunk}"


@dataclass(frozen=True)
class Stage:
    """Models that must all be trained, and attacked on a split if there is one, before the next stage begins."""

    models: tuple[Model, ...]
    split: str = ""


def next_task(plan: Plan, state: State, seconds: float) -> Task | Literal["wait", "finished"]:
    """The next task for a free worker, `seconds` into the session."""
    if seconds >= plan.seconds or state.worker_seconds >= plan.worker_seconds:
        return "finished"
    for stage in stages(plan, state):
        left = open_tasks(plan, state, stage)
        if left:
            ready = (task for task in left if task.key not in state.running)
            return next(ready, "wait")
    return "finished"


def is_settled(plan: Plan, state: State) -> bool:
    """Whether everything in the plan is done or has failed; a small verdict is also once its time is over."""
    if plan.size == "small" and state.ended != "interrupted" and state.seconds >= plan.seconds:
        return True
    return not any(open_tasks(plan, state, stage) for stage in stages(plan, state))


def stages(plan: Plan, state: State) -> Iterator[Stage]:
    """The stages in order. A stage depends on the results of earlier ones, and begins once they are done."""
    yield Stage(tuple(first_models(plan)), VALIDATION)
    found = select(plan, state)
    yield Stage(tuple(later_models(plan, found)), VALIDATION)
    if plan.test:
        fresh = tuple(tested_models(plan, found))
        yield Stage(fresh)  # all are trained before the first test image is opened
        yield Stage(fresh, TEST)


def first_models(plan: Plan) -> Iterator[Model]:
    """The first `other_seeds` seeds of every candidate."""
    for seed in range(plan.other_seeds):
        for candidate in plan.candidates:
            models = plan.models(candidate, plan.other_seeds)
            if seed < len(models):
                yield models[seed]


def later_models(plan: Plan, found: Selection) -> Iterator[Model]:
    """The remaining seeds of the winner and its baselines, and the ablations."""
    finalists = [candidate for candidate in tested_candidates(plan, found) if not candidate.weights]
    made = ablations(plan, found.winner) if plan.ablations and found.winner else []
    for seed in range(plan.seeds):
        for candidate in finalists:
            yield plan.models(candidate, plan.seeds)[seed]
        for candidate in made if seed < plan.other_seeds else ():
            yield plan.models(candidate, plan.other_seeds)[seed]


def tested_candidates(plan: Plan, found: Selection) -> list[Candidate]:
    """The candidates with all seeds and test images: the winner, its baseline, and all those it is compared with."""
    chosen = [found.winner, found.baseline, *(one for one in plan.candidates if one.role in ("compared", "given"))]
    return list({candidate.name: candidate for candidate in chosen if candidate is not None}.values())


def tested_models(plan: Plan, found: Selection) -> Iterator[Model]:
    """Their fresh seeds. Empty without a winner: the test images would have nothing to confirm."""
    if found.winner is None:
        return
    for seed in range(plan.seeds):
        for candidate in tested_candidates(plan, found):
            models = plan.fresh_models(candidate)
            if seed < len(models):
                yield models[seed]


def open_tasks(plan: Plan, state: State, stage: Stage) -> list[Task]:
    """The tasks that a stage still needs, running or not, in the order in which they start."""
    tasks: list[tuple[tuple[int, ...], Task]] = []
    for index, model in enumerate(stage.models):
        known = state.models.get(model.id)
        if known is not None and known.lost:
            continue
        if not model.weights and (known is None or not known.finished):
            tasks.append((_turn(plan, Task("train", model)), Task("train", model)))
            continue
        if not stage.split:
            continue
        tasks += [(_turn(plan, task), task) for task in _attacks(plan, state, model, stage.split)]
        checks = _checks(plan, state, model)
        if checks is not None and stage.split == VALIDATION:
            tasks.append((_turn(plan, checks, index), checks))
    return [task for _, task in sorted(tasks, key=lambda one: one[0])]


def _turn(plan: Plan, task: Task, index: int = 0) -> tuple[int, ...]:
    """What tasks are sorted by: chunk by chunk over all models of a seed, so that all have seen nearly the same images
    if it is interrupted.

    In a small verdict also attack by attack. Each seed is trained and attacked on the first chunk before the next, and
    then images are added on all.
    """
    seed = plan.seed_index(task.model.seed)
    if plan.size == "full":
        return seed, {"train": -1, "attack": task.chunk, "checks": index}[task.kind]
    attack = list(CASCADES).index(task.cascade) if task.kind == "attack" else len(CASCADES)
    return task.chunk, 0 if task.chunk else seed, -1 if task.kind == "train" else attack


def cascade_of(plan: Plan, split: str, chunk: int) -> str:
    """A chunk's cascade. In a full verdict the first of validation gets all attacks, to see what the last break."""
    return "autoattack" if split == TEST or (chunk == 0 and plan.size == "full") else plan.cascade


def _attacks(plan: Plan, state: State, model: Model, split: str) -> Iterator[Task]:
    scope, last = plan.scope(split), {name: attacks_of(name, state.classes)[-1] for name in CASCADES}
    # The number of images is known once a chunk was attacked.
    total = state.totals.get(scope, 1)
    for chunk in range(math.ceil(total / plan.chunk)):
        cascade, done = cascade_of(plan, split, chunk), state.chunks.get((model.id, scope, chunk))
        if done is None or done.after(last[cascade]) is None:
            if plan.size == "small":  # one attack at a time: the cascades are each other's beginnings
                cascade = next(name for name in CASCADES if done is None or done.after(last[name]) is None)
            task = Task("attack", model, split, chunk, cascade)
            if task.key not in state.failed:
                yield task


def _checks(plan: Plan, state: State, model: Model) -> Task | None:
    """The transfer attack, once both models exist and the first chunk was attacked.

    An external model gets this task even without a baseline, since it was not checked for masked gradients yet.
    """
    first = state.chunks.get((model.id, plan.scope(VALIDATION), 0))
    if first is None or first.after(attacks_of("strong", state.classes)[-1]) is None:
        return None
    baseline = baseline_of(plan, model)
    other = state.models.get(baseline.id) if baseline is not None else None
    if baseline is not None and (other is None or not (other.finished or other.lost)):
        return None  # the baseline may still be trained
    if other is not None and other.lost:
        baseline = None
    if baseline is None and (not model.weights or masking_of(state, model) is not None):
        return None
    task = Task("checks", model, baseline=baseline)
    known = (model.id, baseline.id if baseline is not None else "") in state.checks
    return None if known or task.key in state.failed else task


def baseline_of(plan: Plan, model: Model) -> Model | None:
    """The source of a model's transfer attack: the published recipe or, for that, the first other one; one seed."""
    published = next((one for one in plan.candidates if one.role == "published"), None)
    others = [one for one in plan.candidates if one.name != model.candidate]
    chosen = published if published is not None and published.name != model.candidate else next(iter(others), None)
    return plan.models(chosen, plan.other_seeds)[0] if chosen is not None else None
