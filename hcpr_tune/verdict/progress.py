"""Progress messages of a running verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hcpr_tune.search.record.events.verdict import VerdictEvent
from hcpr_tune.verdict.decision.selection import best_epoch, chosen_attack
from hcpr_tune.verdict.plan import Plan
from hcpr_tune.verdict.state import State

Tell = Callable[[dict[str, Any]], None]


class Progress:
    """A listener that reports each trained model, and each model that was attacked on all chunks of a split."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell = plan, tell
        self._announced: set[tuple[str, str]] = set()

    def on_event(self, event: VerdictEvent, history: State) -> None:
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
