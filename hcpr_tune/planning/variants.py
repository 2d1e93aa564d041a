"""The variants of a plan: a study with other values of what a plan can tell apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.planning.fleet import Fleet
from hcpr_tune.search.study import Study
from hcpr_tune.settings import parse_assignment

WORKERS = "workers"
VARIED = ("budget.", "early_stopping.", "sampler.", "seed", "epochs", "recipe.epochs", WORKERS)
"""What may vary: it changes what is trained for how long and by how many, and no training itself."""
MOST_VARIANTS = 64
AS_IT_IS = "as the space has it"


@dataclass(frozen=True)
class Variant:
    """One way to search."""

    name: str
    study: Study
    fleet: Fleet
    overrides: tuple[tuple[str, Any], ...] = ()
    """(dotted name, value) beside those of the whole plan."""


def variants_of(vary: Sequence[str], read: Callable[[Sequence[tuple[str, Any]]], Study], fleet: Fleet) -> list[Variant]:
    """The study as it is, and each combination of the values that vary: `KEY=V1,V2,V3`. Raises `InputError`.

    `read` gives the study with further values of dotted names laid over it.
    """
    axes = [_values(text) for text in vary]
    names = [axis[0][0] for axis in axes]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise InputError(f"--vary {doubled[0]} is given twice; give all of its values at once")
    count = math.prod(map(len, axes))
    if count > MOST_VARIANTS:
        raise InputError(f"--vary makes {count} variants, at most {MOST_VARIANTS} can be compared; give fewer values")
    base = Variant(AS_IT_IS, read(()), fleet)
    found = [base]
    for values in itertools.product(*axes) if axes else ():
        settings = tuple((name, value) for name, value in values if name != WORKERS)
        study = read(settings)
        workers = dict(values).get(WORKERS, fleet.workers)
        variant = Variant(
            ", ".join(f"{name}={_word(value)}" for name, value in values),
            study,
            replace(fleet, workers=workers),
            settings,
        )
        if (variant.study, variant.fleet) == (base.study, base.fleet):
            found[0] = replace(base, name=f"{variant.name} ({AS_IT_IS})")
        else:
            found.append(variant)
    return found


def _values(text: str) -> list[tuple[str, Any]]:
    """(name, value) for each value of KEY=V1,V2."""
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise InputError(
            f"--vary must be KEY=VALUE,VALUE,..., got {text}; for instance --vary early_stopping.first_rung=3,9"
        )
    if not any(name == known or (known.endswith(".") and name.startswith(known)) for known in VARIED):
        known = ", ".join(one + "*" if one.endswith(".") else one for one in VARIED)
        raise InputError(
            f"--vary {name}: a plan knows learning curves of the training as it is and cannot vary that; what may vary: {known}"
        )
    parsed = [parse_assignment(f"{name}={value}") for value in values.split(",")]
    if name == WORKERS:
        for _, value in parsed:
            check_workers("--vary workers", value)
    return parsed


def check_workers(option: str, value: Any) -> int:
    """Raises `InputError` for what is no number of workers."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{option} must be a whole number of at least 1, got {value}; one GPU is one worker")
    return value


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
