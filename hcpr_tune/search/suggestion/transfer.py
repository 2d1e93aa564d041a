"""Transfer from a small study to a large one: the winner's values as a first point, and priors around it."""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomli_w

from hcpr_tune.common.settings import get_dotted, parse_toml, show, to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import rung_accuracies
from hcpr_tune.search.spec.dimensions import Dimension, Params, Prior, Range, Value, field_of
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import study_from_plain

WEAKEST, STRONGEST, UNKNOWN = 0.2, 0.8, 0.3
"""Strength if good trials are no closer together than by chance, if they agree, and if too few have the dimension."""
BEST_SHARE, LEAST_TRIALS = 0.25, 3
"""Strengths are based on the best quarter of the trials, and on at least this many that have the dimension."""
CHANCE_DISTANCE = 1 / 3
"""Mean distance of two uniform draws, as a share of the range."""
WIDTH = 118
"""Width of a comment line."""


@dataclass(frozen=True)
class Moved:
    """What happened to one of the winner's values. Without `centre` it was dropped; `word` says why or how."""

    name: str
    value: Value
    centre: Value | None = None
    strength: float | None = None
    word: str = ""


@dataclass(frozen=True)
class Transfer:
    """What another space takes over from a trial."""

    point: Params
    """The first of `first_points`."""
    priors: Mapping[str, Prior]
    moved: tuple[Moved, ...]
    held: Params
    """Values that the study held fixed, in the point because conditions of others depend on them."""
    fixed: Mapping[str, tuple[Value, Value]] = field(default_factory=dict)
    """Fields that the other space does not search: (the winner's value, the other recipe's value)."""


def transferred_trial(study: StudySpec, history: History, name: str, number: int | None) -> Trial:
    """The trial to transfer: the winner, or trial `number`. Raises `InputError` if it has no score."""
    best = history.best_trial
    if best is None:
        raise InputError(
            f"transfer {show(name)}: none of its {len(history.trials)} trials has a score; let one reach a rung first"
        )
    if number is None:
        return best
    if number not in history.trials:
        raise InputError(
            f"--trial must be a trial of {name}, 0 to {max(history.trials)}, got {number};"
            f" leave it out for the best, trial {best.number}"
        )
    trial = history.trials[number]
    if not trial.rungs:
        raise InputError(
            f"--trial {number} of {name} has no score ({trial.state});"
            f" choose another, or leave it out for the best, trial {best.number}"
        )
    return trial


def transfer(study: StudySpec, history: History, trial: Trial, target: StudySpec, where: str) -> Transfer:
    """What the space of `target`, whose file is `where`, takes over from `trial`.

    A dimension takes the value of the one with the same name, or the same field, if it exists given the values taken
    over before it. Raises `InputError` if nothing can be taken over.
    """
    searched = {field_of(name) for name in study.space}
    if not any(field_of(name) in searched for name in target.space):
        raise InputError(
            f"--to {where} shares no dimension with the study: it searches {', '.join(target.space) or 'nothing'},"
            f" the study {', '.join(study.space) or 'nothing'}; choose another space"
        )
    recipe, published = to_plain(with_params(study.recipe, trial.params)), to_plain(target.recipe)
    parents = _parents(target, trial)
    params, point, held = Params(), Params(), Params()
    priors: dict[str, Prior] = {}
    moved: dict[str, Moved] = {}
    for name, dimension in target.space.items():
        own: Value = get_dotted(published, field_of(name))
        origin = _origin(trial, name)
        if not dimension.active(params):
            if origin is not None:
                word = f"dropped: it exists only{dimension.condition()}"
                moved.setdefault(origin, Moved(name, trial.params[origin], word=word))
            continue
        params[name] = own
        if origin is None:
            value = get_dotted(recipe, field_of(name))
            if name in parents and field_of(name) not in searched and value != own and dimension.holds(value):
                params[name] = point[name] = held[name] = value
            continue
        value = trial.params[origin]
        centre, word = _fitted(dimension, value)
        if centre is None:
            moved[origin] = Moved(name, value, word=word)
            continue
        strength = _strength(study, history, trial, origin)
        if dimension.prior is not None:
            before = f"before: {show(dimension.prior.centre)}, strength {dimension.prior.strength:g}"
            word = f"{word}; {before}" if word else before
        params[name] = point[name] = centre
        priors[name] = Prior(centre, strength)
        moved[origin] = Moved(name, value, centre, strength, word)
    if not priors:
        raise InputError(
            f"--to {where}: none of the values of trial {trial.number} fits its dimensions;"
            " choose another space or --trial"
        )
    fixed = {
        field_of(name): (value, get_dotted(published, field_of(name)))
        for name, value in trial.params.items()
        if name not in moved
    }
    if "method" not in {field_of(name) for name in target.space} and study.recipe.method != target.recipe.method:
        # The coefficients were tuned for another method.
        fixed.setdefault("method", (recipe["method"], target.recipe.method))
    return Transfer(point, priors, tuple(moved[name] for name in trial.params if name in moved), held, fixed)


def _origin(trial: Trial, name: str) -> str | None:
    """The dimension of the trial that a dimension takes its value from."""
    if name in trial.params:
        return name
    return next((one for one in trial.params if field_of(one) == field_of(name)), None)


def _parents(target: StudySpec, trial: Trial) -> set[str]:
    """The dimensions named in the conditions of dimensions that could take a value of the trial."""
    parents: set[str] = set()
    for name in reversed(target.space):
        if name in parents or _origin(trial, name) is not None:
            parents |= {parent for parent, _ in target.space[name].when}
    return parents


