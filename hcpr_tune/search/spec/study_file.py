"""Study files: read from TOML with overrides, checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hcpr_tune.common.settings import (
    dotted_names,
    get_dotted,
    lay_over,
    located,
    parse_toml,
    read,
    read_toml,
    show,
    unknown_key,
)
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimensions import field_of
from hcpr_tune.search.spec.points import read_points
from hcpr_tune.search.spec.settings import EarlyStopping, StudySettings
from hcpr_tune.search.spec.space import nested, read_space
from hcpr_tune.search.spec.space_files import find_space as find_space
from hcpr_tune.search.spec.study import DERIVED, StudySpec, rung_epochs, study_to_plain, study_to_toml
from hcpr_tune.training.data.registry import FOLDER
from hcpr_tune.training.recipe import Recipe, Task, is_field, recipe_from_plain


def read_study(path: Path, overrides: Sequence[tuple[str, Any]] = (), given: str = "") -> StudySpec:
    """Read a study file and apply `overrides` (dotted name, value).

    A dotted name is a key of the file, or a field of the recipe, which is then fixed and no longer searched. `given` is
    the overrides as they were written on the command line, for messages. A relative path of the images is made
    absolute. Raises `InputError` naming file, key, bounds, value and hint.
    """
    where = f"{path} with {given}" if given else str(path)
    tables = read_toml(path)
    if isinstance(tables.get("search"), dict):
        tables["search"] = nested(tables["search"], where)
    own: dict[str, Any] = {}
    for dotted, value in overrides:
        own |= _override(tables, dotted, value, where)
    return at_home(study_from_plain(tables, where, own))


def at_home(study: StudySpec) -> StudySpec:
    """The study with an absolute path of its images, since workers run in other folders.

    `~` is left for each machine to expand. A path that is not used is left as it is.
    """
    task = study.recipe.task
    folder = task.dataset.removeprefix(FOLDER)
    if folder != task.dataset:
        task = replace(task, dataset=f"{FOLDER}{_absolute(folder)}")
    elif task.dataset != Task.dataset:
        task = replace(task, root=_absolute(task.root))
    return study if task == study.recipe.task else replace(study, recipe=replace(study.recipe, task=task))


def _absolute(path: str) -> str:
    if path.startswith(("~", "/")):
        return path
    try:
        return str(Path.cwd() / path)
    except OSError as error:
        raise InputError(
            f"the images in {show(path)} cannot be found from the current directory: {error}; give an absolute path"
        ) from None


def check_reopens(study: StudySpec, where: str) -> None:
    """Raises `InputError` if the study's file would not be read back as this study: it could not be resumed."""
    try:
        again = study_from_plain(parse_toml(study_to_toml(study), "study.toml"), "study.toml")
    except (InputError, UnicodeEncodeError) as error:
        raise InputError(
            f"this study could not be opened again: {error}; change what it names, and report it ({where})"
        ) from None
    if again != replace(study, begun_as=""):
        one, other = study_to_plain(study), study_to_plain(again)
        wrong = next((name for name in one if one[name] != other.get(name)), "it")
        raise InputError(
            f"this study could not be opened again: its {wrong} would be read as something else;"
            f" write that table differently, and report it ({where})"
        )


def _override(tables: dict[str, Any], dotted: str, value: Any, where: str) -> dict[str, Any]:
    """Set a value in the tables; returns the plain values that it replaced, by dotted name."""
    recipe_fields = dotted_names(Recipe)
    head = dotted.partition(".")[0]
    known = {item.name for item in fields(StudySettings)} | {"recipe", "task", "search", "first_points"}
    if head not in known and (is_field(dotted) or head in {name.partition(".")[0] for name in recipe_fields}):
        dotted, head = f"recipe.{dotted}", "recipe"
    if head not in known:
        raise unknown_key(dotted, [*known, *recipe_fields], where)
    before = {dotted: get_dotted(tables, dotted)}
    lay_over(tables, dotted, value, where)
    if head == "recipe":
        _fix(tables.get("search", {}), dotted.removeprefix("recipe."))
    return before


def _fix(search: Any, name: str) -> None:
    """Remove the dimensions of the field `name`, and of all fields below it, from the nested search table."""
    head, _, rest = name.partition(".")
    if not isinstance(search, dict):
        return
    if not rest:
        for key in [key for key in search if field_of(key) == head]:
            del search[key]
    elif head in search:
        _fix(search[head], rest)
        if search[head] == {}:
            del search[head]


def study_from_plain(tables: dict[str, Any], where: str, instead: Mapping[str, Any] | None = None) -> StudySpec:
    """A study from the nested tables of its file; `instead`: the file's values that were overridden, by dotted name."""
    tables = copy.deepcopy(tables)
    search, task, recipe = (tables.pop(name, {}) for name in ("search", "task", "recipe"))
    points = tables.pop("first_points", [])
    if isinstance(tables.get("objective"), str):
        tables["objective"] = [tables["objective"]]
    for name, table in (("search", search), ("task", task), ("recipe", recipe)):
        if not isinstance(table, dict):
            raise InputError(
                f"{name} must be a table, got {show(table)}; write [{name}] with its keys below it ({where})"
            )
    unknown = set(tables) - {item.name for item in fields(StudySettings)}
    if unknown:
        known = [item.name for item in fields(StudySettings)] + ["search", "task", "recipe", "first_points"]
        raise unknown_key(min(unknown), known, where)
    settings = read(StudySettings, tables, where, instead=instead)
    for name, reason in DERIVED.items():
        if name in recipe:
            raise InputError(f"recipe.{name} cannot be set in a study: {reason} ({where})")
    try:
        # Read once without the rungs, which need the epochs, so that the recipe's own errors come first.
        below = {name.removeprefix("recipe."): value for name, value in (instead or {}).items()}
        epochs = _read_recipe({**recipe, "task": task}, where, below).epochs
        rungs = rung_epochs(settings.early_stopping, epochs)
        _check_brackets(settings.early_stopping, rungs)
    except InputError as error:
        raise located(error, where) from None
    derived = {
        "task": task,
        "segment_ends": [rung for rung in rungs if rung < epochs],
        "threads": max(1, int(settings.resources.cpus_per_trial)),
        "seed": settings.seed,
    }
    full = recipe_from_plain({**recipe, **derived}, where)
    space = read_space(search, full, where)
    study = StudySpec(settings, full, space, read_points(points, full, space, where))
    calibration, before = settings.early_stopping.calibration, len(study.first_points)
    if calibration != "auto" and calibration + before > settings.budget.trials:
        raise InputError(
            f"early_stopping.calibration = {calibration} and {before} first_points must together be"
            f" at most budget.trials = {settings.budget.trials}; lower one, or raise budget.trials ({where})"
        )
    return study


def _check_brackets(early_stopping: EarlyStopping, rungs: Sequence[int]) -> None:
    if early_stopping.stops and early_stopping.brackets > len(rungs):
        raise InputError(
            f"early_stopping.brackets must be at most the number of rungs, {len(rungs)}"
            f" (epochs {', '.join(map(str, rungs))}), got {early_stopping.brackets}; lower it"
        )


def _read_recipe(values: dict[str, Any], where: str, instead: Mapping[str, Any]) -> Recipe:
    """The recipe of a study file; errors name the keys as they are in the file."""
    try:
        return recipe_from_plain(values, where, instead)
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith("task.") else f"recipe.{message}") from None
