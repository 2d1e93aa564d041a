"""Progress messages of a running verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hcpr_tune.search.record.events.verdict import VerdictEvent
from hcpr_tune.verdict.decision.selection import best_epoch, chosen_attack
from hcpr_tune.verdict.plan import Plan
from hcpr_tune.verdict.state import State
from hcpr_tune.views.wording import counted

Tell = Callable[[dict[str, Any]], None]


class Progress:
    """A listener that reports each trained model, and each model that was attacked on all chunks of a split.

    In between `waits` is told of each epoch and each attacked chunk.
    """

    def __init__(self, plan: Plan, tell: Tell, waits: Callable[[str], None] = lambda words: None) -> None:
        self._plan, self._tell, self._waits = plan, tell, waits
        self._announced: set[tuple[str, str]] = set()

    def on_event(self, event: VerdictEvent, history: State) -> None:
        self._report(event, history)
        if words := waiting_words(event, history):
            self._waits(words)

    def _report(self, event: VerdictEvent, history: State) -> None:
        if event["event"] == "test_access":
            self._tell({"news": "test_access", "number": event["number"]})
        if event["event"] != "job_end":
            return
        model = history.models[event["model"]]
        who = {"candidate": model.candidate, "seed": model.seed}
        if event["status"] not in ("reached", "broken off"):
            self._tell({"news": "trouble", **who, "what": f"{event['status']}: {event['reason']}"})
        elif event["kind"] == "train" and model.finished:
            best = model.scores.get(best_epoch(self._plan, model))
            self._tell({"news": "trained", **who, "robust_accuracy": best["robust_accuracy"] if best else None})
        elif event["kind"] == "attack":
            self._attacked(event["model"], who, history)

    def _attacked(self, model: str, who: dict[str, Any], state: State) -> None:
        for split in ("validation", "test"):
            scope, attack = self._plan.scope(split), chosen_attack(self._plan, split, state.classes)
            after = [
                (chunk.labels, step.classes)
                for (one, at, _), chunk in state.chunks.items()
                if (one, at) == (model, scope) and (step := chunk.after(attack)) is not None
            ]
            images = sum(len(labels) for labels, _ in after)
            if images < state.totals.get(scope, 1) or (model, split) in self._announced:
                continue
            self._announced.add((model, split))
            right = sum(one == other for labels, classes in after for one, other in zip(labels, classes, strict=True))
            self._tell({"news": "attacked", **who, "split": split, "images": images, "robust_accuracy": right / images})

    def close(self) -> None:
        pass


def waiting_words(event: VerdictEvent, state: State) -> str:
    """How far the verdict is, after an event that says so; empty for others."""
    if event["event"] not in ("epoch", "step", "job_end"):
        return ""
    trained = sum(model.finished for model in state.models.values())
    attacks = sum(len(chunk.steps) for chunk in state.chunks.values())
    words = f"verdict: {counted(trained, 'model')} trained, {counted(attacks, 'attack')} on chunks of images done"
    if event["event"] == "epoch":
        model = state.models[event["model"]]
        return f"{words}; {model.candidate}, seed {model.seed}: epoch {event['epoch']} of {model.rung_epochs[-1]}"
    if event["event"] == "step":
        model = state.models[event["model"]]
        return f"{words}; {model.candidate}, seed {model.seed}: {event['attack']}, chunk {event['chunk'] + 1}"
    return words
