"""The figures of a study, drawn with plotly, for the report and for notebooks.

Each has a sentence that says what it shows, used as its caption and as its alternative text.
"""

from __future__ import annotations

from collections.abc import Callable

from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.report.figures.dimensions import importance, parallel, slices
from hcpr_tune.views.report.figures.optimisation import distribution, optimisation_history, timeline
from hcpr_tune.views.report.figures.pairs import pairs
from hcpr_tune.views.report.figures.progress import accuracies, costs, curves, rungs
from hcpr_tune.views.report.figures.shown import KINDS, Shown, kind_of

__all__ = ["ALL_FIGURES", "FIGURES", "KINDS", "Shown", "kind_of"]

Draw = Callable[[StudySpec, History], Shown]
FIGURES: dict[str, tuple[str, Draw]] = {
    "accuracies": ("Robust against clean accuracy", accuracies),
    "curves": ("Learning curves, and what was stopped", curves),
    "rungs": ("Rank correlation of each rung", rungs),
    "parallel": ("All values of all trials", parallel),
    "importance": ("Importance of each dimension", importance),
    "slices": ("One dimension at a time", slices),
    "pairs": ("The hard pairs of classes, before and after", pairs),
    "costs": ("Where the time went", costs),
}
"""The figures of the report by name: title, and the function that draws it."""
ALL_FIGURES: dict[str, tuple[str, Draw]] = {
    "history": ("Optimisation history", optimisation_history),
    "curves": FIGURES["curves"],
    "timeline": ("Timeline of the workers", timeline),
    "distribution": ("Distribution of the scores", distribution),
    **FIGURES,
}
"""The same, and those that only the live page and notebooks show."""
