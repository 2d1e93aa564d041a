"""A search compared with its plan, in words."""

from __future__ import annotations

from collections.abc import Callable

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.ledger import against_plan
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.wording import amount, lasting, working

NAMES: dict[str, tuple[str, Callable[[float], str]]] = {
    "workers": ("workers, on average", amount),
    "wall_clock": ("wall-clock time", lasting),
    "worker_seconds": ("workers' time", working),
    "use": ("useful share of it: training, evaluation, checkpoints", lambda share: f"{100 * share:.0f} %"),
    "epochs": ("epochs trained", amount),
    "score": ("score of the best trial", lambda share: f"{100 * share:.1f} %"),
}
"""Label and format of each row of `against_plan`."""
SENTENCE = (
    "The plan predicts the true score of the chosen trial. The search measures it on the images by which the trial was"
    " chosen, so its score is optimistic in comparison."
)
TITLES = ("", "planned", "so far")


def foreseen_rows(study: StudySpec, history: History) -> list[tuple[str, str, str]]:
    """(what, planned, so far) for each figure; empty without a plan."""
    return [(NAMES[name][0], *values) for name, values in _compared(study, history).items()]


def foreseen_line(study: StudySpec, history: History) -> str:
    """The main figures in one line; empty without a plan."""
    compared = _compared(study, history)
    if not compared:
        return ""
    (workers, had), (clock, taken) = compared["workers"], compared["wall_clock"]
    (work, worked), (score, measured) = compared["worker_seconds"], compared["score"]
    return (
        f"plan         {clock} planned on {workers} workers, {taken} taken on {had}; {work} planned, {worked} taken;"
        f" score {score} planned, {measured} measured"
    )


def _compared(study: StudySpec, history: History) -> dict[str, tuple[str, str]]:
    """(planned, so far) in words."""
    return {
        name: (_words(name, planned), _words(name, actual)) for name, planned, actual in against_plan(study, history)
    }


def _words(name: str, value: float | None) -> str:
    return "not known" if value is None else NAMES[name][1](value)
