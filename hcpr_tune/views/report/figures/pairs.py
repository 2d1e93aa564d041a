"""The hard pairs of classes: which class the attack turns into which, before the search and after."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.report.figures.shown import GREEN, ORANGE, Shown, axes

MOST_PAIRS = 12


def pairs(study: StudySpec, history: History) -> Shown:
    """Which class the attack turns into which, for the published recipe and the best one."""
    best, published = history.best_trial, history.trials.get(0)
    if best is None or published is None or not published.scores:
        return Shown("The published recipe has not reached a rung: there is nothing to compare.")
    before, after = (_pair_shares(trial) for trial in (published, best))
    if not before and not after:
        return Shown("No attacked pairs were recorded.")
    hardest = sorted(before | after, key=lambda pair: before.get(pair, 0.0) + after.get(pair, 0.0))[-MOST_PAIRS:]
    names = history.class_names
    labels = [_pair_name(pair, names) for pair in hardest]
    figure = go.Figure()
    for what, shares, colour in (("published recipe", before, ORANGE), ("best recipe", after, GREEN)):
        figure.add_trace(
            go.Bar(
                x=[shares.get(pair, 0.0) for pair in hardest],
                y=labels,
                orientation="h",
                name=what,
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.1%} of its images<extra>" + what + "</extra>",
            )
        )
    axes(figure, "share of the class's images", "")
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(automargin=True, type="category")
    figure.update_layout(barmode="group", height=140 + 34 * len(labels))
    worst = max(after, key=after.__getitem__, default=None)
    left = (
        f"; the hardest pair left is {_plain_pair(worst, names)}, {100 * after[worst]:.0f} % of the images of its first"
        " class"
        if worst
        else ""
    )
    if best is published:
        return Shown(f"The best recipe is the published one{left}.", figure)
    better = sum(after.get(pair, 0.0) < before.get(pair, 0.0) for pair in hardest)
    return Shown(
        f"The {len(hardest)} hardest pairs of classes. The best recipe improves {better} of them over the published"
        f" one{left}.",
        figure,
    )


def _pair_shares(trial: Trial) -> dict[tuple[int, int], float]:
    event = trial.at_rung(trial.best_rung)
    totals = event.get("class_totals_validation", [])
    return {
        (true, attacked): count / totals[true]
        for true, attacked, count in event.get("attacked_pairs_validation", [])
        if totals[true]
    }


def _plain_pair(pair: tuple[int, int], names: Sequence[str]) -> str:
    true, attacked = ("no class" if one < 0 else names[one] if one < len(names) else str(one) for one in pair)
    return f"{true} → {attacked}"


def _pair_name(pair: tuple[int, int], names: Sequence[str]) -> str:
    return escape(_plain_pair(pair, names))
