"""What a checkpoint of a study takes, found out beside Ray's start: torch's import would otherwise be waited for, and
stay in the driver.

What was found out once of models and data of ours is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

from hcpr_tune.common.files import write_json
from hcpr_tune.version import VERSION

if TYPE_CHECKING:
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.training.recipe import Recipe

MOST_SECONDS = 20.0
MOST_RECIPES = 32
MOST_KEPT = 200
GROWS = ("model.", "averaging.half_life")
"""Dimensions that a checkpoint's size depends on."""


@contextmanager
def measuring(study: StudySpec) -> Iterator[Callable[[], int]]:
    """A function that says the bytes of the study's largest checkpoint, 0 where that cannot be known here."""
    from hcpr_tune.common.settings import to_plain

    recipes = largest_recipes(study)
    lines = "".join(json.dumps(to_plain(recipe)) + "\n" for recipe in recipes)
    key = hashlib.sha256(f"{VERSION}\n{lines}".encode()).hexdigest() if all(map(is_ours, recipes)) else ""
    if known := cached_sizes().get(key):
        yield lambda: known
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "hcpr_tune.training.size"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    assert process.stdin is not None
    with suppress(OSError):  # it has ended already: its return code says so
        process.stdin.write(lines)
        process.stdin.close()
    process.stdin = None

    def size() -> int:
        try:
            said, _ = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return 0
        # A model of the user's own may print in its last moments: only the first word is ours.
        first = (said.split() or [""])[0]
        found = int(first) if process.returncode == 0 and first.isascii() and first.isdigit() else 0
        if found and key:
            keep_size(key, found)
        return found

    try:
        yield size
    finally:
        process.kill()
        process.communicate()


def is_ours(recipe: Recipe) -> bool:
    """Whether model and images stay what they are from one search to the next."""
    from hcpr_tune.training.data.registry import DATASETS
    from hcpr_tune.training.models.registry import ARCHITECTURES

    return recipe.model.name in ARCHITECTURES and recipe.task.dataset in DATASETS


def cache_file() -> Path:
    """Sizes by recipe, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hcpr_tune" / "checkpoint_bytes.json"


def cached_sizes() -> dict[str, int]:
    """What is known; nothing where the cache cannot be read."""
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # a user without a home, a file of brackets
        return {}
    sizes = found.items() if isinstance(found, dict) else ()
    return {key: size for key, size in sizes if isinstance(size, int) and size > 0}


def keep_size(key: str, size: int) -> None:
    """Remember a size; a cache that cannot be written is done without."""
    kept = dict([*cached_sizes().items(), (key, size)][-MOST_KEPT:])
    with suppress(OSError, RuntimeError):
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(cache_file(), kept)


def largest_recipes(study: StudySpec) -> list[Recipe]:
    """The recipes at the ends of what the size depends on."""
    from hcpr_tune.search.spec.dimensions import active_params
    from hcpr_tune.search.spec.points import params_of, with_params

    names = [name for name in study.space if name.startswith(GROWS)]
    published = params_of(study.recipe, study.space)
    recipes = []
    # Of numbers only the largest matter; of names all.
    choices = [
        ends if isinstance(ends[0], str) else (max(ends),) for ends in (study.space[name].ends() for name in names)
    ]
    for ends in islice(product(*choices), MOST_RECIPES):
        params = active_params(study.space, published | dict(zip(names, ends, strict=True)))
        recipes.append(with_params(study.recipe, params))
    return recipes
