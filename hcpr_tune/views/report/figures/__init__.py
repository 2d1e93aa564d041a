"""The pictures of a study as plotly figures: the report shows them, and a notebook can.

Each comes with the sentence that it shows, which stands under it and is read to those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable

from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study import Study
from hcpr_tune.views.report.figures.dimensions import importance, parallel, slices
from hcpr_tune.views.report.figures.pairs import pairs
from hcpr_tune.views.report.figures.progress import accuracies, costs, curves, rungs
from hcpr_tune.views.report.figures.shown import KINDS, Shown, kind_of

__all__ = ["FIGURES", "KINDS", "Shown", "kind_of"]

Draw = Callable[[Study, History], Shown]
FIGURES: dict[str, tuple[str, Draw]] = {
    "accuracies": ("Robust against clean accuracy", accuracies),
    "curves": ("Learning curves, and what was stopped", curves),
    "rungs": ("What each rung was worth", rungs),
    "parallel": ("All values of all trials", parallel),
    "importance": ("What matters", importance),
    "slices": ("Each dimension by itself", slices),
    "pairs": ("The hard pairs of classes, before and after", pairs),
    "costs": ("Where the time went", costs),
}
"""Every picture by name: its title, and how it is drawn."""
