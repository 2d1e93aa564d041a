"""Recipes and models by name or path: a file or a folder, or the study that found them."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.common.paths import is_dir, is_file, there
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.space_files import SUFFIX

RECIPE = "recipe.toml"
"""The recipe in a folder with a trial, a training or a model."""


def find_recipe(given: str | Path, storage: str | Path = "results", option: str = "recipe") -> Path:
    """The file of a recipe: given as such, as a folder that has one, or as a study by name or path, whose best it is.

    Raises `InputError`, which names the `option`.
    """
    path, where = Path(given), f"{option} {given}"
    if is_file(path, where):
        return path
    if is_dir(path, where) and there(path / RECIPE):
        return path / RECIPE
    if str(given).endswith(SUFFIX):
        raise InputError(f"{where}: there is no such file; give the file of a recipe, or a study by name or path")
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.views.next_commands import about

    try:
        folder = reopen(storage, given, f"{option} ", with_best=True).folder
    except InputError as error:
        raise InputError(f"{error}; or give the file of a recipe, such as results/NAME/best/recipe.toml") from None
    if not there(folder.best / RECIPE):
        raise InputError(
            f"{where}: {folder.address} has no best recipe yet; let a trial reach a rung "
            f"({about('tune --resume', folder)})"
        )
    return folder.best / RECIPE


def find_model(given: str | Path, storage: str | Path = "results", option: str = "model") -> Path:
    """The folder of a model: given as such, or as a study by name or path: that of its verdict, else of its search.

    Raises `InputError`, which names the `option`.
    """
    path, where = Path(given), f"{option} {given}"
    if is_dir(path, where) and not there(path / "study.toml"):
        return path
    from hcpr_tune.api.export import model_of
    from hcpr_tune.search.storage.studies import reopen

    try:
        folder = reopen(storage, given, f"{option} ", with_best=True).folder
    except InputError as error:
        raise InputError(f"{error}; or give a folder with a model, such as results/NAME/best") from None
    return model_of(folder, where)
