"""The figures of a plan, from plain values (see `plan_words.Result`). Variants are numbered as in the page's table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hcpr_tune.views.plan_words import Result, correlation_words, named, percent_words, short, within, work_unit
from hcpr_tune.views.report.figures.shown import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Shown, axes
from hcpr_tune.views.wording import UNITS, amount, lasting

MOST_LINES = 8
OTHERS = (BLUE, ORANGE, PURPLE, RED, "#56b4e9", "#b59a00", GREY)
"""Colours of the lines other than the chosen variant's."""
KINDS = {
    "beaten": ("dominated", GREY, "circle-open", 9),
    "unbeaten": ("not dominated", BLUE, "circle", 10),
    "chosen": ("recommended", GREEN, "star", 15),
}
"""The kinds of variants, drawn in this order: name, colour, marker, size."""
SIDES = ("top right", "bottom right", "top left", "bottom left")
"""Positions of the points' numbers, in turn, so that those of neighbours do not overlap."""


def scores(results: Sequence[Result], unbeaten: Collection[str], chosen: str, objective: str) -> Shown:
    """The expected score of each variant against its cost."""
    unit, size = work_unit(results)
    figure = go.Figure()
    order = sorted(range(len(results)), key=lambda index: results[index]["worker_seconds"]["mean"])
    sides = {index + 1: SIDES[turn % len(SIDES)] for turn, index in enumerate(order)}
    for kind in KINDS:
        of_kind = [
            (number, one)
            for number, one in enumerate(results, start=1)
            if kind_of(one["variant"], unbeaten, chosen) == kind
        ]
        if of_kind:
            figure.add_trace(_points(kind, of_kind, size, sides))
    axes(figure, unit, f"expected {objective.replace('_', ' ')}")
    # Small differences between variants must not look large.
    hours = [one["worker_seconds"]["mean"] / size for one in results]
    figure.update_xaxes(range=_around(hours, 0.1 * max(hours)))
    shares = [within(one["score"], 0, 1)[end] for one in results for end in ("low_95", "high_95")]
    figure.update_yaxes(tickformat=".1~%", range=_around(shares, 0.01))
    best = named(results, chosen)
    return Shown(
        "The expected score of the trial that a search chooses, with its 95 % interval over the repeats, against the"
        f" {unit} of the search: higher is better, further left is cheaper. The points are numbered as in the table"
        f" above. The recommended variant reaches {percent_words(best['score'])} in"
        f" {amount(best['worker_seconds']['mean'] / size)} {unit}.",
        figure,
    )


def _around(values: Sequence[float], room: float) -> list[float]:
    """The range of an axis around the values, with at least `room` on both sides, and more if the values are spread."""
    least, most = min(values), max(values)
    room = max(room, 0.06 * (most - least))
    return [max(0.0, least - room), most + room]


def kind_of(name: str, unbeaten: Collection[str], chosen: str) -> str:
    """One of `KINDS`."""
    if name == chosen:
        return "chosen"
    return "unbeaten" if name in unbeaten else "beaten"


def _points(kind: str, results: Sequence[tuple[int, Result]], size: float, sides: Mapping[int, str]) -> go.Scatter:
    name, colour, marker, width = KINDS[kind]
    estimates = [within(one["score"], 0, 1) for _, one in results]
    return go.Scatter(
        x=[one["worker_seconds"]["mean"] / size for _, one in results],
        y=[one["mean"] for one in estimates],
        error_y={
            "array": [one["high_95"] - one["mean"] for one in estimates],
            "arrayminus": [one["mean"] - one["low_95"] for one in estimates],
            "thickness": 1,
            "width": 3,
        },
        mode="markers+text",
        text=[str(number) for number, _ in results],
        textposition=[sides[number] for number, _ in results],
        marker={"color": colour, "symbol": marker, "size": width},
        name=name,
        customdata=[
            [escape(one["variant"]), lasting(one["wall_clock_seconds"]["mean"]), percent_words(one["score"])]
            for _, one in results
        ],
        hovertemplate="<b>%{text}: %{customdata[0]}</b><br>score %{customdata[2]}<br>%{customdata[1]} wall-clock,"
        " %{x:.3~g} of work<extra></extra>",
    )


def busy(results: Sequence[Result], unbeaten: Collection[str], chosen: str) -> Shown:
    """The number of busy workers over the time of the search."""
    shown = _foremost(results, unbeaten, chosen)
    longest = max(results[index]["busy"][-1][0] for index in shown)
    size, unit = next(((size, unit) for size, unit in UNITS if longest >= 1.5 * size), UNITS[-1])
    figure = go.Figure()
    others = iter(OTHERS)
    for index in shown:
        one = results[index]
        loud = one["variant"] == chosen
        figure.add_trace(
            _steps(f"{index + 1}: {short(one['variant'])}", one, size, GREEN if loud else next(others), loud)
        )
    axes(figure, f"time ({unit})", "busy workers")
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(rangemode="tozero")
    # Variants have long names, so the legend goes below the figure, one name per line.
    figure.update_layout(
        height=400 + 22 * len(shown),
        showlegend=True,
        legend={"orientation": "v", "y": -0.24, "yanchor": "top", "yref": "paper"},
        margin={"t": 16, "b": 80 + 22 * len(shown)},
    )
    longest_name = max(len(short(results[index]["variant"])) for index in shown)
    left_out = f" {len(shown)} of the {len(results)} variants are shown." if len(shown) < len(results) else ""
    best = named(results, chosen)
    return Shown(
        "The number of busy workers during the first repeat: where a line falls before its end, workers are idle while"
        f" the last trials finish. In the recommended variant {100 * best['use']['mean']:.0f} % of the workers' time"
        f" goes into training, evaluation and checkpoints.{left_out}",
        figure,
        least_width=min(620, 110 + 7 * longest_name),
    )