def _fitted(dimension: Dimension, value: Value) -> tuple[Value | None, str]:
    """The value fitted to the dimension, None if it does not fit, and a description of any change."""
    if dimension.holds(value):
        return value, ""
    if isinstance(dimension, Range) and isinstance(value, int | float):
        end = dimension.low if value < dimension.low else dimension.high
        return end, f"clipped to the end of {dimension.low:g} to {dimension.high:g}"
    return None, f"dropped: it is not {dimension}"


def _strength(study: StudySpec, history: History, trial: Trial, name: str) -> float:
    """How close the best quarter of the scored trials are to the trial, from 0.2 to 0.8."""
    ranked = history.ranked()
    having = [one for one in ranked[: math.ceil(BEST_SHARE * len(ranked))] if name in one.params]
    if len(having) < LEAST_TRIALS:
        return UNKNOWN
    # The trial itself, at distance 0, says nothing.
    others = [one.params[name] for one in having if one.number != trial.number]
    return round(WEAKEST + (STRONGEST - WEAKEST) * closeness(study.space[name], trial.params[name], others), 2)


def closeness(dimension: Dimension, centre: Value, others: Sequence[Value]) -> float:
    """1 if all `others` equal `centre`, 0 if they are no closer to it than by chance."""
    if isinstance(dimension, Range) and centre not in dimension.extra_values:
        distances = [_distance(dimension, float(centre), float(other)) for other in others]
        return max(0.0, 1 - sum(distances) / len(distances) / CHANCE_DISTANCE)
    chance = 1 / len(dimension.ends())
    if isinstance(dimension, Range):
        chance = dimension.share_of_extra_values / len(dimension.extra_values)
    agreeing = sum(other == centre for other in others) / len(others)
    return max(0.0, (agreeing - chance) / (1 - chance))


def _distance(dimension: Range, one: float, other: float) -> float:
    """Distance as a share of the range, in its own scale; 1 to an extra value."""
    if other in dimension.extra_values:
        return 1.0
    if dimension.log:
        return abs(math.log(one / other)) / math.log(dimension.high / dimension.low)
    return abs(one - other) / (dimension.high - dimension.low)


def transferred_space(
    given: Mapping[str, Any], target: StudySpec, handed: Transfer, comments: Sequence[str], where: str
) -> str:
    """The text of the new space, from `given`, the tables of `target`'s file. Raises `InputError` if it is invalid."""
    tables: dict[str, Any] = copy.deepcopy(dict(given))
    for name, prior in handed.priors.items():
        _entry(tables["search"], name)["prior"] = prior.to_plain()
    points = list(tables.get("first_points", []))
    if not repeats_published(target, handed):
        # A first point of the space that equals the transferred one is not repeated.
        params = _resolved(target, handed)
        others = [point for point, theirs in zip(points, target.first_points, strict=True) if theirs != params]
        points = [dict(handed.point), *others]
    if points:
        tables["first_points"] = points
    lines = [line for comment in comments for line in textwrap.wrap(_printable(comment), WIDTH)]
    text = "".join(f"# {line}\n" for line in lines) + "\n" + tomli_w.dumps(tables)
    study_from_plain(parse_toml(text, where), where)
    return text


def repeats_published(target: StudySpec, handed: Transfer) -> bool:
    """Whether the point is the recipe of the space, which trial 0 trains anyway."""
    return _resolved(target, handed) == params_of(target.recipe, target.space)


def _resolved(target: StudySpec, handed: Transfer) -> Params:
    return params_of(with_params(target.recipe, handed.point), target.space)


def _entry(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """The table of a dimension, whether its dotted name is quoted or written as nested tables."""
    for entries, key in _paths(tables, name):
        if key in entries:
            entry: dict[str, Any] = entries[key]
            return entry
    raise KeyError(name)


def _paths(tables: dict[str, Any], name: str) -> Iterator[tuple[dict[str, Any], str]]:
    yield tables, name
    for key, inner in tables.items():
        if isinstance(inner, dict) and name.startswith(f"{key}."):
            yield from _paths(inner, name.removeprefix(f"{key}."))


def score_words(study: StudySpec, trial: Trial) -> str:
    """The trial's scores in the study's objectives."""
    accuracies = rung_accuracies(trial) or {}
    parts = [f"{name.replace('_', ' ')} {accuracies[f'{name}_validation']}" for name in study.settings.objective]
    images = trial.at_rung(trial.best_rung)["total_validation"]
    return f"{', '.join(parts)} on {images} validation images at epoch {trial.best_rung}"


def comments_of(study: StudySpec, trial: Trial, handed: Transfer, source: str, where: str) -> list[str]:
    """The comments at the top of the new file."""
    narrowed = ", ".join(f"{name} ({prior.strength:g})" for name, prior in handed.priors.items())
    comments = [
        f"{where}, narrowed by what the study {source} found. Its trial {trial.number}: {score_words(study, trial)}.",
        "That trial's values are tried right after the recipe, with priors around them; the strengths say how close"
        f" the best quarter of the study's scored trials are to them: {narrowed}.",
    ]
    comments += [
        f"{one.name}: the trial has {show(one.value)}, {one.word}."
        for one in handed.moved
        if one.word and one.centre != one.value
    ]
    comments += [f"{name}: {show(value)} in the study, in the first point only." for name, value in handed.held.items()]
    comments += [
        f"{name}: the trial has {show(value)}; it is not searched here and stays {show(here)}."
        for name, (value, here) in handed.fixed.items()
    ]
    return comments


def _printable(text: str) -> str:
    """Replace characters that could end a comment, such as a newline in a file name."""
    return "".join(character if character.isprintable() else "?" for character in text)
