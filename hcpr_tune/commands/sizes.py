"""What a checkpoint of a study takes, found out beside Ray's start: torch's import would otherwise be waited for, and stay in the driver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hcpr_tune.search.study import Study
    from hcpr_tune.training.recipe import Recipe

MOST_SECONDS = 20.0
MOST_RECIPES = 32
GROWS = ("model.", "averaging.half_life")
"""Dimensions that a checkpoint's size depends on."""


@contextmanager
def measuring(study: Study) -> Iterator[Callable[[], int]]:
    """A function that says the bytes of the study's largest checkpoint, 0 where that cannot be known here."""
    from hcpr_tune.settings import to_plain

    lines = "".join(json.dumps(to_plain(recipe)) + "\n" for recipe in largest_recipes(study))
    process = subprocess.Popen(
        [sys.executable, "-m", "hcpr_tune.training.size"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.close()
    process.stdin = None

    def size() -> int:
        try:
            said, _ = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return 0
        # A model of the user's own may print when it is imported.
        last = (said.split() or [""])[-1]
        return int(last) if process.returncode == 0 and last.isdigit() else 0

    try:
        yield size
    finally:
        process.kill()
        process.communicate()


def largest_recipes(study: Study) -> list[Recipe]:
    """The recipes at the ends of what the size depends on."""
    from hcpr_tune.search.space import active_params, params_of, with_params

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
