"""The effect of the searched values on the accuracies: all at once, by importance, and one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.objectives import OBJECTIVES
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.report.figures.shown import BLUE, GREY, ORANGE, RED, Shown, axes, few, few_words, quietly
from hcpr_tune.views.report.optuna_study import (
    at_epoch,
    best_rung_scores,
    common_epoch,
    compared_at,
    optuna_study,
    target,
)
from hcpr_tune.views.wording import number

FEWEST_TRIALS = 4
"""With fewer trials there is no variance to attribute to dimensions."""
ENOUGH = 5
"""Trials per dimension that a rung needs to be preferred over an earlier one."""
FILLED = " Where a conditional dimension does not apply to a trial, the published value is shown."
MOST_TRIALS = 600
"""Trials used for functional ANOVA, whose time grows faster than their number."""
TREES = 32
"""Trees in the forest of functional ANOVA: half of Optuna's default, for time. With the default, importances of made-up
records moved by up to 3 points with 200 trials, and by 6 with 16, where the caption calls them a hint.
"""


def parallel(study: StudySpec, history: History) -> Shown:
    """All searched values of all trials next to their accuracies. Optuna's plot has no brush, and a trace per trial."""
    scored = [trial for trial in history.trials.values() if best_rung_scores(trial)]
    model = optuna_study(study, history, best_rung_scores, among=few(study, history, scored))
    if not model.trials or not study.space:
        return Shown("No trial has reached a rung yet: there are no values to compare.")
    scores = {name: [target(name)(trial) for trial in model.trials] for name in OBJECTIVES}
    axes_of_scores: list[dict[str, Any]] = [
        {"label": name.replace("_", " "), "values": values, "tickformat": ".0%"} for name, values in scores.items()
    ]
    epochs = [history.trials[trial.user_attrs["trial"]].best_rung for trial in model.trials]
    axes_of_scores.append({"label": "scored at epoch", "values": epochs, "tickvals": list(study.rungs)})
    spaces = model.trials[0].distributions
    axes_of_values = [_axis(name, spaces[name], [trial.params[name] for trial in model.trials]) for name in study.space]
    robust = scores["robust_accuracy"]
    bar = {"tickformat": ".0%", "title": {"text": "robust accuracy", "side": "right"}, "thickness": 14}
    line = {"color": robust, "colorscale": [[0, GREY], [1, RED]], "showscale": True, "colorbar": bar}
    figure = go.Figure(go.Parcoords(line=line, dimensions=axes_of_scores + axes_of_values, labelangle=-20))
    figure.update_layout(height=460, margin={"l": 70, "r": 100, "t": 90, "b": 30})
    return Shown(
        f"{number(len(scored), 'trial')}, one line each; the accuracies at the left are those of its best rung, and the"
        " redder the line, the more robust. Drag along an axis to select a range (for instance one epoch, to compare"
        " trials that were trained equally long); drag the name of an axis to move it."
        + few_words(len(model.trials), len(scored))
        + FILLED,
        figure,
        least_width=80 * (5 + len(study.space)),
    )


def _axis(name: str, space: BaseDistribution, values: Sequence[Any]) -> dict[str, Any]:
    """One axis: choices at integer positions, log scales with the original numbers as ticks."""
    label = escape(name.removeprefix("hcpr."))
    if isinstance(space, CategoricalDistribution):
        indices = {value: index for index, value in enumerate(space.choices)}
        ticks = {"tickvals": list(indices.values()), "ticktext": [escape(str(value)) for value in indices]}
        return {"label": label, "values": [indices[value] for value in values], **ticks}
    assert isinstance(space, FloatDistribution | IntDistribution)
    if not space.log:
        return {"label": label, "values": values, "range": [space.low, space.high]}
    low, high = math.log10(space.low), math.log10(space.high)
    at = [low + share * (high - low) / 4 for share in range(5)]
    return {
        "label": label,
        "values": [math.log10(value) for value in values],
        "range": [low, high],
        "tickvals": at,
        "ticktext": [f"{10**tick:.3g}" for tick in at],
    }


