"""Fair baselines: another method, searched for as many worker-seconds as the study.

The search covers that method's coefficients and the study's dimensions that are common to all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hcpr_tune.common.settings import read_toml, set_dotted
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.dimensions import field_of
from hcpr_tune.search.spec.study import StudySpec, study_to_plain
from hcpr_tune.search.spec.study_file import find_space, study_from_plain
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.verdict.plan import COEFFICIENTS, Candidate, candidate_of, completed

BASELINES = "baselines"
"""The space with the coefficients of each method, and their published values."""
MANY = 100_000
"""Trials, more than any search runs: the time ends the search."""


def baseline_name(name: str, method: str) -> str:
    """The name of the baseline's study, an ordinary study next to the one it is compared with."""
    return f"{name}-vs-{method}"


def check_methods(methods: Sequence[str], study: StudySpec) -> None:
    """Raises `InputError` for a method that is unknown, or is the study's own."""
    known = [name for name in METHODS if name != study.recipe.method]
    for method in methods:
        if method not in known:
            raise InputError(
                f"--compare must name methods of {', '.join(known)}, got {method}; separate several by commas"
            )


def baseline_study(study: StudySpec, history: History, name: str, method: str) -> StudySpec:
    """The study of a baseline: the same task, network, length and rungs, and the same worker-seconds.

    Its search space has the method's coefficients, from `search_spaces/baselines.toml`, and the study's dimensions that
    belong to no method. Fixed values are those of the study. Trial 0 is the method as published, except for a common
    value that the study's range excludes: there it has the study's.
    """
    baselines = read_toml(find_space(BASELINES))
    tables = study_to_plain(study)
    # The ramp of the consistency weights is a coefficient of HCPR, but other methods' weights use it too.
    of_all = {field_of(one) for one, table in baselines["search"].items() if not table.get("when")} - {"method"}
    common = {
        field_of(one): _unconditional(table)
        for one, table in tables["search"].items()
        if (one.partition(".")[0] not in COEFFICIENTS or field_of(one) in of_all) and _exists(table, method)
    }
    own = {field_of(one): _without_method(table) for one, table in _own(baselines["search"], method).items()}
    recipe = tables["recipe"] | {"method": method}
    recipe["model"] = recipe["model"] | {"head": "auto"}
    for point in baselines["first_points"]:
        if point["method"] == method:
            for one, value in point.items():
                if field_of(one) in own or _allows(study, field_of(one), value):
                    set_dotted(recipe, field_of(one), value)
    # 0 would mean no limit.
    budget = {"trials": MANY, "hours": 0.0, "worker_hours": max(1.0, history.worker_seconds) / 3600}
    changes: dict[str, Any] = {
        "description": f"{method}, the baseline of {name}, in as many worker-seconds",
        "recipe": recipe,
        "search": common | own,
        "budget": budget,
        "first_points": [],
        "verdict": tables["verdict"] | {"seconds_at_end": 0.0},
    }
    return study_from_plain(tables | changes, f"the space of {baseline_name(name, method)}")


def _allows(study: StudySpec, field: str, value: Any) -> bool:
    """Whether the study's dimensions of this field, if it has any, hold a published value: trial 0 must lie in them."""
    return all(dimension.holds(value) for name, dimension in study.space.items() if field_of(name) == field)


def _own(search: dict[str, Any], method: str) -> dict[str, Any]:
    """The method's dimensions that HCPR does not have, such as MART's learning rate; for HCPR its coefficients."""
    found: dict[str, Any] = {}
    for one, table in search.items():
        methods = _methods(table)
        of_a_method = one.partition(".")[0] in COEFFICIENTS
        if method in methods and ("hcpr" not in methods or (method == "hcpr" and of_a_method)):
            found[one] = table
        elif not methods and table.get("when") and set(table["when"]) <= set(found):
            found[one] = table  # e.g. the pace has a start only if it changes
    return found


def _methods(table: dict[str, Any]) -> list[str]:
    """The methods named in a dimension's condition."""
    methods = table.get("when", {}).get("method", [])
    return [methods] if isinstance(methods, str) else list(methods)


def _exists(table: dict[str, Any], method: str) -> bool:
    """Whether a dimension exists for a method, whatever the other values are."""
    return not table.get("when") or (set(table["when"]) == {"method"} and method in _methods(table))


def _unconditional(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "when"}


def _without_method(table: dict[str, Any]) -> dict[str, Any]:
    """The dimension without its condition on the method."""
    when = {name: values for name, values in table.get("when", {}).items() if name != "method"}
    return _unconditional(table) | ({"when": when} if when else {})


def baseline_candidate(study: StudySpec, history: History, method: str) -> Candidate | None:
    """The best trial of a baseline's search; None if no trial completed."""
    complete = completed(history)
    if not complete:
        return None
    found = candidate_of(study, complete[0])
    return Candidate(f"{method}, {found.name}", "compared", found.recipe, found.trial, found.score, found.params)
