"""The progress of the trials: their accuracies, learning curves, rank correlations of the rungs, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hcpr_tune.common.intervals import Proportion
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.ledger import ledger
from hcpr_tune.search.record.metrics import rung_accuracies
from hcpr_tune.search.record.ranking import Ranking
from hcpr_tune.search.scheduling.rung_correlation import rung_correlations
from hcpr_tune.search.spec.objectives import OBJECTIVES, Goal
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.report.figures.shown import (
    BLUE,
    GREEN,
    GREY,
    KINDS,
    ORANGE,
    PURPLE,
    RED,
    Shown,
    axes,
    by_kind,
    few,
    few_words,
    kind_of,
    values_of,
)
from hcpr_tune.views.summary import rung_lines, stopped_at
from hcpr_tune.views.wording import number

MOST_CURVE_POINTS = 12_000


def accuracies(study: StudySpec, history: History) -> Shown:
    """Robust against clean accuracy of each trial at its best rung, with the Pareto front."""
    figure = go.Figure()
    drawn = few(study, history, history.ranked())
    shown_ones = {trial.number for trial in drawn}
    for kind, trials in by_kind(study, history).items():
        scored = [
            (trial, found)
            for trial in trials
            if trial.number in shown_ones and (found := rung_accuracies(trial)) is not None
        ]
        figure.add_trace(_cloud(kind, scored))
    if not drawn:
        return Shown("No trial has reached a rung yet: there is no accuracy to show.")
    members, count = _front_of_both(history)
    figure.add_trace(
        go.Scatter(
            x=[clean for clean, _ in members],
            y=[robust for _, robust in members],
            mode="lines",
            line={"color": GREY, "dash": "dot", "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    axes(figure, "clean accuracy (validation)", "robust accuracy (validation)")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(tickformat=".0%")
    return Shown(
        f"{number(len(history.ranked()), 'trial')}, each at its best rung, with the 95 % interval of its robust"
        f" accuracy. Further right is better on clean images, higher is better under attack. {count} of them form the"
        " Pareto front: no other trial beats them in both accuracies." + few_words(len(drawn), len(history.ranked())),
        figure,
    )


def _cloud(kind: str, scored: Sequence[tuple[Trial, dict[str, Proportion]]]) -> go.Scatter:
    name, colour, marker = KINDS[kind]
    robust = [found["robust_accuracy_validation"] for _, found in scored]
    clean = [found["clean_accuracy_validation"] for _, found in scored]
    loud = kind in ("best", "published")
    return go.Scatter(
        x=[one.share for one in clean],
        y=[one.share for one in robust],
        error_y={
            "array": [one.interval[1] - one.share for one in robust],
            "arrayminus": [one.share - one.interval[0] for one in robust],
            "thickness": 1.5 if loud else 0.4,
            "width": 0,
        },
        mode="markers",
        marker={"color": colour, "symbol": marker, "size": 13 if loud else 8},
        name=name,
        customdata=[[trial.number, trial.best_rung, values_of(trial)] for trial, _ in scored],
        hovertemplate="<b>trial %{customdata[0]}</b>, epoch %{customdata[1]}<br>"
        "robust %{y:.1%}, clean %{x:.1%}<br>%{customdata[2]}<extra></extra>",
    )


def _front_of_both(history: History) -> tuple[list[tuple[float, float]], int]:
    """The Pareto front of both accuracies, whatever the study's objective.

    Returns its distinct points (clean, robust), sorted by clean accuracy, and the number of trials on it.
    """
    front = Ranking(Goal(OBJECTIVES), history.trials.values()).front
    scores = [trial.scores[trial.best_rung] for trial in front]
    return sorted({(one["clean_accuracy"], one["robust_accuracy"]) for one in scores}), len(front)


def curves(study: StudySpec, history: History) -> Shown:
    """Robust accuracy by epoch, and the epoch at which each trial stopped."""
    figure = go.Figure()
    with_curves = [trial for trial in history.trials.values() if _evaluated(trial)]
    drawn = few(study, history, with_curves)
    evaluated = {trial.number: _evaluated(trial) for trial in drawn}
    total = sum(map(len, evaluated.values()))
    if not total:
        return Shown("No epoch has been evaluated yet: there is no curve to show.")
    for kind, trials in by_kind(study, history).items():
        points = {one.number: _thinned(one, evaluated[one.number], total) for one in trials if one.number in evaluated}
        if points:
            figure.add_trace(_lines(kind, points, history))
    # If each rung is a separate training, epochs are counted on across rungs, and a rung has no fixed position.
    for rung in () if study.restarted else study.rungs:
        figure.add_vline(x=rung, line={"color": GREY, "width": 1, "dash": "dash"}, opacity=0.6)
    axes(figure, "epochs trained", "robust accuracy (validation)")
    figure.update_yaxes(tickformat=".0%")
    stops = ", ".join(f"{count} at rung {rung}" for rung, count in stopped_at(history).items())
    rungs = ", ".join(map(str, study.rungs))
    thinned = (
        f" Of {total} evaluated epochs about {MOST_CURVE_POINTS} are shown; metrics.jsonl of each trial has all."
        if total > MOST_CURVE_POINTS
        else ""
    )
    where = f"The rungs, at epochs {rungs}, are dashed lines."
    if study.restarted:
        where = f"Each rung, at epochs {rungs}, is a separate training; they are shown one after the other."
    return Shown(
        f"One line for each trial. {where} Stopped early: {stops or 'none'}."
        f"{thinned}{few_words(len(drawn), len(with_curves))}",
        figure,
    )


def _evaluated(trial: Trial) -> list[tuple[int, float, float]]:
    """(epochs trained, robust, clean) for each evaluated epoch."""
    return [
        (
            epoch,
            event["robust_correct_validation"] / event["total_validation"],
            event["clean_correct_validation"] / event["total_validation"],
        )
        for epoch, event in sorted(trial.epochs.items())
        if "robust_correct_validation" in event
    ]


def _thinned(trial: Trial, points: list[tuple[int, float, float]], total: int) -> list[tuple[int, float, float]]:
    """Every nth point, so that all trials together have about `MOST_CURVE_POINTS`; keeps rungs and the last point."""
    every = -(-total // MOST_CURVE_POINTS)
    rungs = set(trial.positions.values())
    return [
        point
        for index, point in enumerate(points)
        if index % every == 0 or point[0] in rungs or index == len(points) - 1
    ]


def _lines(kind: str, points: dict[int, list[tuple[int, float, float]]], history: History) -> go.Scatter:
    """The curves of one kind of trials as one trace with gaps: hundreds of traces would make a browser slow."""
    name, colour, marker = KINDS[kind]
    x: list[int | None] = []
    y: list[float | None] = []
    more: list[list[Any]] = []
    for number_of, line in points.items():
        reason = escape(history.trials[number_of].reason)
        trial, before = history.trials[number_of], 0
        for position, robust, clean in line:
            epoch = trial.epochs[position]["epoch"]
            if position - epoch != before and x and x[-1] is not None:  # another training, so another model
                x, y, more = [*x, None], [*y, None], [*more, [None] * 4]
            before = position - epoch
            x.append(position)
            y.append(round(robust, 5))
            more.append([number_of, round(clean, 5), reason, epoch])
        x.append(None)
        y.append(None)
        more.append([None] * 4)
    loud = kind in ("best", "published")
    return go.Scatter(
        x=x,
        y=y,
        customdata=more,
        mode="lines+markers",
        line={"color": colour, "width": 3 if loud else 1},
        marker={"symbol": marker, "size": 8 if loud else 4},
        opacity=1.0 if loud or kind == "completed" else 0.6,
        name=name,
        hovertemplate="<b>trial %{customdata[0]}</b>, epoch %{customdata[3]}<br>"
        "robust %{y:.1%}, clean %{customdata[1]:.1%}<br>%{customdata[2]}<extra></extra>",
    )


def rungs(study: StudySpec, history: History) -> Shown:
    """The score at each rung against a later score."""
    correlations = rung_correlations(history, study.rungs)
    if not correlations:
        return Shown("There is only one rung: nothing is stopped early.")
    pairs = {
        rung: [one for one in history.trials.values() if {rung, rung_correlation.end.later} <= one.scores.keys()]
        for rung, rung_correlation in correlations.items()
    }
    total = max(map(len, pairs.values()))
    pairs = {rung: few(study, history, trials) for rung, trials in pairs.items()}
    both = len(study.settings.objective) > 1 or bool(study.goal.floors)
    least = " The correlation is the lower one of the two accuracies; the robust one is shown." if both else ""
    lines = [line[0].upper() + line[1:] for line in rung_lines(study, history)]
    said = f"{'. '.join(lines)}. Points along a rising line mean that an early score predicts the final one.{least}"
    said += few_words(max(map(len, pairs.values())), total)
    if not any(pairs.values()):
        return Shown(said)
    figure = make_subplots(rows=1, cols=len(pairs), horizontal_spacing=0.08)
    best = history.best_trial
    for column, (rung, trials) in enumerate(pairs.items(), start=1):
        later = correlations[rung].end.later
        figure.add_trace(_rung_points(rung, later, trials, best), row=1, col=column)
        figure.update_xaxes(title=f"robust accuracy at epoch {rung}", tickformat=".0%", row=1, col=column)
        figure.update_yaxes(title=f"at epoch {later}", tickformat=".0%", row=1, col=column)
    figure.update_layout(height=360, showlegend=False, margin={"l": 60, "r": 16, "t": 16, "b": 56})
    return Shown(said, figure, least_width=320 * len(pairs))


def _rung_points(rung: int, later: int, trials: Sequence[Trial], best: Trial | None) -> go.Scatter:
    kinds = [kind_of(trial, best) for trial in trials]
    return go.Scatter(
        x=[trial.rungs[rung] for trial in trials],
        y=[trial.rungs[later] for trial in trials],
        mode="markers",
        marker={"color": [KINDS[kind][1] for kind in kinds], "symbol": [KINDS[kind][2] for kind in kinds], "size": 9},
        customdata=[[trial.number, KINDS[kind][0]] for trial, kind in zip(trials, kinds, strict=True)],
        hovertemplate="<b>trial %{customdata[0]}</b> (%{customdata[1]})<br>%{x:.1%}, later %{y:.1%}<extra></extra>",
    )


PURPOSES = {
    "attack": ("attack", RED),
    "update": ("training", BLUE),
    "evaluation": ("evaluation", GREEN),
    "checkpoint": ("checkpoints", PURPLE),
    "startup": ("start-up", ORANGE),
    "other": ("other", "#5b616b"),
    "idle": ("idle", GREY),
}
"""Labels and colours of the ledger's parts."""


