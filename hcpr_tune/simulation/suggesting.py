"""Sources of points for simulated trials: the search's sampler, or none if no curve depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.search.record.history import History, Source
from hcpr_tune.search.scheduling.search_driver import Suggests
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.suggestion.initial_points import planned_point
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.curves import Curves

LEARNS_NOTHING = tuple(name for name, spec in SAMPLERS.items() if not spec.learns)
MOST_TO_LEARN_FROM = 200
"""With this many trials, one suggestion takes a good part of a second, and a plan needs one per trial and repeat."""


class Blind:
    """Returns the planned points, then trials without a point: saves draws that nothing depends on."""

    def __init__(self, study: StudySpec) -> None:
        self._study, self._name = study, study.settings.sampler.name

    def suggest(self, number: int, history: History) -> tuple[Params, Source]:
        return planned_point(self._study, history) or ({}, self._name)


def played_studies(studies: Sequence[StudySpec], curves: Curves) -> tuple[list[StudySpec], str]:
    """The studies with samplers that can be simulated, replaced in all of them or in none, and a note on it."""
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
        f"{who} is simulated as random: asking it {most} times in each repeat would take too long; "
        "whether it would do better than this is not simulated",
    )


def repeated(study: StudySpec, repeat: int) -> StudySpec:
    """The study itself for repeat 0, else with another seed for points, brackets and random promotions."""
    if not repeat:
        return study
    seed = derive_seed(study.settings.seed, "repeat of a search", repeat) % 2**31
    return replace(study, settings=replace(study.settings, seed=seed))


def suggester_of(study: StudySpec, curves: Curves) -> Suggests:
    return Suggester(study) if curves.knows_params else Blind(study)
