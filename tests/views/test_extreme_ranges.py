"""Every figure of the report can be drawn where ranges are as wide as they may be."""

from __future__ import annotations

import pytest

from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import LEAST_BOUND, MOST_BOUND
from hcpr_tune.search.spec.study_file import study_from_plain
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.views.report.figures import FIGURES
from tests.search.histories import begin, reached, suggested

WIDEST = {
    "hcpr.kl_weight": {"low": LEAST_BOUND, "high": MOST_BOUND, "log": True, "extra_values": [0.0]},
    "hcpr.square_weight": {"low": LEAST_BOUND, "high": MOST_BOUND, "log": True},
    "trades.beta": {"low": 0.0, "high": MOST_BOUND},
    "optimiser.clip_norm": {"choices": [0.0, 1e300, 5e-324]},
    "weight_perturbation.from_epoch": {"low": 1, "high": 1_000_000, "log": True},
}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_figures_of_the_widest_ranges_are_drawn(sampler):
    study = study_from_plain(
        {
            "sampler": {"name": sampler, "startup_trials": 2},
            "early_stopping": {"calibration": 1},
            "recipe": {"epochs": 27},
            "search": WIDEST,
        },
        "widest",
    )
    history = History(study.recipe.epochs, study.goal)
    history.apply(begin())
    suggester = Suggester(study)
    for number in range(8):
        params, source = suggester.suggest(number, history)
        assert all(study.space[name].holds(value) for name, value in params.items())
        way = [(0, 3), (3, 9), (9, 27)][: 1 + number % 3]
        events = [event for start, end in way for event in reached(number, start, end, 500 + 7 * number % 50 + end)]
        for event in (suggested(number, params, source), *events):
            history.apply(event)
    for title, draw in FIGURES.values():
        drawn = draw(study, history)
        assert drawn.figure is not None or drawn.says, title
        if drawn.figure is not None:
            assert drawn.figure.to_json()
