"""Verdicts without trainings and attacks: plans of made-up candidates, and a record with a verdict's events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.training.attacks.cascade import CLEAN, attacks_of
from hcpr_tune.training.recipe import Hcpr, LrSchedule, Optimiser, Recipe, Schedule
from hcpr_tune.verdict.decision.agenda import Task, baseline_of, cascade_of
from hcpr_tune.verdict.plan import Candidate, Model, Plan, Role
from hcpr_tune.verdict.state import State

BASE = Recipe(epochs=4, segment_ends=(2,), lr_schedule=LrSchedule(mode="annealed", shape="cosine"))
INPUTS = {"channels": 1, "classes": 10, "image_size": [8, 8], "class_names": [*map(str, range(9)), "<script>n|ne"]}
HONEST = {
    "images": 100,
    "survive_margin_10": 60,
    "survive_margin_50": 59,
    "survive_cross_entropy_50": 62,
    "without_gradient": 0,
    "alarms": [],
}
"""What the masking alarm counts of a model that hides nothing."""
MASKED = HONEST | {"survive_margin_10": 80, "alarms": ["50 steps break 21.0 points more than 10 (above 3)"]}


def candidate(name: str, role: Role = "finalist", **more: Any) -> Candidate:
    """A candidate whose recipe is like no other name's; its pace and its learning rate are not the published ones."""
    scale = 4.0 + sum(map(ord, name)) / 1000
    recipe = replace(BASE, hcpr=Hcpr(scale=scale), pace=Schedule(0.3, 0.9, 0.5, "linear"), optimiser=Optimiser(lr=0.05))
    return Candidate(name, role, recipe, **{"score": 0.75, "params": {"hcpr.scale": scale}} | more)


def plan_of(*names: str, published: bool = True, more: Sequence[Candidate] = (), **settings: Any) -> Plan:
    """Finalists of these names, the published recipe, and `more`."""
    base = [Candidate("published", "published", BASE, 0, 0.7, {})] if published else []
    candidates = (*map(candidate, names), *base, *more)
    return Plan(candidates, **{"goal": Goal(), "seeds": 3, "other_seeds": 2, "images": 40, "chunk": 20} | settings)


