"""The robust accuracy over two dimensions."""

from __future__ import annotations

from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.report.figures.dimensions import ENOUGH, FEWEST_TRIALS, FILLED
from hcpr_tune.views.report.figures.shown import Shown, quietly
from hcpr_tune.views.report.optuna_study import at_epoch, common_epoch, compared_at, optuna_study, target
from hcpr_tune.views.wording import number

MOST_TRIALS = 120
"""Trials of a contour: a browser fills a grid with as many rows and columns."""


def contour(study: StudySpec, history: History, first: str, second: str) -> Shown:
    """The robust accuracy over the dimensions `first` (across) and `second` (up), both of the study's space."""
    from optuna.visualization import plot_contour

    epoch = common_epoch(history, study.rungs, ENOUGH * len(study.space))
    model = optuna_study(study, history, at_epoch(epoch), MOST_TRIALS)
    varied = all(len({trial.params[name] for trial in model.trials}) > 1 for name in (first, second))
    if first == second or len(model.trials) < FEWEST_TRIALS or not varied:
        return Shown(
            f"{number(len(model.trials), 'trial')} can be compared at one epoch: a contour takes two dimensions that"
            f" differ between at least {FEWEST_TRIALS} trials."
        )
    figure = quietly(
        plot_contour, model, params=[first, second], target=target("robust_accuracy"), target_name="robust accuracy"
    )
    figure.update_layout(title=None, height=460, margin={"l": 70, "r": 16, "t": 16, "b": 56})
    scored = sum(epoch in trial.scores and not trial.single_schedule for trial in history.trials.values())
    sample = f" Of {scored} trials a fixed sample is shown." if scored > MOST_TRIALS else ""
    return Shown(
        f"{number(len(model.trials), 'trial')} {compared_at(history, epoch, study.rungs)}: robust accuracy over"
        f" {first} and {second}, interpolated. Where no point is near, the colour is a guess.{sample}{FILLED}",
        figure,
        least_width=420,
    )
