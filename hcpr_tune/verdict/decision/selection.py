"""Which candidate wins on validation, and whose numbers are unreliable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hcpr_tune.common.collapse import has_collapsed
from hcpr_tune.search.record.events.fields import WholeMasking
from hcpr_tune.training.attacks.cascade import CLEAN, attacks_of, points_without_gradient
from hcpr_tune.training.attacks.evaluation import MOST_WITHOUT_GRADIENT, Masking
from hcpr_tune.verdict.plan import Candidate, Model, Plan
from hcpr_tune.verdict.state import Chunk, State, Trained

MOST_SQUARE, MOST_TRANSFER = 0.01, 0.01
"""The largest shares of images that the gradient-free Square attack and a transfer attack may break after APGD failed.

AutoAttack warns about Square from 0.2 %, which ordinary models of Fashion-MNIST reach (11 of 24 on 400 images, see
docs/benchmarks.md).
"""
FEWEST_IMAGES = 3
"""Fewer broken images than this raise no alarm."""


@dataclass(frozen=True)
class Selection:
    """The winner on validation, and its baseline: the published recipe, or the best other candidate if that one wins.

    Both are None if no candidate can win.
    """

    winner: Candidate | None
    baseline: Candidate | None
    order: tuple[Candidate, ...]
    """All candidates that could win, best first."""


def select(plan: Plan, state: State) -> Selection:
    """Rank finalists and the published recipe by their first seeds, the same number for each.

    A candidate that is unreliable, or has no model, cannot win. The test images do not affect the choice.
    """
    if state.choice is None or state.choice[:2] != (plan, state.choice_version):
        state.choice = plan, state.choice_version, _select(plan, state)
    found: Selection = state.choice[2]
    return found


def _select(plan: Plan, state: State) -> Selection:
    candidates = []
    for candidate in contenders(plan):
        models = standing(plan, state, candidate, plan.other_seeds)
        if models and not doubts(plan, state, candidate, models):
            candidates.append((candidate, models))
    chunks = common_chunks(plan, state, [model for _, models in candidates for model in models], "validation")
    ranked = []
    for index, (candidate, models) in enumerate(candidates):
        if not chunks:
            break
        robust = survive(plan, state, models, "validation", chunks).mean()
        clean = survive(plan, state, models, "validation", chunks, CLEAN).mean()
        scores = {"robust_accuracy": float(robust), "clean_accuracy": float(clean)}
        ranked.append(((*plan.goal.place(scores), index), candidate))
    order = tuple(candidate for _, candidate in sorted(ranked, key=lambda one: one[0]))
    winner = order[0] if order else None
    published = next((one for one in plan.candidates if one.role == "published"), None)
    others = [one for one in order if one is not winner]
    baseline = published if winner is not published else next(iter(others), None)
    if winner is None:
        baseline = None
    return Selection(winner, baseline, order)


def best_epoch(plan: Plan, known: Trained) -> int:
    """The rung whose weights are evaluated: as in a search, the best on validation under the search's attack.

    0 for an external model.
    """
    if known.weights:
        return 0
    rungs = {epoch: scores for epoch, scores in known.scores.items() if epoch in known.rung_epochs}
    return plan.goal.best_rung(rungs)


def contenders(plan: Plan) -> list[Candidate]:
    """The candidates among which the winner is chosen."""
    return [one for one in plan.candidates if one.role in ("finalist", "published", "given")]


def doubts(plan: Plan, state: State, candidate: Candidate, models: Sequence[Model]) -> list[str]:
    """What keeps a candidate from winning: unreliable numbers on validation of any seed, and lost seeds."""
    more = [model for model in standing(plan, state, candidate, plan.seeds) if model not in models]
    return [*missing_words(plan, state, candidate), *unreliable(plan, state, [*models, *more], ("validation",))]


def missing_words(plan: Plan, state: State, candidate: Candidate) -> list[str]:
    """How many of the seeds used for the choice were lost or collapsed."""
    return [*lost_words(plan, state, candidate), *collapse_words(plan, state, candidate)]


def collapse_words(plan: Plan, state: State, candidate: Candidate) -> list[str]:
    """How many of the seeds used for the choice collapsed; empty if every candidate has one that did."""
    fallen = {one.name: _collapsed_seeds(plan, state, one) for one in contenders(plan)}
    count = _collapsed_seeds(plan, state, candidate)
    if not count or all(fallen.values()):
        return []
    return [f"{count} of {len(plan.models(candidate, plan.other_seeds))} seeds that the winner is chosen by collapsed"]


def _collapsed_seeds(plan: Plan, state: State, candidate: Candidate) -> int:
    return sum(has_fallen(plan, state, model) for model in plan.models(candidate, plan.other_seeds))


def has_fallen(plan: Plan, state: State, model: Model) -> bool:
    """Whether a model has collapsed: it is told apart from a low score, and left out of means and differences.

    Judged by its clean accuracy on validation as the search measures it. An external model is not judged.
    """
    known = state.models.get(model.id)
    event = None if known is None or not known.finished else known.epochs.get(best_epoch(plan, known))
    if event is None:
        return False
    total, classes = event["total_validation"], state.classes
    if state.model_inputs is not None:
        classes = state.model_inputs["classes"]
    largest = max(event.get("class_totals_validation", [total / classes]))
    return has_collapsed(event["clean_correct_validation"], total, largest)


def lost_words(plan: Plan, state: State, candidate: Candidate) -> list[str]:
    """How many of the seeds used for the choice were lost: a mean over the others would be too optimistic."""
    wanted = plan.models(candidate, plan.other_seeds)
    lost = [reason for model in wanted if model.id in state.models and (reason := state.models[model.id].lost)]
    return [f"{len(lost)} of {len(wanted)} seeds could not be trained ({lost[0]})"] if lost else []


def living(plan: Plan, state: State, candidate: Candidate, count: int, split: str = "validation") -> list[Model]:
    """A candidate's trained models that were attacked on at least one chunk of a split."""
    attack, scope = chosen_attack(plan, split, state.classes), plan.scope(split)
    begun = {one for (one, at, _), chunk in state.chunks.items() if at == scope and chunk.after(attack) is not None}
    found = []
    for model in plan.models_on(split, candidate, count):
        known = state.models.get(model.id)
        if known is not None and known.finished and not known.lost and model.id in begun:
            found.append(model)
    return found


