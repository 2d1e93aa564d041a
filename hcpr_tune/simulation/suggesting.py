"""Where the points of played trials come from: the search's own sampler, or nowhere, where no curve depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import History, Source
from hcpr_tune.search.scheduling.scheduler import Suggests
from hcpr_tune.search.spec.space import Params
from hcpr_tune.search.spec.study import Study
from hcpr_tune.search.suggestion.initial_points import planned_point
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.curves import Curves

LEARNS_NOTHING = ("random", "qmc")
MOST_TO_LEARN_FROM = 200
"""A model of so many trials takes a good part of a second to be asked, and a plan asks it for every trial of every repeat."""


class Blind:
    """Gives the planned points, and after them trials without a point: the search's own decisions, without the cost of a draw that nothing depends on."""

    def __init__(self, study: Study) -> None:
        self._study, self._name = study, study.settings.sampler.name

    def suggest(self, number: int, history: History) -> tuple[Params, Source]:
        return planned_point(self._study, history) or ({}, self._name)


def played_studies(studies: Sequence[Study], curves: Curves) -> tuple[list[Study], str]:
    """The studies with samplers that can be played, all of them or none, and what is to be said of it."""
    names = {study.settings.sampler.name for study in studies}
    if not curves.knows_params:
        blind = "no curve depends on a trial's values here: samplers cannot be told apart" if len(names) > 1 else ""
        return [*studies], blind
    learning = [study for study in studies if study.settings.sampler.name not in LEARNS_NOTHING]
    most = max((study.settings.budget.trials for study in learning), default=0)
    if most <= MOST_TO_LEARN_FROM:
        return [*studies], ""
    drawn = [
        replace(study, settings=replace(study.settings, sampler=replace(study.settings.sampler, name="random")))
        for study in studies
    ]
    who = ", ".join(sorted(names - {*LEARNS_NOTHING}))
    return (
        drawn,
        f"{who} is played as random: to ask it {most} times in each repeat would take too long; it would do better than this",
    )


def repeated(study: Study, repeat: int) -> Study:
    """The study as it is at first, then with other draws of points, brackets and random promotions: another search with the same settings."""
    if not repeat:
        return study
    seed = derive_seed(study.settings.seed, "repeat of a search", repeat) % 2**31
    return replace(study, settings=replace(study.settings, seed=seed))


def suggester_of(study: Study, curves: Curves) -> Suggests:
    return Suggester(study) if curves.knows_params else Blind(study)
