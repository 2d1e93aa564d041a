"""What all figures share: the kinds of trials and their colours, axes, captions, and which trials to draw."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.spec.study import StudySpec

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3b82c4", "#e69f00", "#0f9d76", "#d55e00", "#b06fa8", "#8a8f98"
"""Distinguishable with colour blindness (after Okabe and Ito), and visible on white and on black."""
KINDS = {
    "stopped": ("stopped early", GREY, "circle"),
    "lost": ("diverged or failed", RED, "x"),
    "unfinished": ("unfinished", PURPLE, "circle-open"),
    "completed": ("completed", BLUE, "circle"),
    "replicate": ("trained again", GREEN, "star-open"),
    "published": ("published recipe", ORANGE, "diamond"),
    "best": ("best", GREEN, "star"),
}
"""The kinds of trials in a figure, drawn in this order: name, colour, marker."""


MOST_DRAWN = 1000
"""The most trials that a figure draws."""


@dataclass(frozen=True)
class Shown:
    """A figure and its caption; without a figure, the reason why there is none."""

    says: str
    figure: go.Figure | None = None
    least_width: int = 0
    """Minimum width in pixels; on narrower pages the figure scrolls."""


def kind_of(trial: Trial, best: Trial | None) -> str:
    """The kind of a trial; one of `KINDS`."""
    if best is not None and trial.number == best.number:
        return "best"
    if trial.number == 0:
        return "published"
    if trial.lost:
        return "lost"
    if trial.replicate_of is not None:
        return "replicate"
    return trial.state if trial.state in ("stopped", "completed") else "unfinished"


def by_kind(study: StudySpec, history: History) -> dict[str, list[Trial]]:
    """The trials by kind, in the order of `KINDS`, without empty kinds."""
    best = history.best_trial
    found: dict[str, list[Trial]] = {kind: [] for kind in KINDS}
    for trial in history.trials.values():
        found[kind_of(trial, best)].append(trial)
    return {kind: trials for kind, trials in found.items() if trials}


def few(study: StudySpec, history: History, trials: Sequence[Trial], most: int = 0) -> list[Trial]:
    """The trials to draw, at most `most` (default: `MOST_DRAWN`).

    If there are more: the best, the front, the published one, and a fixed sample of the rest. A browser takes a second
    for a thousand lines.
    """
    most = most or MOST_DRAWN
    if len(trials) <= most:
        return list(trials)
    chosen = [history.best_trial, history.trials.get(0), *history.best_trials, *history.ranked()[: most // 4]]
    asked = {trial.number for trial in trials}
    kept = list(dict.fromkeys(trial.number for trial in chosen if trial is not None and trial.number in asked))
    kept = kept[: most // 2]
    rest = sorted(asked - set(kept))
    drawn = {*kept, *random.Random(0).sample(rest, most - len(kept))}
    return [trial for trial in trials if trial.number in drawn]


def few_words(drawn: int, total: int) -> str:
    """A note on the trials that are left out, if any."""
    if drawn == total:
        return ""
    return (
        f" Of {total} trials {drawn} are shown: the best, the front, the published recipe, and a fixed sample of the"
        " others; trials.csv has all."
    )


def values_of(trial: Trial) -> str:
    """A trial's searched values, one per line, for a hover text."""
    if trial.number == 0:
        return "the published recipe"
    if trial.replicate_of is not None:
        return f"the recipe of trial {trial.replicate_of}, on another seed"
    shown = (
        f"{name.removeprefix('hcpr.')} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in trial.params.items()
    )
    return "<br>".join(map(escape, shown))


def axes(figure: go.Figure, x: str, y: str) -> None:
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    figure.update_layout(
        height=440,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 16, "t": 48, "b": 56},
    )


def quietly(draw: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call `draw` without Optuna's warnings and messages about experimental plots and multi-objective studies."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return draw(*arguments, **named)
    finally:
        optuna.logging.set_verbosity(level)