def costs(study: StudySpec, history: History) -> Shown:
    """Where the workers' time went, and what early stopping saved."""
    account = ledger(history, study.asha_config)
    total, saved = account["total"], account["saved_by_halving"]
    there = sum(total[name] for name in PURPOSES)
    if not there:
        return Shown("No time has been spent yet.")
    unit, seconds = ("hours", 3600) if there >= 7200 else ("minutes", 60)
    figure = go.Figure()
    for name, (words, colour) in PURPOSES.items():
        figure.add_trace(_cost_bar(words, total[name] / seconds, "spent", {"color": colour}, unit))
    pattern = {"color": "rgba(138,143,152,0.25)", "line": {"color": GREY, "width": 1}, "pattern": {"shape": "/"}}
    figure.add_trace(_cost_bar("not spent", saved / seconds, "saved", pattern, unit))
    axes(figure, f"{unit} of workers' time", "")
    figure.update_layout(barmode="stack", height=300, legend={"traceorder": "normal"})
    shares = ", ".join(
        f"{words} {100 * total[name] / there:.0f} %"
        for name, (words, _) in PURPOSES.items()
        if total[name] >= 0.005 * there
    )
    said = (
        f"{there / seconds:.1f} {unit} of workers' time: {shares}. Training the stopped trials to the end would have"
        f" taken about {saved / seconds:.1f} {unit} more."
    )
    audit = account["audit"]
    if audit is not None:
        said += (
            f" Audit: {audit['better_than_the_best']} of {audit['completed']} stopped trials that were run to the end"
            f" beat the best, by at most {audit['most_points_lost']:.1f} points."
        )
    return Shown(said, figure)


def _cost_bar(name: str, value: float, row: str, marker: dict[str, Any], unit: str) -> go.Bar:
    return go.Bar(
        x=[value],
        y=[row],
        orientation="h",
        name=name,
        marker=marker,
        hovertemplate=f"{name}: %{{x:.2f}} {unit}<extra></extra>",
    )
