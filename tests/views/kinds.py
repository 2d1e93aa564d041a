"""Every kind of study that something is shown of, by a name: what was asked for, and what its record says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from hcpr_tune.search.record.history import Event
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study
from tests.search.histories import begin
from tests.views.recorded import recorded

Settings = list[tuple[str, Any]]

BOTH: Settings = [("objective", ["robust_accuracy", "clean_accuracy"])]
FLOOR: Settings = [("constraints.clean_accuracy", 0.99)]
KINDS: dict[str, tuple[int, Settings, Callable[[StudySpec], list[Event]]]] = {
    "no record": (16, [], lambda study: []),
    "no trial": (16, [], lambda study: [begin()]),
    "one trial": (16, [], lambda study: list(recorded(study, 1))),
    "500 trials": (500, [], lambda study: list(recorded(study, 500))),
    "64 running": (500, [], lambda study: list(recorded(study, 400, running=64))),
    "all failed": (16, [], lambda study: list(recorded(study, 12, lost=1.0))),
    "two objectives": (40, BOTH, lambda study: list(recorded(study, 30, running=3))),
    "a floor": (40, FLOOR, lambda study: list(recorded(study, 30))),
}
"""Budget of trials, settings, events."""


@cache
def kind(name: str) -> tuple[StudySpec, list[Event]]:
    """A study of the default space and its events, which nobody may change."""
    trials, settings, events = KINDS[name]
    study = read_study(find_space("default"), [("budget.trials", trials), *settings])
    return study, events(study)
