"""What changed between a study as it was begun and its file today: only a larger budget is allowed on resume."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hcpr_tune.common.settings import get_dotted, set_dotted, show
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.study import StudySpec, study_to_plain

FREE = (
    "description",
    "keep_weights",
    "resources.workers",
    "resources.worker_deaths",
    "resources.checkpoint_every",
    "verdict",
    "plan",
)
"""Settings that influence no decision, so that today's values are used. A table includes all its keys."""


def differences(began: StudySpec, now: StudySpec) -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted name: (value the study began with, value now); None for a missing one."""
    one, other = flat(study_to_plain(began)), flat(study_to_plain(now))
    names = sorted(one.keys() | other.keys())
    return {
        name: (one.get(name), other.get(name))
        for name in names
        if one.get(name) != other.get(name)
        and not name.startswith(tuple(f"{free}." for free in FREE))
        and name not in FREE
    }


def with_free_settings(began: dict[str, Any], now: StudySpec) -> dict[str, Any]:
    """The tables of the study as it was begun, with today's values of the settings that may change."""
    tables, today = copy.deepcopy(began), study_to_plain(now)
    for name in FREE:
        value = get_dotted(today, name)
        if value is not None:
            set_dotted(tables, name, value)
        else:
            tables.pop(name, None)
    return tables


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by dotted name."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def grown_budget(began: StudySpec, now: StudySpec, extended: StudySpec, where: str) -> dict[str, float]:
    """The budgets of `now` that are larger than those of `extended`, which is `began` with its extensions so far.

    Raises `InputError` listing the differences if anything but a larger budget changed.
    """
    changed = differences(began, now)
    budgets = {name.removeprefix("budget."): values for name, values in changed.items() if name.startswith("budget.")}
    others = {name: values for name, values in changed.items() if not name.startswith("budget.")}
    smaller = {f"budget.{name}": (old, new) for name, (old, new) in budgets.items() if not _larger(old, new)}
    if others or smaller:
        lines = "; ".join(
            f"{name} was {_show(old)}, is {_show(new)}" for name, (old, new) in (others | smaller).items()
        )
        raise InputError(
            f"{where} was changed since the study began: {lines}; undo that (only a larger budget is allowed),"
            " or begin a new study, for instance with --warm-start"
        )
    limits = extended.settings.budget
    return {name: new for name, (_, new) in budgets.items() if _larger(getattr(limits, name), new)}


def _larger(old: float, new: float) -> bool:
    """Whether `new` is larger; 0 means no limit."""
    return old != new and (new == 0 or 0 < old < new)


def _show(value: Any) -> str:
    return "not set" if value is None else show(value)