def _foremost(results: Sequence[Result], unbeaten: Collection[str], chosen: str) -> list[int]:
    """Indices of the variants to draw: the chosen one, the unchanged space, the unbeaten ones, and then others."""

    def rank(index: int) -> tuple[bool, bool, bool, int]:
        name = results[index]["variant"]
        return name != chosen, index != 0, name not in unbeaten, index

    return sorted(sorted(range(len(results)), key=rank)[:MOST_LINES])


def _steps(name: str, one: Result, size: float, colour: str, loud: bool) -> go.Scatter:
    return go.Scatter(
        x=[round(time / size, 5) for time, _ in one["busy"]],
        y=[jobs for _, jobs in one["busy"]],
        mode="lines",
        line={"color": colour, "width": 3 if loud else 1.5, "shape": "hv"},
        name=escape(name),
        hovertemplate="%{y:.3~g} busy at %{x:.3~g}<extra>" + escape(name) + "</extra>",
    )


PANELS = {
    "trials": (1, 1, "trials (solid: stopped)"),
    "correlation": (1, 2, "rank correlation"),
    "saved": (2, 1, "{unit} saved"),
    "lost": (2, 2, "best trial stopped"),
}
"""Row, column and axis title of each panel."""


def rungs(results: Sequence[Result], chosen: str) -> Shown:
    """Each rung's trials, rank correlation, savings and losses: for the chosen variant, and the unchanged space."""
    best, base = named(results, chosen), results[0]
    unit, size = work_unit(results)
    compared = [(one, colour) for one, colour in ((base, GREY), (best, GREEN)) if one["rungs"]]
    if base is best:
        compared = compared[-1:]
    if not compared:
        return Shown("There is only one rung: nothing is stopped early.")
    figure = make_subplots(rows=2, cols=2, horizontal_spacing=0.14, vertical_spacing=0.16)
    for one, colour in compared:
        _draw_rungs(figure, one, colour, size)
    epochs = sorted({rung["epoch"] for one, _ in compared for rung in one["rungs"]})
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[str(epoch) for epoch in epochs])
    figure.update_xaxes(title="rung at epoch", row=2)
    for row, column, title in PANELS.values():
        figure.update_yaxes(title=title.format(unit=unit), row=row, col=column)
    figure.update_yaxes(rangemode="tozero", row=2)
    figure.update_yaxes(tickformat=".0%", row=2, col=2)
    figure.update_layout(
        height=560,
        barmode="group",
        scattermode="group",
        showlegend=True,
        legend={"orientation": "v", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 64, "r": 16, "t": 40 + 20 * len(compared), "b": 56},
    )
    return Shown(f"{_rungs_words(best)} The table below has all numbers.", figure, least_width=620)


def _rungs_words(best: Result) -> str:
    if not best["rungs"]:
        return "The recommended variant has only one rung and stops nothing early; the unchanged space is shown."
    said = "; ".join(
        f"{correlation_words(rung['correlation_with_truth'])} at epoch {rung['epoch']}" for rung in best["rungs"]
    )
    nobody = "" if any(rung["stopped"] for rung in best["rungs"]) else " It stops no trial at any rung."
    return (
        "Rank correlation between the scores at each rung and the true final scores, in the recommended variant:"
        f" {said}.{nobody}"
    )


def _draw_rungs(figure: go.Figure, one: Result, colour: str, size: float) -> None:
    name, of = escape(short(one["variant"])), one["rungs"]
    stopped = [rung["stopped"] for rung in of]
    further = [rung["reached"] - rung["stopped"] for rung in of]
    known = [rung for rung in of if rung["correlation_with_truth"] is not None]
    correlations = [within(rung["correlation_with_truth"], -1, 1) for rung in known]
    bars: dict[str, list[float]] = {
        "trials": stopped,
        "saved": [rung["saved_worker_seconds"] / size for rung in of],
        "lost": [rung["lost_the_best"] for rung in of],
    }
    epochs = [str(rung["epoch"]) for rung in of]
    style = {"name": name, "legendgroup": name, "offsetgroup": name, "marker": {"color": colour}}
    for panel, values in bars.items():
        row, column, _ = PANELS[panel]
        bar = go.Bar(x=epochs, y=values, showlegend=panel == "trials", **style)
        figure.add_trace(bar, row=row, col=column)
    further_bar = go.Bar(x=epochs, y=further, base=stopped, opacity=0.35, showlegend=False, **style)
    figure.add_trace(further_bar, row=1, col=1)
    points = go.Scatter(
        x=[str(rung["epoch"]) for rung in known],
        y=[rung_correlation["mean"] for rung_correlation in correlations],
        error_y={
            "array": [rung_correlation["high_95"] - rung_correlation["mean"] for rung_correlation in correlations],
            "arrayminus": [rung_correlation["mean"] - rung_correlation["low_95"] for rung_correlation in correlations],
            "thickness": 1.5,
        },
        mode="lines+markers",
        line={"color": colour, "width": 1, "dash": "dot"},
        marker={"color": colour, "size": 9},
        name=name,
        legendgroup=name,
        offsetgroup=name,
        showlegend=False,
    )
    figure.add_trace(points, row=1, col=2)
