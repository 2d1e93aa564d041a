"""A search against the plan that was made of it, in words."""

from __future__ import annotations

from collections.abc import Callable

from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.ledger import against_plan
from hcpr_tune.search.spec.study import Study
from hcpr_tune.views.wording import amount, lasting, working

NAMES: dict[str, tuple[str, Callable[[float], str]]] = {
    "workers": ("workers, as a mean over the time", amount),
    "wall_clock": ("time on the clock", lasting),
    "worker_seconds": ("jobs held workers for", working),
    "use": ("of the workers' time for training, evaluation, checkpoints", lambda share: f"{100 * share:.0f} %"),
    "epochs": ("epochs trained", amount),
    "score": ("score of the best trial", lambda share: f"{100 * share:.1f} %"),
}
"""How the rows of `against_plan` are told."""
SENTENCE = "The plan's score is what the chosen trial is truly worth; the search's own was measured on the images that the trial was chosen by, and is optimistic beside it."
TITLES = ("", "foreseen", "so far")


def foreseen_rows(study: Study, history: History) -> list[tuple[str, str, str]]:
    """(what, foreseen, so far) of each; empty where there was no plan."""
    return [(NAMES[name][0], *values) for name, values in _told(study, history).items()]


def foreseen_line(study: Study, history: History) -> str:
    """The most of it in a line; empty where there was no plan."""
    told = _told(study, history)
    if not told:
        return ""
    (workers, had), (clock, taken) = told["workers"], told["wall_clock"]
    (work, worked), (score, measured) = told["worker_seconds"], told["score"]
    return (
        f"plan         {clock} foreseen on {workers} workers, {taken} taken on {had}; {work} foreseen, {worked} taken;"
        f" score {score} foreseen, {measured} measured"
    )


def _told(study: Study, history: History) -> dict[str, tuple[str, str]]:
    """(foreseen, so far) in words."""
    return {
        name: (_words(name, planned), _words(name, actual)) for name, planned, actual in against_plan(study, history)
    }


def _words(name: str, value: float | None) -> str:
    return "not known" if value is None else NAMES[name][1](value)
