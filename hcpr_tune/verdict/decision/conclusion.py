"""The results of a verdict as plain values, from which documents, terminal and report are made."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcpr_tune.common.intervals import Proportion, ProportionPlain
from hcpr_tune.common.settings import to_plain
from hcpr_tune.common.statistics import SURE, differences, mcnemar, mean_over_seeds, smallest_difference
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.attacks.cascade import CLEAN, attacks_of, replaced_attacks
from hcpr_tune.training.recipe import Recipe
from hcpr_tune.verdict.decision.agenda import TEST, VALIDATION, is_settled, tested_candidates
from hcpr_tune.verdict.decision.selection import (
    Selection,
    best_epoch,
    checked_images,
    chosen_attack,
    classes_after,
    common_chunks,
    contenders,
    has_fallen,
    missing_words,
    select,
    standing,
    survive,
    unreliable,
)
from hcpr_tune.verdict.decision.statement import no_statement
from hcpr_tune.verdict.plan import Candidate, Model, Plan, ablations
from hcpr_tune.verdict.state import State
from hcpr_tune.views.verdicts import FORMAT

MOST_PAIRS = 8


@dataclass(frozen=True)
class CandidateModels:
    """A candidate with the models that exist of it, and those that collapsed and are left out."""

    candidate: Candidate
    models: tuple[Model, ...]
    collapsed: tuple[Model, ...]


def conclude(study: StudySpec, history: History, name: str, plan: Plan, state: State) -> dict[str, Any]:
    """All results so far, whether the verdict is finished or not."""
    found = select(plan, state)
    listed = [*plan.candidates, *(ablations(plan, found.winner) if plan.ablations and found.winner else [])]
    baselines = tested_candidates(plan, found)

    def with_models(candidate: Candidate, split: str) -> CandidateModels:
        count = plan.seeds if candidate in baselines else plan.other_seeds
        models = tuple(standing(plan, state, candidate, count, split))
        wanted = plan.models_on(split, candidate, count)
        return CandidateModels(candidate, models, tuple(one for one in wanted if has_fallen(plan, state, one)))

    candidates = [with_models(one, VALIDATION) for one in listed]
    splits: dict[str, Any] = {VALIDATION: of_split(plan, state, found, candidates, VALIDATION)}
    tested = [with_models(one, TEST) for one in baselines]
    # Test results are shown even if only an earlier verdict asked for them.
    if plan.test or any(one.models for one in tested):
        splits[TEST] = of_split(plan, state, found, tested, TEST)
    fresh = {one.candidate.name: one for one in tested}
    settled = is_settled(plan, state)
    return {
        "format": FORMAT,
        "study": name,
        "fingerprint": study.fingerprint,
        "written": time.time(),
        "size": plan.size,
        "settled": settled,
        "unfinished": _why_unfinished(plan, state, settled),
        "failed_jobs": dict(state.failed),
        "task": to_plain(study.recipe.task),
        "model_inputs": state.model_inputs or {},
        "schedule": schedule_words(study.single_schedule),
        "attacks": {split: attack_words(plan, state, split) for split in splits},
        "attacks_replaced": replaced_attacks(state.classes),
        "seeds": {
            "winner_and_baseline": plan.seeds,
            "others": plan.other_seeds,
            "first": plan.seed_numbers(1)[0],
            "of_the_search": bool(plan.search_seeds),
        },
        "winner": found.winner.name if found.winner else None,
        "baseline": found.baseline.name if found.baseline else None,
        "picked_among": {"candidates": len(contenders(plan)), "trials": history.candidates},
        "candidates": [candidate_plain(plan, state, one, fresh.get(one.candidate.name)) for one in candidates],
        "splits": splits,
        "test_accesses": history.test_accesses,
        "versions": state.versions,
        "workers": state.workers,
        "worker_seconds": round(state.worker_seconds, 1),
    }


def attack_words(plan: Plan, state: State, split: str) -> str:
    """The attacks that count on a split."""
    cascade = "autoattack" if split == TEST else plan.cascade
    attacks = attacks_of(cascade, state.classes)
    if cascade == "autoattack":
        return f"AutoAttack ({', '.join(attacks)})"
    which = {1: "first attack", 2: "first two attacks", 3: "first three attacks"}[len(attacks)]
    return f"AutoAttack's {which} ({', '.join(attacks)})"


def _why_unfinished(plan: Plan, state: State, settled: bool) -> str:
    """Why it is not finished or, if it is a small one, compares nothing; empty otherwise."""
    if settled:
        return no_statement(plan, state) if plan.size == "small" else ""
    if state.ended == "interrupted":
        return "it was interrupted"
    if state.worker_seconds >= plan.worker_seconds:
        return f"its budget of {plan.worker_seconds / 3600:g} worker-hours is spent (verdict.worker_hours)"
    if state.seconds >= plan.seconds:
        return f"its time of {plan.seconds:g} seconds is over"
    return "it was stopped early"


def schedule_words(recipe: Recipe) -> str:
    """The schedule under which all candidates are trained."""
    lr = recipe.lr_schedule
    return (
        f"{recipe.epochs} epochs, learning rate schedule {lr.mode} ({lr.shape}), evaluated at epochs"
        f" {', '.join(map(str, recipe.rung_epochs))};"
        " of these, the weights with the best robust accuracy on validation under the search's attack are kept"
    )


def candidate_plain(
    plan: Plan, state: State, one: CandidateModels, fresh: CandidateModels | None = None
) -> dict[str, Any]:
    """One candidate: its recipe, its models, doubts about its numbers, and by how much the search overestimated it.

    `fresh`: the models for the test images.
    """
    candidate = one.candidate
    on_test, more = ((), ()) if fresh is None else (fresh.models, fresh.collapsed)
    both = list(dict.fromkeys([*one.models, *on_test]))
    wanted = plan.models(candidate, max(plan.seeds, plan.other_seeds)) + plan.fresh_models(candidate)
    lost = {
        model.seed: state.models[model.id].lost
        for model in wanted
        if model.id in state.models and state.models[model.id].lost
    }
    return {
        "name": candidate.name,
        "role": candidate.role,
        "trial": candidate.trial,
        "elsewhere": bool(candidate.weights),
        "params": dict(candidate.params or {}),
        "recipe": to_plain(candidate.recipe),
        "models": [model_plain(plan, state, model) for model in one.models],
        "lost": [{"seed": seed, "reason": reason} for seed, reason in lost.items()],
        "collapsed": [{"seed": model.seed} for model in dict.fromkeys([*one.collapsed, *more])],
        "unreliable": [*missing_words(plan, state, candidate), *unreliable(plan, state, both)],
        "checked_images": checked_images(plan, state, both),
        "optimism": optimism(candidate, [_margin_score(plan, state, model) for model in one.models]),
    }


def optimism(candidate: Candidate, again: Sequence[float | None]) -> dict[str, float] | None:
    """By how much the search overestimated a recipe, with the interval that the noise of the seeds makes.

    The images are the same, so that only the seeds differ. None for a single one: there is no interval then.
    """
    scores = [score for score in again if score is not None]
    if candidate.score is None or len(scores) < 2 or len(scores) < len(again):
        return None
    from scipy.special import stdtrit

    mean, points = float(np.mean(scores)), 100 * (candidate.score - float(np.mean(scores)))
    width = float(stdtrit(len(scores) - 1, 1 - SURE / 2) * np.std(scores, ddof=1))
    half = 100 * width * math.sqrt(1 + 1 / len(scores))
    low, high = points - half, points + half
    return {"search": candidate.score, "again": mean, "points": points, "low_95": low, "high_95": high}


def _margin_score(plan: Plan, state: State, model: Model) -> float | None:
    """Robust accuracy on validation as the search measures it."""
    known = state.models[model.id]
    scores = known.scores.get(best_epoch(plan, known))
    return scores["robust_accuracy"] if scores else None


def model_plain(plan: Plan, state: State, model: Model) -> dict[str, Any]:
    """One model, with its counts on validation under the search's attack."""
    known = state.models[model.id]
    epoch = best_epoch(plan, known)
    event = known.epochs.get(epoch)
    counts = {}
    if event is not None:
        total = event["total_validation"]
        counts["robust_accuracy_validation"] = Proportion(event["robust_correct_validation"], total).to_plain()
        counts["clean_accuracy_validation"] = Proportion(event["clean_correct_validation"], total).to_plain()
    return {"id": model.id, "seed": model.seed, "epoch": epoch, "seconds": round(known.seconds, 1), **counts}