def standing(plan: Plan, state: State, candidate: Candidate, count: int, split: str = "validation") -> list[Model]:
    """The living models that have not collapsed."""
    return [model for model in living(plan, state, candidate, count, split) if not has_fallen(plan, state, model)]


def chosen_attack(plan: Plan, split: str, classes: int) -> str:
    """The last attack of those that count on a split."""
    return attacks_of("autoattack" if split == "test" else plan.cascade, classes)[-1]


def common_chunks(plan: Plan, state: State, models: Sequence[Model], split: str, attack: str = "") -> list[int]:
    """The chunks on which all of these models have been through the attacks that count."""
    attack, scope = attack or chosen_attack(plan, split, state.classes), plan.scope(split)
    of = {model.id for model in models}
    done: dict[int, set[str]] = {}
    for (model, at, number), chunk in state.chunks.items():
        if at == scope and model in of and chunk.after(attack) is not None:
            done.setdefault(number, set()).add(model)
    return sorted(number for number, have in done.items() if have == of)


def classes_after(plan: Plan, state: State, model: Model, split: str, chunks: Iterable[int], attack: str) -> np.ndarray:
    """(labels, classes after the attack), (2, images)."""
    labels: list[int] = []
    classes: list[int] = []
    for number in chunks:
        chunk = state.chunks[model.id, plan.scope(split), number]
        step = chunk.after(attack)
        assert step is not None
        labels += chunk.labels
        classes += step.classes
    return np.array([labels, classes])


def survive(
    plan: Plan, state: State, models: Sequence[Model], split: str, chunks: Sequence[int], attack: str = ""
) -> np.ndarray:
    """Which images each model classifies correctly after the attacks that count, (models, images) of 0 and 1."""
    attack = attack or chosen_attack(plan, split, state.classes)
    rows = [classes_after(plan, state, model, split, chunks, attack) for model in models]
    return np.stack([labels == classes for labels, classes in rows]).astype(float)


