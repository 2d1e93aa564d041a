"""The variants of a plan: a study with other values of the settings that a plan can vary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hcpr_tune.common.settings import parse_assignment
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.simulation.worker_pool import WorkerPool

WORKERS = "workers"
VARIED = ("budget.", "early_stopping.", "sampler.", "seed", WORKERS)
"""What may vary: which trials are trained, how far and by how many workers, but not the training itself."""
MOST_WORKERS = 100_000
MOST_VARIANTS = 64
AS_IT_IS = "the unchanged space"


@dataclass(frozen=True)
class Variant:
    """One way to search."""

    name: str
    study: StudySpec
    worker_pool: WorkerPool


def varied(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`KEY=V1,V2,V3` of the command line as values by name. Raises `InputError`."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise InputError(
                f"--vary must be KEY=VALUE,VALUE,..., got {text}; for instance --vary early_stopping.first_rung=3,9"
            )
        if name in found:
            raise InputError(f"--vary {name} is given twice; give all of its values at once")
        found[name] = [parse_assignment(f"{name}={value}")[1] for value in values.split(",")]
    return found


def variants_of(
    vary: Mapping[str, Sequence[Any]], read: Callable[[Sequence[tuple[str, Any]]], StudySpec], worker_pool: WorkerPool
) -> list[Variant]:
    """The study as it is, and one variant for each combination of the values in `vary`.

    `read` returns the study with these values of dotted names overridden. Raises `InputError`.
    """
    axes = [_axis(name, values) for name, values in vary.items()]
    names = list(vary)
    count = math.prod(map(len, axes))
    if count > MOST_VARIANTS:
        raise InputError(f"--vary makes {count} variants, at most {MOST_VARIANTS} can be compared; give fewer values")
    base = Variant(AS_IT_IS, read(()), worker_pool)
    found = [base]
    for values in itertools.product(*axes) if axes else ():
        settings = tuple((name, value) for name, value in values if name != WORKERS)
        study = read(settings)
        workers = check_workers(f"--vary {WORKERS}", dict(values).get(WORKERS, worker_pool.workers), study)
        name = ", ".join(f"{name}={_word(value)}" for name, value in values)
        as_it_is = (study, workers) == (base.study, worker_pool.workers)
        if WORKERS in names:
            study = _with_workers(study, workers)
        if as_it_is:
            found[0] = Variant(f"{name} ({AS_IT_IS})", study, worker_pool)
        else:
            found.append(Variant(name, study, replace(worker_pool, workers=workers)))
    return found


def _with_workers(study: StudySpec, workers: int) -> StudySpec:
    """The study limited to the number of workers it is compared with."""
    resources = replace(study.settings.resources, workers=workers)
    return replace(study, settings=replace(study.settings, resources=resources))


def _axis(name: str, values: Sequence[Any]) -> list[tuple[str, Any]]:
    """(name, value) for each value. Raises `InputError` for a name that cannot vary, and for a value given twice."""
    if not any(name == known or (known.endswith(".") and name.startswith(known)) for known in VARIED):
        known = ", ".join(one + "*" if one.endswith(".") else one for one in VARIED)
        raise InputError(
            f"--vary {name}: a plan has learning curves of the training as it is and cannot vary that; "
            f"what may vary: {known}"
        )
    doubled = [value for index, value in enumerate(values) if value in values[:index]]
    if doubled:
        raise InputError(f"--vary {name} has {_word(doubled[0])} twice; give each value once")
    return [(name, value) for value in values]


def check_workers(option: str, value: Any, study: StudySpec) -> int:
    """Return `value`. Raises `InputError` if it is not a number of workers, or more than the study would use."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        bounds = f"at most {MOST_WORKERS}" if isinstance(value, int) and value > MOST_WORKERS else "at least 1"
        raise InputError(f"{option} must be a whole number of {bounds}, got {value}; one GPU is one worker")
    most = study.settings.resources.workers
    if most and value > most:
        raise InputError(
            f"{option} {value} is above resources.workers = {most}, which limits the search; "
            "raise that, or set it to 0: no limit"
        )
    return value


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