class Facts:
    """A record that is written as `Judge` writes it, and `state`, its fold."""

    def __init__(
        self,
        plan: Plan,
        shares: Mapping[str, float] | None = None,
        totals: Mapping[str, int] | None = None,
        classes: int = 10,
        masking: Mapping[str, Any] = HONEST,
    ) -> None:
        """`shares`: robust accuracy by candidate; `totals`: images of a split; `masking`: alarm counts."""
        self.plan, self.state, self.events = plan, State(classes=classes), list[dict[str, Any]]()
        self.shares = shares or {}
        self.totals = {"validation": plan.images or 50, "test": plan.test_images or 30} | dict(totals or {})
        self.classes, self.masking, self.time = classes, masking, 0.0
        self.begin()

    def write(self, event: str, **values: Any) -> None:
        self.time += 1.0
        line = json.loads(json.dumps({"event": event, "time": self.time, **values}))
        self.events.append(line)
        self.state.apply(line)

    def begin(self, workers: int = 1) -> None:
        self.write("begin", format=1, workers=workers, host="node", process=1, versions={"torch": "2.14.1"})

    def start(self, task: Task) -> None:
        """It is handed out."""
        self.model(task.model)
        self.write("job", job=task.key)

    def finish(self, task: Task) -> None:
        """It comes to its end."""
        if task.kind == "train":
            self.trained(task.model)
        elif task.kind == "attack":
            self.attacked(task.model, split=task.split, chunk=task.chunk)
        else:
            self.looked(task.model)
        self.over(task)

    def over(self, task: Task, status: str = "reached", reason: str = "") -> None:
        more = {"model_inputs": INPUTS} if status == "reached" and task.kind != "checks" else {}
        ended = {"model": task.model.id, "job": task.key, "kind": task.kind, "status": status, "reason": reason}
        self.write("job_end", **ended | more)

    def model(self, model: Model) -> None:
        if model.id not in self.state.models:
            about = {"model": model.id, "candidate": model.candidate, "seed": model.seed, "weights": model.weights}
            self.write("model", **about, recipe=to_plain(model.recipe))

    def trained(self, model: Model) -> None:
        """All its epochs; in the last one it is best."""
        share = self.shares.get(model.candidate, 0.5)
        for epoch in range(1, 5):
            right = round(200 * share * (epoch / 4))
            self.write(
                "epoch",
                model=model.id,
                job=Task("train", model).key,
                epoch=epoch,
                is_rung=epoch in (2, 4),
                robust_correct_validation=right,
                clean_correct_validation=round(200 * min(1.0, share + 0.2)),
                total_validation=200,
                seconds_attack=0.5,
                seconds_update=0.25,
                seconds_evaluation=0.25,
                **({"masking_validation": dict(self.masking)} if epoch == 4 else {}),
            )

    def in_place(self, candidate: Candidate, count: int = 0) -> list[Model]:
        """So many models of a candidate, trained."""
        models = self.plan.models(candidate, count or self.plan.other_seeds)
        for model in models:
            self.model(model)
            if not model.weights:
                self.trained(model)
                self.over(Task("train", model))
        return models

    def chunk_of(self, split: str, chunk: int) -> range:
        """The places of its images in the split."""
        return range(chunk * self.plan.chunk, min(self.totals[split], (chunk + 1) * self.plan.chunk))

    def survivors(self, model: Model, split: str, chunk: int) -> list[bool]:
        """Which images survive: the same ones are hard for all, a few differ by model."""
        share, own = self.shares.get(model.candidate, 0.5), np.random.default_rng([model.seed, len(split), 7])
        hardness = np.random.default_rng([len(split), 3]).random(self.totals[split])
        moved = hardness + 0.05 * own.standard_normal(self.totals[split])
        return [bool(moved[place] < share) for place in self.chunk_of(split, chunk)]

    def attacked(
        self,
        model: Model,
        survive: Iterable[bool] | None = None,
        split: str = "validation",
        chunk: int = 0,
        warnings: Mapping[str, Sequence[str]] | None = None,
        by_square: int = 0,
        wrong: int = 0,
    ) -> None:
        """A chunk goes through its cascade: the first `wrong` are misclassified, the last attack alone breaks
        `by_square` more.
        """
        cascade = cascade_of(self.plan, split, chunk)
        places = self.chunk_of(split, chunk)
        labels = [place % self.classes for place in places]
        left = list(self.survivors(model, split, chunk) if survive is None else survive)
        broken = [(label + 1) % self.classes for label in labels]
        after = [label if one else other for label, one, other in zip(labels, left, broken, strict=True)]
        attacks = attacks_of(cascade, self.classes)
        for attack in (CLEAN, *attacks):
            classes = [*broken[:wrong], *labels[wrong:]] if attack == CLEAN else list(after)
            if attack == "square":
                study_status = [place for place, one in enumerate(left) if one][:by_square]
                for place in study_status:
                    classes[place] = broken[place]
            self.write(
                "step",
                model=model.id,
                job=Task("attack", model, split, chunk, cascade).key,
                scope=self.plan.scope(split),
                chunk=chunk,
                attack=attack,
                classes=classes,
                warnings=list((warnings or {}).get(attack, ())),
                labels=labels,
                total=self.totals[split],
                of_classes=self.classes,
                worker="10.0.0.1:7",
            )

    def attacked_all(self, models: Iterable[Model], split: str = "validation", **more: Any) -> None:
        """All chunks of a split, for each model."""
        for model in models:
            for chunk in range(-(-self.totals[split] // self.plan.chunk)):
                self.attacked(model, split=split, chunk=chunk, **more)
        # A worker that judged a model has told what the data are.
        self.state.model_inputs = INPUTS

    def looked(self, model: Model, broken: int = 0, images: int = 20, masking: Mapping[str, Any] | None = None) -> None:
        """The transfer attack on it found nothing, or `broken` images."""
        baseline = baseline_of(self.plan, model)
        if masking is None and model.weights:
            masking = HONEST
        values = {"broken": broken, "images": images, "masking": dict(masking) if masking else None}
        job = Task("checks", model, baseline=baseline).key
        self.write("checks", model=model.id, job=job, baseline=baseline.id if baseline else "", **values)

    def opened(self, closed: bool = True) -> None:
        self.write("test_access", number=1, command="hcpr_tune verdict x --test")
        if closed:
            self.write("test_access_end")

    def end(self, reason: str = "finished") -> None:
        self.write("end", reason=reason)


def judged(plan: Plan, shares: Mapping[str, float], **more: Any) -> Facts:
    """All that the first stage of a plan asks for."""
    facts = Facts(plan, shares, **more)
    for one in plan.candidates:
        models = facts.in_place(one)
        facts.attacked_all(models)
        for model in models:
            facts.looked(model)
    return facts
