"""The table of trials, a page at a time: a study may have ten thousand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hcpr_tune.common.settings import show
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.record.metrics import rung_accuracies
from hcpr_tune.search.storage.notes import Notes
from hcpr_tune.views.report.answer import value_words
from hcpr_tune.views.report.context import CLEAN, ROBUST, ReportContext
from hcpr_tune.views.report.figures import kind_of
from hcpr_tune.views.status import TRIAL_STATES

PAGE = 50
Key = Callable[[Trial], Any]


@dataclass(frozen=True)
class Asked:
    """What part of the table is asked for."""

    sort: str = "rank"
    descending: bool = False
    page: int = 1
    state: str = ""
    """Only trials in this state; empty for all."""
    tag: str = ""
    """Only trials with this tag; empty for all."""


def asked(query: Any, context: ReportContext) -> Asked:
    """The query of a URL. Raises `InputError`."""
    sort, state = query.get("sort", "rank"), query.get("state", "")
    known = list(columns(context, {}))
    if sort not in known:
        raise InputError(f"sort must be one of {', '.join(known)}, got {show(sort)}")
    if state and state not in TRIAL_STATES:
        raise InputError(f"state must be one of {', '.join(TRIAL_STATES)}, got {show(state)}")
    page = query.get("page", "1")
    if not (page.isascii() and page.isdigit() and len(page) < 7 and int(page) > 0):
        raise InputError(f"page must be a number from 1, got {show(page)}")
    return Asked(sort, query.get("descending", "") == "yes", int(page), state, query.get("tag", ""))


def columns(context: ReportContext, ranks: dict[int, int]) -> dict[str, Key]:
    """What each column is sorted by; None comes last."""

    def accuracy(name: str) -> Key:
        return lambda trial: found[name].share if (found := rung_accuracies(trial)) else None

    return {
        "rank": lambda trial: ranks.get(trial.number),
        "trial": lambda trial: trial.number,
        "state": context.state_of,
        "epoch": lambda trial: trial.last_epoch,
        "robust": accuracy(ROBUST),
        "clean": accuracy(CLEAN),
        "seconds": lambda trial: trial.seconds,
        "source": lambda trial: trial.source,
        **{name: value_of(name) for name in context.study.space},
    }


def value_of(name: str) -> Key:
    """The key of a dimension; choices may be of different types."""
    return lambda trial: (
        value if isinstance(value := trial.params.get(name), int | float) or value is None else str(value)
    )


def shown_table(context: ReportContext, notes: Notes, ask: Asked) -> dict[str, Any]:
    """What the template shows: titles, the rows of the page, and how many there are."""
    history = context.history
    ranks = {trial.number: rank for rank, trial in enumerate(history.ranked(), 1)}
    keys = columns(context, ranks)
    trials = [
        trial
        for trial in history.trials.values()
        if (not ask.state or context.state_of(trial) == ask.state)
        and (not ask.tag or ask.tag in notes.of(trial.number).tags)
    ]
    key = keys[ask.sort]
    known = [trial for trial in trials if key(trial) is not None]
    known.sort(key=lambda trial: (str(type(key(trial)) is str), key(trial)), reverse=ask.descending)
    ordered = known + [trial for trial in trials if key(trial) is None]
    pages = max(1, -(-len(ordered) // PAGE))
    page = min(ask.page, pages)
    best = history.best_trial
    return {
        "titles": [*keys, "tags"],
        "sort": ask.sort,
        "descending": ask.descending,
        "page": page,
        "pages": pages,
        "total": len(ordered),
        "rows": [
            {
                "number": trial.number,
                "kind": kind_of(trial, best),
                "cells": cells(context, trial, ranks, notes),
            }
            for trial in ordered[(page - 1) * PAGE : page * PAGE]
        ],
    }


def cells(context: ReportContext, trial: Trial, ranks: dict[int, int], notes: Notes) -> list[str]:
    """The texts of a row."""
    accuracies = rung_accuracies(trial)
    values = (trial.params.get(name) for name in context.study.space)
    return [
        str(ranks.get(trial.number, "")),
        str(trial.number),
        context.state_of(trial),
        f"{trial.last_epoch}" + (f" of {trial.target}" if trial.job is not None and context.alive else ""),
        str(accuracies[ROBUST]) if accuracies else "",
        f"{100 * accuracies[CLEAN].share:.1f} %" if accuracies else "",
        f"{trial.seconds:.1f}",
        trial.source,
        *("" if value is None else value_words(value) for value in values),
        ", ".join(notes.of(trial.number).tags),
    ]