def unreliable(
    plan: Plan, state: State, models: Sequence[Model], splits: Collection[str] = ("validation", "test")
) -> list[str]:
    """Why the numbers of a candidate's models, over all its seeds, are unreliable; empty if they are not."""
    chunks = _chunks_of(plan, state, models, splits)
    found = list(_masking_alarms(state, models))
    found += _own_warnings(chunks)
    found += _too_many("Square, which needs no gradient, breaks", MOST_SQUARE, *_square(state, chunks))
    found += _too_many("images attacked on another model break", MOST_TRANSFER, *_transfer(state, models))
    return found


def checked_images(plan: Plan, state: State, models: Sequence[Model]) -> dict[str, int]:
    """The number of images that each check for masked gradients covered, over these models and both splits."""
    chunks = _chunks_of(plan, state, models, ("validation", "test"))
    attacked = [chunk for chunk in chunks if any(step.attack != CLEAN for step in chunk.steps)]
    return {
        "gradients": sum(known["images"] for model in models if (known := masking_of(state, model))),
        "autoattack": sum(len(chunk.labels) for chunk in attacked),
        "square": _square(state, chunks)[1],
        "transfer": _transfer(state, models)[1],
    }


def _masking_alarms(state: State, models: Sequence[Model]) -> Iterable[str]:
    counted: list[Mapping[str, Any]] = [known for model in models if (known := masking_of(state, model))]
    names = [item.name for item in fields(Masking)]
    return Masking(**{name: sum(one[name] for one in counted) for name in names}).alarms


def masking_of(state: State, model: Model) -> WholeMasking | None:
    """The masking alarm's counts: of the attacked weights if they were checked, else of the last epoch's."""
    known = state.models[model.id].masking
    counted = [found["masking"] for (one, _), found in state.checks.items() if one == model.id and found.get("masking")]
    return next(iter(counted), known)


def _chunks_of(plan: Plan, state: State, models: Sequence[Model], splits: Collection[str]) -> Sequence[Chunk]:
    of, scopes = {model.id for model in models}, {plan.scope(split) for split in splits}
    return [chunk for (model, scope, _), chunk in state.chunks.items() if model in of and scope in scopes]


def _own_warnings(chunks: Sequence[Chunk]) -> Iterable[str]:
    """AutoAttack's own warnings. Points without a gradient are summed over all chunks, since a few are harmless."""
    words: dict[str, None] = {}
    points = images = 0
    for chunk in chunks:
        images += len(chunk.labels)
        for step in chunk.steps:
            count = points_without_gradient(step.warnings)
            points += count
            words |= dict.fromkeys(f"AutoAttack: {one}" for one in step.warnings if not points_without_gradient((one,)))
    if images and 100 * points / images > MOST_WITHOUT_GRADIENT:
        words[f"AutoAttack: {100 * points / images:.1f} % of the images have no gradient of the DLR loss"] = None
    return words


def _square(state: State, chunks: Sequence[Chunk]) -> tuple[int, int]:
    """(images that Square breaks after all other attacks have failed, images)."""
    broken = images = 0
    for chunk in chunks:
        before, after = (chunk.after(name) for name in attacks_of("autoattack", state.classes)[-2:])
        if before is not None and after is not None:
            images += len(chunk.labels)
            broken += sum(one != other for one, other in zip(before.classes, after.classes, strict=True))
    return broken, images


def _transfer(state: State, models: Sequence[Model]) -> tuple[int, int]:
    """(images that the transfer attack breaks although APGD on the model itself did not, images)."""
    of = {model.id for model in models}
    found = [one for (model, _), one in state.checks.items() if model in of]
    return sum(one["broken"] for one in found), sum(one["images"] for one in found)


def _too_many(what: str, most: float, count: int, images: int) -> Iterable[str]:
    if count >= FEWEST_IMAGES and count > most * images:
        yield f"{what} {count} of {images} images, after APGD had failed on them (above {100 * most:g} %)"