def of_split(
    plan: Plan, state: State, found: Selection, candidates: Sequence[CandidateModels], split: str
) -> dict[str, Any]:
    """All numbers on one split, over the images on which all of these models were attacked."""
    there = [one for one in candidates if one.models]
    chunks = common_chunks(plan, state, [model for one in there for model in one.models], split)
    total = state.totals.get(plan.scope(split))
    collapsed = {one.candidate.name: len(one.collapsed) for one in candidates if one.collapsed}
    empty: dict[str, Any] = {name: {} for name in ("candidates", "differences", "mcnemar", "pairs")}
    if not chunks or not there:
        return {"images": 0, "of": total, "collapsed": collapsed, "smallest_difference": None, **empty}
    robust = {one.candidate.name: survive(plan, state, one.models, split, chunks) for one in there}
    clean = {one.candidate.name: survive(plan, state, one.models, split, chunks, CLEAN) for one in there}
    models = {one.candidate.name: one.models for one in there}
    winner, baseline = found.winner, found.baseline
    images = next(iter(robust.values())).shape[1]
    plain: dict[str, Any] = {
        "images": images,
        "of": total,
        "collapsed": collapsed,
        "smallest_difference": smallest_difference(images, plan.seeds),
        **empty,
        "candidates": {
            name: {
                "robust_accuracy": mean_over_seeds(robust[name]).to_plain(),
                "clean_accuracy": mean_over_seeds(clean[name]).to_plain(),
                "of_each_seed": [Proportion(int(row.sum()), images).to_plain() for row in robust[name]],
                "seeds": [model.seed for model in models[name]],
            }
            for name in robust
        },
    }
    if winner is None or winner.name not in robust:
        return plain
    others = {name: (robust[winner.name], values) for name, values in robust.items() if name != winner.name}
    plain["differences"] = {name: one.to_plain() for name, one in differences(others).items()}
    plain["mcnemar"] = {
        name: [
            {"seed": models[winner.name][own].seed} | mcnemar(robust[winner.name][own], values[other]).to_plain()
            for own, other in same_seeds(models[winner.name], models[name])
        ]
        for name, (_, values) in others.items()
    }
    for title, candidate in (("after", winner), ("before", baseline)):
        if candidate is not None and candidate.name in models:
            plain["pairs"][title] = pairs_plain(plan, state, models[candidate.name], split, chunks)
    return plain


