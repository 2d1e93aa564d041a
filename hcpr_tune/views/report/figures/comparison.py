"""Several studies in one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import plotly.graph_objects as go

from hcpr_tune.search.record.events.fields import trained_seconds
from hcpr_tune.search.record.history import History
from hcpr_tune.views.report.figures.optimisation import NOTHING_SCORED, steps_of
from hcpr_tune.views.report.figures.shown import BLUE, GREEN, ORANGE, PURPLE, RED, Shown, axes

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)


def progress_of_each(histories: Mapping[str, History]) -> Shown:
    """The best robust accuracy of a training to the last epoch, by the workers' time spent until then."""
    figure = go.Figure()
    for place, (name, history) in enumerate(histories.items()):
        points = list(rises(history))
        if points:
            figure.add_trace(
                go.Scatter(
                    x=[minutes for minutes, _ in points],
                    y=[score for _, score in points],
                    mode="lines+markers",
                    line={"shape": "hv", "color": COLOURS[place % len(COLOURS)]},
                    name=name,
                    hovertemplate="%{y:.1%} after %{x:.1f} min<extra>%{fullData.name}</extra>",
                )
            )
    if not figure.data:
        return Shown("No trial has reached its last epoch yet.")
    axes(figure, "minutes of training on all workers", "best robust accuracy (validation)")
    figure.update_yaxes(tickformat=".0%")
    return Shown(
        "The best score of a training to the last epoch, by the time that workers had trained by then. Scores are"
        " comparable only between studies of the same task and validation images.",
        figure,
    )


def rises(history: History) -> Iterator[tuple[float, float]]:
    """(minutes trained by all workers, best score at the last epoch) at each rise and at the end."""
    events = (event for trial in history.trials.values() for event in trial.epochs.values())
    seconds, best = 0.0, None
    for event in sorted(events, key=lambda event: event["time"]):
        seconds += trained_seconds(event)
        if event["is_rung"] and event["epoch"] == history.last_epoch:
            score = event["robust_correct_validation"] / event["total_validation"]
            if best is None or score > best:
                best = score
                yield seconds / 60, best
    if best is not None:
        yield seconds / 60, best


def distribution_of_each(histories: Mapping[str, History]) -> Shown:
    """The empirical distributions of the scores at each study's last epoch."""
    figure = go.Figure()
    for place, (name, history) in enumerate(histories.items()):
        scores = sorted(
            trial.rungs[history.last_epoch] for trial in history.trials.values() if history.last_epoch in trial.rungs
        )
        if scores:
            figure.add_trace(steps_of(scores, name, COLOURS[place % len(COLOURS)]))
    if not figure.data:
        return Shown(NOTHING_SCORED)
    axes(figure, "robust accuracy at the last epoch (validation)", "share of trials below")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    return Shown("The share of trials that score below a value at the last epoch of each study.", figure)