def importance(study: StudySpec, history: History) -> Shown:
    """How much of the accuracies' variance each dimension explains, by functional ANOVA (Hutter et al., ICML 2014)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    epoch = common_epoch(history, study.rungs, ENOUGH * len(study.space))
    model = optuna_study(study, history, at_epoch(epoch), MOST_TRIALS)
    varied = [name for name in study.space if len({trial.params[name] for trial in model.trials}) > 1]
    if len(model.trials) < FEWEST_TRIALS or not varied:
        return Shown(
            f"{number(len(model.trials), 'trial')} with different values can be compared at one epoch; importance needs"
            f" at least {FEWEST_TRIALS}."
        )
    figure = go.Figure()
    leading: dict[str, str] = {}
    order: list[str] = []
    for name, colour in zip(OBJECTIVES, (BLUE, ORANGE), strict=True):
        if len({target(name)(trial) for trial in model.trials}) < 2:
            continue
        found = quietly(
            get_param_importances,
            model,
            evaluator=FanovaImportanceEvaluator(n_trees=TREES, seed=0),
            params=varied,
            target=target(name),
        )
        order = order or sorted(found, key=found.__getitem__)
        leading[name.replace("_", " ")] = max(found, key=found.__getitem__)
        figure.add_trace(
            go.Bar(
                x=[found[dimension] for dimension in order],
                y=[escape(dimension) for dimension in order],
                orientation="h",
                marker={"color": colour},
                name=name.replace("_", " "),
                hovertemplate="%{y}: %{x:.0%}<extra>" + name.replace("_", " ") + "</extra>",
            )
        )
    if not leading:
        return Shown("All trials have the same accuracies: no dimension makes a difference here.")
    axes(figure, "share of the variance", "")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(automargin=True)
    figure.update_layout(barmode="group", height=120 + 44 * len(order))
    words = "; ".join(f"{what} depends most on {dimension}" for what, dimension in leading.items())
    few = (
        f" With {len(model.trials)} trials for {len(varied)} dimensions this is a hint, not a finding."
        if len(model.trials) < 10 * len(varied)
        else ""
    )
    where = compared_at(history, epoch, study.rungs)
    return Shown(
        f"Functional ANOVA over {number(len(model.trials), 'trial')} {where}: {words}.{few}{FILLED}",
        figure,
    )


def slices(study: StudySpec, history: History) -> Shown:
    """The robust accuracy over one dimension at a time."""
    from optuna.visualization import plot_slice

    epoch = common_epoch(history, study.rungs, ENOUGH * len(study.space))
    model = optuna_study(study, history, at_epoch(epoch), MOST_TRIALS)
    if not model.trials or not study.space:
        return Shown("No trial has reached a rung yet: there are no values to compare.")
    figure = quietly(plot_slice, model, target=target("robust_accuracy"), target_name="robust accuracy")
    panels = len(study.space)
    _in_rows(figure, panels)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickfont={"size": 11}, nticks=5, tickangle=0)
    figure.for_each_xaxis(lambda axis: axis.update(_ticks(model.trials[0].distributions[axis.title.text])))
    numbers = [trial.user_attrs["trial"] for trial in model.trials]
    for trace in figure.data:
        # Optuna's blues begin and end at colours that cannot be seen on a white or a black page.
        trace.marker.update(color=[numbers[index] for index in trace.marker.color], colorscale=[[0, BLUE], [1, RED]])
        trace.marker.colorbar = {"title": "trial", "tickformat": "d", "thickness": 14}
        trace.marker.update(cmin=min(numbers), cmax=max(numbers), line={"width": 0}, size=7)
    return Shown(
        f"{number(len(model.trials), 'trial')} {compared_at(history, epoch, study.rungs)}, over each dimension: early"
        f" trials are blue, late ones red.{FILLED}",
        figure,
        least_width=PANEL_WIDTH * min(PANEL_COLUMNS, panels) + 120,
    )


def _ticks(space: BaseDistribution) -> dict[str, Any]:
    """Few ticks, with the numbers or the choices as they are, where plotly's own would be crowded."""
    if isinstance(space, CategoricalDistribution):
        return {"tickvals": list(range(len(space.choices))), "ticktext": [escape(str(one)) for one in space.choices]}
    assert isinstance(space, FloatDistribution | IntDistribution)
    if not space.log:
        return {}
    values = [space.low * (space.high / space.low) ** (share / 3) for share in range(4)]
    return {"tickvals": values, "ticktext": [f"{value:.2g}" for value in values]}


PANEL_COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, PANEL_GAP = 3, 170, 180, 80
"""Panels in a row; pixels: the least width of a panel, its height, and the gap below it for its title."""


def _in_rows(figure: go.Figure, panels: int) -> None:
    """Move the panels of Optuna's plot, which are all in one row, into rows that fit on a page."""
    columns = min(PANEL_COLUMNS, panels)
    rows = -(-panels // columns)
    inside = rows * PANEL_HEIGHT + (rows - 1) * PANEL_GAP
    for index in range(panels):
        row, column = divmod(index, columns)
        left, top = column / columns, 1 - row * (PANEL_HEIGHT + PANEL_GAP) / inside
        which = str(index + 1) if index else ""
        wide = [left, left + 1 / columns - (0.05 if columns > 1 else 0)]
        figure.layout[f"xaxis{which}"].update(domain=wide, anchor=f"y{which}")
        figure.layout[f"yaxis{which}"].update(domain=[max(0.0, top - PANEL_HEIGHT / inside), top], anchor=f"x{which}")
        figure.layout[f"yaxis{which}"].update(
            showticklabels=column == 0, title="robust accuracy" if column == 0 else None
        )
    margin = {"l": 64, "r": 90, "t": 16, "b": 56}
    figure.update_layout(title=None, width=None, height=inside + margin["t"] + margin["b"], margin=margin)