def same_seeds(own: Sequence[Model], others: Sequence[Model]) -> list[tuple[int, int]]:
    """Pairs of indices of models with the same seed, so that a lost model shifts no pair. External models: (0, 0)."""
    if any(model.weights for model in (*own, *others)):
        return [(0, 0)]
    position = {model.seed: index for index, model in enumerate(others)}
    return [(index, position[model.seed]) for index, model in enumerate(own) if model.seed in position]


def pairs_plain(plan: Plan, state: State, models: Sequence[Model], split: str, chunks: Sequence[int]) -> dict[str, Any]:
    """Robust accuracy by class, the worst class, and the hardest pairs: which class the attack turns into which.

    Means over the seeds; the intervals are over images, and more seeds do not add images.
    """
    seeds = len(models)
    attack = chosen_attack(plan, split, state.classes)
    both = np.concatenate([classes_after(plan, state, model, split, chunks, attack) for model in models], axis=1)
    inputs = state.model_inputs
    names = (inputs and inputs.get("class_names")) or [str(number) for number in range(state.classes)]
    labels, classes = both
    by_class = {
        names[label]: over_seeds(int((classes[labels == label] == label).sum()), int((labels == label).sum()), seeds)
        for label in sorted(set(labels.tolist()))
    }
    wrong = labels != classes
    counted, counts = np.unique(both[:, wrong], axis=1, return_counts=True)
    pairs = [
        {
            "true": names[true],
            "taken_for": names[other] if other >= 0 else "no number",
            **over_seeds(int(count), int((labels == true).sum()), seeds),
        }
        for (true, other), count in zip(counted.T.tolist(), counts.tolist(), strict=True)
    ]
    worst = min(by_class, key=lambda name: float(by_class[name]["share"]))
    return {
        "by_class": by_class,
        "worst_class": worst,
        "hard_pairs": sorted(pairs, key=lambda pair: -pair["share"])[:MOST_PAIRS],
    }


def over_seeds(count: int, total: int, seeds: int) -> ProportionPlain:
    """A share of images, counted over seeds on the same images, with the interval for the images of one seed."""
    return Proportion(round(count / seeds), total // seeds).to_plain() | {"share": count / total}


def best_model(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model to export: the winner's most robust model on validation, the first in a tie."""
    candidate = next((one for one in plain["candidates"] if one["name"] == plain["winner"]), None)
    of = plain["splits"][VALIDATION]["candidates"].get(plain["winner"])
    if candidate is None or of is None:
        return None
    shares = of["robust_accuracy"]["per_seed"]
    best = max(range(len(shares)), key=lambda index: (shares[index], -index))
    model: dict[str, Any] = candidate["models"][best]
    return model | {"recipe": candidate["recipe"]}
