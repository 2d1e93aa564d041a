"""Where the points of played trials come from: the search's own sampler, or nowhere, where no curve depends on them."""

from __future__ import annotations

from dataclasses import replace

from hcpr_tune.planning.curves import Curves
from hcpr_tune.search.history import History, Source
from hcpr_tune.search.points import planned_point
from hcpr_tune.search.policy import Suggests
from hcpr_tune.search.sampler import Suggester
from hcpr_tune.search.space import Params
from hcpr_tune.search.study import Study

LEARNS_NOTHING = ("random", "qmc")
MOST_TO_LEARN_FROM = 200
"""A model of so many trials takes a good part of a second to be asked, and a plan asks it for every trial of every repeat."""


class Blind:
    """Gives the planned points, and after them trials without a point: the search's own decisions, without the cost of a draw that nothing depends on."""

    def __init__(self, study: Study) -> None:
        self._study, self._name = study, study.settings.sampler.name

    def suggest(self, number: int, history: History) -> tuple[Params, Source]:
        return planned_point(self._study, history) or ({}, self._name)


def played_study(study: Study, curves: Curves) -> tuple[Study, str]:
    """The study with a sampler that can be played, and the note that it is another one."""
    sampler, trials = study.settings.sampler, study.settings.budget.trials
    if not curves.knows_params or sampler.name in LEARNS_NOTHING or trials <= MOST_TO_LEARN_FROM:
        return study, ""
    settings = replace(study.settings, sampler=replace(sampler, name="random"))
    return (
        replace(study, settings=settings),
        f"{sampler.name} is played as random: to ask it {trials} times in each repeat would take too long; it would do better than this",
    )


def suggester_of(study: Study, curves: Curves) -> Suggests:
    return Suggester(study) if curves.knows_params else Blind(study)
