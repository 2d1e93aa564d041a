"""The course of a search: optimisation history, distribution of the scores, and which worker trained what when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median
from typing import NamedTuple

import plotly.graph_objects as go

from hcpr_tune.search.record.events.fields import trained_seconds
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import rung_accuracies
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
from hcpr_tune.views.wording import number, percent

MOST_BARS = 2000
"""The most bars of a timeline: a browser takes a second for a few thousand."""
NOTHING_SCORED = "No trial has reached a rung yet: there is no score to show."


def optimisation_history(study: StudySpec, history: History) -> Shown:
    """The score of each trial in the order in which they began, and the best one at the last epoch so far."""
    scored = [trial for trial in history.trials.values() if trial.rungs]
    if not scored:
        return Shown(NOTHING_SCORED)
    figure, drawn = go.Figure(), {trial.number for trial in few(study, history, scored)}
    for kind, trials in by_kind(study, history).items():
        name, colour, marker = KINDS[kind]
        shown = [trial for trial in trials if trial.number in drawn]
        loud = kind in ("best", "published")
        figure.add_trace(
            go.Scatter(
                x=[trial.number for trial in shown],
                y=[trial.score for trial in shown],
                mode="markers",
                marker={"color": colour, "symbol": marker, "size": 13 if loud else 8},
                name=name,
                customdata=[[trial.best_rung, values_of(trial)] for trial in shown],
                hovertemplate="<b>trial %{x}</b>, epoch %{customdata[0]}<br>robust %{y:.1%}<br>%{customdata[1]}"
                "<extra></extra>",
            )
        )
    best = list(best_so_far(history))
    figure.add_trace(
        go.Scatter(
            x=[trial for trial, _ in best],
            y=[score for _, score in best],
            mode="lines",
            line={"color": GREEN, "shape": "hv"},
            name=f"best at epoch {history.last_epoch} so far",
            hoverinfo="skip",
        )
    )
    axes(figure, "trial", "robust accuracy (validation)")
    figure.update_yaxes(tickformat=".0%")
    top = f"; the best at the last epoch, {history.last_epoch}, is {percent(best[-1][1])}" if best else ""
    return Shown(
        f"{number(len(scored), 'trial')}, each with the score of its best rung{top}. Scores of trials that were stopped"
        f" early are of fewer epochs.{few_words(len(drawn), len(scored))}",
        figure,
    )


def best_so_far(history: History) -> Iterator[tuple[int, float]]:
    """(trial, score) at each rise of the best robust accuracy at the last epoch, and at the last trial."""
    best = None
    for trial in history.trials.values():
        score = trial.rungs.get(history.last_epoch)
        if score is not None and (best is None or score > best):
            best = score
            yield trial.number, best
    if best is not None:
        yield max(history.trials), best


def distribution(study: StudySpec, history: History) -> Shown:
    """The empirical distribution of the scores at each rung."""
    at_rung = {
        rung: sorted(trial.rungs[rung] for trial in history.trials.values() if rung in trial.rungs)
        for rung in study.rungs
    }
    at_rung = {rung: scores for rung, scores in at_rung.items() if scores}
    if not at_rung:
        return Shown(NOTHING_SCORED)
    figure = go.Figure()
    colours = (GREY, BLUE, PURPLE, RED, ORANGE, GREEN)
    for place, (rung, scores) in enumerate(at_rung.items()):
        figure.add_trace(
            steps_of(scores, f"epoch {rung}", GREEN if rung == study.rungs[-1] else colours[place % len(colours)])
        )
    axes(figure, "robust accuracy (validation)", "share of trials below")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    middle = ", ".join(
        f"{percent(median(scores))} at epoch {rung} ({number(len(scores), 'trial')})"
        for rung, scores in at_rung.items()
    )
    return Shown(f"The share of trials that score below a value, at each rung. Median: {middle}.", figure)


def steps_of(scores: Sequence[float], name: str, colour: str) -> go.Scatter:
    """The empirical distribution function of sorted scores."""
    return go.Scatter(
        x=[scores[0], *scores],
        y=[0.0, *((place + 1) / len(scores) for place in range(len(scores)))],
        mode="lines",
        line={"shape": "hv", "color": colour},
        name=name,
        hovertemplate="%{y:.0%} are at most %{x:.1%}<extra>" + name + "</extra>",
    )


class Bar(NamedTuple):
    """A stretch of epochs that one worker trained of one trial; times in seconds since 1970."""

    worker: str
    trial: Trial
    begin: float
    end: float
    epochs: tuple[int, int]


def timeline(study: StudySpec, history: History) -> Shown:
    """Which worker trained which trial when."""
    bars = sorted(bars_of(history), key=lambda bar: bar.begin)
    if not bars:
        return Shown("No epoch has been trained yet: there is no timeline to show.")
    drawn, best = bars[-MOST_BARS:], history.best_trial
    workers = {worker: f"worker {place}" for place, worker in enumerate(sorted({bar.worker for bar in drawn}), 1)}
    figure = go.Figure()
    for kind, (name, colour, _) in KINDS.items():
        of_kind = [bar for bar in drawn if kind_of(bar.trial, best) == kind]
        if of_kind:
            figure.add_trace(
                go.Bar(
                    base=[str(datetime.fromtimestamp(bar.begin)) for bar in of_kind],
                    x=[1000 * (bar.end - bar.begin) for bar in of_kind],  # milliseconds, as plotly has dates
                    y=[workers[bar.worker] for bar in of_kind],
                    orientation="h",
                    marker={"color": colour, "line": {"width": 0.5, "color": "rgba(128,128,128,0.6)"}},
                    name=name,
                    customdata=[
                        [bar.trial.number, f"{bar.epochs[0]} to {bar.epochs[1]}", bar.worker, bar.end - bar.begin]
                        for bar in of_kind
                    ],
                    hovertemplate="<b>trial %{customdata[0]}</b>, epochs %{customdata[1]}<br>%{customdata[3]:.1f} s on"
                    " %{customdata[2]}<extra></extra>",
                )
            )
    axes(figure, "time", "")
    figure.update_xaxes(type="date")
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(workers.values())))
    figure.update_layout(barmode="overlay", height=max(220, 140 + 26 * len(workers)))
    more = f" The latest {len(drawn)} of {len(bars)} are shown." if len(drawn) < len(bars) else ""
    what = "stretch" if len(bars) == 1 else "stretches"
    return Shown(
        f"{len(bars)} {what} of training on {number(len(workers), 'worker')}, in the order of time; gaps are start-up"
        f" and waiting.{more}",
        figure,
    )


def bars_of(history: History) -> Iterator[Bar]:
    """The stretches of consecutive epochs of each trial on one worker."""
    for trial in history.trials.values():
        bar: Bar | None = None
        for _, event in sorted(trial.epochs.items()):
            worker, epoch = str(event.get("worker") or "?"), event["epoch"]
            begin = event["time"] - trained_seconds(event) - event.get("seconds_checkpoint", 0.0)
            # A second between two epochs: the trial was stopped in between and promoted later.
            if bar is not None and bar.worker == worker and epoch == bar.epochs[1] + 1 and begin - bar.end < 1:
                bar = bar._replace(end=event["time"], epochs=(bar.epochs[0], epoch))
                continue
            if bar is not None:
                yield bar
            bar = Bar(worker, trial, begin, event["time"], (epoch, epoch))
        if bar is not None:
            yield bar


def trial_curves(study: StudySpec, history: History, trial: Trial) -> Shown:
    """Accuracies and loss of one trial by epoch."""
    epochs = [event for _, event in sorted(trial.epochs.items())]
    if not epochs:
        return Shown("No epoch of it has been trained yet.")
    positions = sorted(trial.epochs)
    figure = go.Figure()
    for name, field, colour in (
        ("robust accuracy", "robust_correct_validation", GREEN),
        ("clean accuracy", "clean_correct_validation", BLUE),
    ):
        points = [
            (position, event[field] / event["total_validation"])  # type: ignore[literal-required]
            for position, event in zip(positions, epochs, strict=True)
            if field in event
        ]
        figure.add_trace(
            go.Scatter(
                x=[position for position, _ in points],
                y=[share for _, share in points],
                mode="lines+markers",
                line={"color": colour},
                name=name,
                hovertemplate="epoch %{x}: %{y:.1%}<extra>" + name + "</extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=positions,
            y=[event["loss"] for event in epochs],
            mode="lines",
            line={"color": GREY, "dash": "dot"},
            name="training loss (right axis)",
            yaxis="y2",
            hovertemplate="epoch %{x}: loss %{y:.3f}<extra></extra>",
        )
    )
    for position in trial.positions.values():
        figure.add_vline(x=position, line={"color": GREY, "width": 1, "dash": "dash"}, opacity=0.6)
    axes(figure, "epochs trained", "accuracy (validation)")
    figure.update_layout(
        yaxis={"tickformat": ".0%"},
        yaxis2={"overlaying": "y", "side": "right", "title": "training loss", "showgrid": False, "automargin": True},
    )
    found = rung_accuracies(trial)
    best = f"; best rung: {found['robust_accuracy_validation']} robust at epoch {trial.best_rung}" if found else ""
    return Shown(f"{number(len(epochs), 'epoch')} trained{best}. Dashed lines are rungs.", figure)
