"""Which code may be imported: `package.module:function` in a file is code chosen by the author of the file.

A name that the user gives himself, or that is in his own file, is trusted. A name in a study or next to a model is
trusted if this user started that study here, or says so once (`--trust`, `trust=True`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hcpr_tune.api.begun import address_of, begun_here, remember
from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StoredStudy, StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.training.recipe import Recipe

MADE_BY_US = ("study.toml", "record.jsonl", "metrics.jsonl", "metrics.json", "model.safetensors")
"""A folder with one of these files is a study, a training or a model, and may come from anyone."""
DEPTH = 4
"""How many folders above a file are searched for one."""


@dataclass(frozen=True)
class Trust:
    """Which code the user vouches for: `all` that the files of this call name, or what he has `named` himself."""

    all: bool = False
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, everything: bool, values: Iterable[object] = ()) -> Trust:
        """`values`: the settings that the user has given in this call; a text in them may name code."""
        return cls(everything, frozenset(_texts(values)))


def _texts(values: Iterable[object]) -> Iterable[str]:
    """All texts in values, which may be lists and tables."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value


def named_in_recipe(recipe: Recipe) -> set[str]:
    """The user's own data set, method and model that a recipe names."""
    from hcpr_tune.training.methods.registry import METHODS

    named = {recipe.method} - set(METHODS) | named_as_model(recipe.model.name)
    return named | named_as_dataset(recipe.task.dataset)


def named_as_dataset(name: str) -> set[str]:
    """The name, where it is that of a user's data set."""
    from hcpr_tune.training.data.registry import is_own

    return {name} if is_own(name) else set()


def named_as_model(name: str) -> set[str]:
    """The name, where it is that of a user's factory."""
    from hcpr_tune.training.models.registry import ARCHITECTURES

    return set() if name in ARCHITECTURES or name.startswith("torchvision:") else {name}


def named_in_study(study: StudySpec) -> set[str]:
    """All that a study may import: its recipe's, those that are searched, its sampler and its rule of stopping."""
    found = named_in_recipe(study.recipe) | named_for_decisions(study)
    for name, dimension in study.space.items():
        for value in dimension.ends():
            found |= named_as_value(name, value)
    return found


def named_for_decisions(study: StudySpec) -> set[str]:
    """What decides on the next job: the user's own sampler and rule of early stopping."""
    from hcpr_tune.search.scheduling.stoppers import STOPPERS
    from hcpr_tune.search.suggestion.registry import SAMPLERS

    settings = study.settings
    return ({settings.sampler.name} - set(SAMPLERS)) | ({settings.early_stopping.method} - set(STOPPERS))


def named_as_value(name: str, value: object) -> set[str]:
    """The value of a dimension, where it names code."""
    from hcpr_tune.search.spec.dimensions import field_of
    from hcpr_tune.training.methods.registry import METHODS

    if field_of(name) == "method":
        return {str(value)} - set(METHODS)
    return named_as_model(str(value)) if field_of(name) == "model.name" else set()


def named_in_trials(history: History) -> set[str]:
    """What the recorded trials name: a record that somebody changed may name more than its study."""
    found: set[str] = set()
    for trial in history.trials.values():
        for name, value in trial.params.items():
            if isinstance(value, str):
                found |= named_as_value(name, value)
    return found


def trust_space(trust: Trust, path: Path, study: StudySpec) -> None:
    """A space that the command line names, with what it lays over it.

    Raises `InputError` if the file belongs to another study and its code is not trusted.
    """
    _trust_file(trust, path, named_in_study(study))


def trust_recipe(trust: Trust, path: Path, recipe: Recipe) -> None:
    """The same for a recipe to train."""
    _trust_file(trust, path, named_in_recipe(recipe))


def _trust_file(trust: Trust, path: Path, named: set[str]) -> None:
    from hcpr_tune.training.plugins import vouch

    given = trust.named
    own = named & given if _is_made_by_us(path) else named
    vouch(own | given)
    _settle(trust, named - own, [address_of(path.parent)], str(path))


def trust_study(trust: Trust, study: StoredStudy, own: Iterable[str] = ()) -> None:
    """A study that was begun before; `own` is what the user names himself in this call.

    Raises `InputError` if the rest is not trusted.
    """
    from hcpr_tune.training.plugins import vouch

    folder, spec, history = study
    in_study, in_trials = named_in_study(spec), named_in_trials(history)
    given = {*own, *trust.named}
    vouch(given)
    where = folder.study if in_study - given else folder.record
    _settle(trust, (in_study | in_trials) - given, _places(folder), str(where))


def trust_decisions(trust: Trust, root: Path, study: StudySpec) -> None:
    """A study that is only played again: nothing is imported but what decides."""
    _settle(trust, named_for_decisions(study), [address_of(root)], str(root / "study.toml"))


def trust_model(trust: Trust, folder: Path, with_data: bool = False) -> None:
    """A folder that holds a model: its recipe names the network that is built, and `with_data` the images."""
    from hcpr_tune.training.recipe import load_recipe

    path = folder / "recipe.toml"
    recipe = load_recipe(path)
    named = named_as_model(recipe.model.name) | (named_as_dataset(recipe.task.dataset) if with_data else set())
    _settle(trust, named, [address_of(folder)], str(path))


def begin(study: StoredStudy) -> None:
    """Make the study's folder; that this user has begun it here is kept, where it names code."""
    from hcpr_tune.search.storage.studies import create

    create(study.folder, study.spec)
    if named := named_in_study(study.spec):
        for place in _places(study.folder):
            remember(place, named)


def begin_training(out: Path, recipe: Recipe) -> None:
    """The same for the folder of a training."""
    if named := named_in_recipe(recipe):
        remember(address_of(out), named)


def option_again(study: StoredStudy) -> list[str]:
    """The option that a command to resume the study needs if it could not be kept that this user has begun it."""
    named = named_in_study(study.spec)
    return ["--trust"] if named and not begun_here(_places(study.folder), named) else []


def _places(folder: StudyFolder) -> list[str]:
    """Where a study lies: its folder, and the bucket that this is a copy of."""
    return [address_of(folder.root), *([] if folder.bucket is None else [folder.address])]


def _is_made_by_us(path: Path) -> bool:
    """Whether a file is in a study, a training or the folder of a model."""
    above = [Path(address_of(path)), *Path(address_of(path)).parents][1 : 1 + DEPTH]
    return any(os.access(folder / name, os.F_OK) for folder in above for name in MADE_BY_US)


def _settle(trust: Trust, named: set[str], places: Sequence[str], where: str) -> None:
    """Let the command import the names if the user began this here, or vouches for it now. Raises `InputError`."""
    from hcpr_tune.training.plugins import vouch

    if not named:
        return
    if not begun_here(places, named):
        if not (trust.all or _asked(named, where)):
            raise InputError(
                f"{where} names {', '.join(sorted(named))}, code that this would import and run, and you have not "
                "begun it here; look at that code,"
                " and add --trust (trust=True from Python) if you trust whoever wrote it"
            )
        for place in places:
            remember(place, named)
    vouch(named)


def _asked(named: set[str], where: str) -> bool:
    """Ask the user at a terminal; programs, notebooks and jobs are not asked."""
    if not _at_terminal():
        return False
    sys.stderr.write(clean(f"{where} names code that this would import and run: {', '.join(sorted(named))}\n"))
    sys.stderr.write("You have not begun it here. Do you trust whoever wrote that code? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _at_terminal() -> bool:
    from hcpr_tune.common.output import is_kept

    try:
        # Only a command keeps its output: a program that calls us is told by an error.
        return is_kept() and sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
