"""What the pictures share: the kinds of trials and their colours, axes, and the sentence that goes with each."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.results import front, winner
from hcpr_tune.search.spec.study import Study

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3b82c4", "#e69f00", "#0f9d76", "#d55e00", "#b06fa8", "#8a8f98"
"""Told apart by the colour-blind (after Okabe and Ito), and seen on white and on black."""
KINDS = {
    "stopped": ("stopped early", GREY, "circle"),
    "lost": ("diverged or failed", RED, "x"),
    "unfinished": ("not at the end", PURPLE, "circle-open"),
    "completed": ("completed", BLUE, "circle"),
    "published": ("published recipe", ORANGE, "diamond"),
    "best": ("best", GREEN, "star"),
}
"""The kinds of trials in a picture, those in front last: name, colour, marker."""


MOST_DRAWN = 1000
"""Trials that a picture draws."""


@dataclass(frozen=True)
class Shown:
    """A picture and what it says; without a figure, why there is none."""

    says: str
    figure: go.Figure | None = None
    least_width: int = 0
    """Pixels below which it cannot be read: narrower pages scroll it."""


def kind_of(trial: Trial, best: Trial | None) -> str:
    """How a picture shows a trial; see `KINDS`."""
    if best is not None and trial.number == best.number:
        return "best"
    if trial.number == 0:
        return "published"
    if trial.lost:
        return "lost"
    return trial.state if trial.state in ("stopped", "completed") else "unfinished"


def by_kind(study: Study, history: History) -> dict[str, list[Trial]]:
    """The trials of each kind that there is, in the order of `KINDS`."""
    best = winner(study, history)
    found: dict[str, list[Trial]] = {kind: [] for kind in KINDS}
    for trial in history.trials.values():
        found[kind_of(trial, best)].append(trial)
    return {kind: trials for kind, trials in found.items() if trials}


def few(study: Study, history: History, trials: Sequence[Trial], most: int = 0) -> list[Trial]:
    """Those that a picture draws: all, or of more than `most` (`MOST_DRAWN`) the best, the front, the published one, and a fixed sample of the rest.

    A browser takes a second for each thousand lines, and a page of all would grow with the study.
    """
    most = most or MOST_DRAWN
    if len(trials) <= most:
        return list(trials)
    chosen = [winner(study, history), history.trials.get(0), *front(study, history), *history.ranked()[: most // 4]]
    asked = {trial.number for trial in trials}
    kept = list(dict.fromkeys(trial.number for trial in chosen if trial is not None and trial.number in asked))
    kept = kept[: most // 2]
    rest = sorted(asked - set(kept))
    drawn = {*kept, *random.Random(0).sample(rest, most - len(kept))}
    return [trial for trial in trials if trial.number in drawn]


def few_words(drawn: int, total: int) -> str:
    """What is said of those that are left out; nothing where there are none."""
    if drawn == total:
        return ""
    return f" Of {total} trials {drawn} are drawn: the best, the front, the published recipe, and a fixed sample of the others; trials.csv has all."


def values_of(trial: Trial) -> str:
    """A trial's searched values, a line each, as text of a picture."""
    if trial.number == 0:
        return "the published recipe"
    shown = (
        f"{name.removeprefix('hcpr.')} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in trial.params.items()
    )
    return "<br>".join(map(escape, shown))


def number(count: int, what: str) -> str:
    """A count in words: `1 trial`, `2 trials`."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def axes(figure: go.Figure, x: str, y: str) -> None:
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    figure.update_layout(
        height=440,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 16, "t": 48, "b": 56},
    )


def quietly(draw: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Optuna warns that its pictures are experimental, and says that two objectives have no trend: neither is for the reader."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return draw(*arguments, **named)
    finally:
        optuna.logging.set_verbosity(level)
