"""Search spaces with something odd in them, drawn from a seed: what people write, programs write, and no one would."""

from __future__ import annotations

import copy
import math
import random
import tomllib
from collections.abc import Iterator
from typing import Any

from hcpr_tune.common.settings import dotted_names
from hcpr_tune.search.spec.dimension_tables import FIXED
from hcpr_tune.search.spec.json_schema import BOUNDS
from hcpr_tune.search.spec.settings import StudySettings
from hcpr_tune.search.spec.study_file import find_space
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.training.models.registry import ARCHITECTURES
from hcpr_tune.training.recipe import Recipe

SPACES = ("default", "baselines", "wide", "pareto", "cifar10", "svhn")
NUMBERS = (
    *(0, 1, 2, 3, 8, 16, 100, 1000, 10**6, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 10**400, -1),
    *(0.0, -0.0, 1e-3, 0.1, 0.2, 0.5, 1.0, 1.0000001, 1.2, 2.0, 6.0, 8.0, 1e6, 1e16, 1e30, 1e31, 1e308),
    *(1.7976931348623157e308, 5e-324, 1e-30, 2.2250738585072014e-308, math.inf, -math.inf, math.nan),
)
WORDS = (
    *(
        "",
        "a",
        "auto",
        "none",
        "asha",
        "trades",
        "cosine",
        "é",
        "\x00",
        "a\rb",
        "\x1b[31m",
        "\ud800",
        '"',
        "\\",
        "a\nb",
    ),
    *("x" * 3000, "folder:somewhere", "folder:", "folder:../a b", "no.such:thing", "8", "true", "\ufeff", "\u2028"),
)
NUMBER_FIELDS = [
    name for name, (hint, _) in dotted_names(Recipe).items() if hint in (int, float) and not name.startswith(FIXED)
]
SEARCHED = [
    name
    for name, (hint, _) in dotted_names(Recipe).items()
    if hint in (int, float, str, bool) and not name.startswith(FIXED)
]
ALL_FIELDS = list(dotted_names(Recipe))
SETTINGS = list(dotted_names(StudySettings))
LAWS = {name: item.metadata["bounds"] for name, (_, item) in dotted_names(Recipe).items()}


def spaces(seed: int, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, tables) of so many spaces: each follows from the seed and its number."""
    bases = [tomllib.loads(find_space(name).read_text(encoding="utf-8")) for name in SPACES]
    for number in range(first, first + count):
        draw = random.Random(f"{seed} {number}")
        tables = copy.deepcopy(bases[0 if draw.random() < 0.5 else draw.randrange(len(bases))])
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            draw.choice(MUTATIONS)(draw, tables)
        yield number, tables


def any_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if kind < 0.5:
        return draw.choice(NUMBERS)
    if kind < 0.75:
        return draw.choice(WORDS)
    if kind < 0.83:
        return draw.random() < 0.5
    if depth > 2:
        return tomllib.loads("a = 1979-05-27T07:32:00Z")["a"]
    if kind < 0.93:
        return [any_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(("low", "x", "a.b", "centre")): any_value(draw, depth + 1) for _ in range(draw.randrange(3))}


def a_number(draw: random.Random, name: str) -> float:
    """Mostly one that the field of the recipe can have."""
    if draw.random() < 0.03:
        return draw.choice(NUMBERS)
    bounds = LAWS[name]
    low = (bounds.above or 0) + 1e-12 if bounds.above is not None else bounds.at_least or 0
    high = min(one for one in (bounds.below, bounds.at_most, 10.0 ** draw.randint(-2, 12)) if one is not None)
    value = draw.choice((low, high, low + (high - low) * draw.random(), high * 10.0 ** draw.uniform(-30, 0), high / 2))
    return max(math.ceil(low), int(value)) if dotted_names(Recipe)[name][0] is int else float(value)


def published(tables: dict[str, Any], name: str) -> Any:
    from hcpr_tune.common.settings import get_dotted, to_plain

    return get_dotted(tables.get("recipe", {}), name, get_dotted(to_plain(Recipe()), name))


def a_range(draw: random.Random, tables: dict[str, Any], name: str) -> dict[str, Any]:
    """A range around what the recipe has, more often than not."""
    own = published(tables, name)
    ends = [a_number(draw, name), a_number(draw, name)]
    if draw.random() < 0.9 and isinstance(own, int | float):
        ends = [own, ends[0]]
    ends.sort(key=lambda end: -1 if end != end else end)
    entry: dict[str, Any] = {"low": ends[0], "high": ends[1]}
    if draw.random() < (0.6 if ends[0] else 0.03):
        entry["log"] = True
    if draw.random() < 0.2:
        entry["extra_values"] = [a_number(draw, name) for _ in range(draw.randint(1, 4))]
    return entry


def a_choice(draw: random.Random, tables: dict[str, Any], name: str) -> dict[str, Any]:
    hint, item = dotted_names(Recipe)[name]
    own = published(tables, name)
    known = tuple({"method": METHODS, "model.name": ARCHITECTURES}.get(name, item.metadata["bounds"].choices or ()))
    if hint is bool:
        return {"choices": [True, False]}
    if hint is str:
        return {
            "choices": [own, *draw.sample(known, min(len(known), draw.randint(1, 4))), *["a.b:c"] * draw.randint(0, 1)]
        }
    if hint not in (int, float):
        return {"choices": [own, [1]]}
    values = [own, *(a_number(draw, name) for _ in range(draw.choice((1, 2, 5, 30, 300, 2000))))]
    if draw.random() < 0.2:
        values.append(draw.choice((float, int, bool, str))(1))
    return {"choices": values if draw.random() < 0.1 else list(dict.fromkeys(values))}


def new_dimension(draw: random.Random, tables: dict[str, Any]) -> None:
    """One more dimension, in one form or another."""
    name = draw.choice(NUMBER_FIELDS if draw.random() < 0.7 else SEARCHED if draw.random() < 0.95 else ALL_FIELDS)
    make = a_range if draw.random() < 0.6 and name in NUMBER_FIELDS else a_choice
    entry = make(draw, tables, name)
    search = tables.setdefault("search", {})
    if not isinstance(search, dict):
        return
    parents = [
        one
        for one, table in search.items()
        if isinstance(table, dict) and isinstance(table.get("choices"), list) and table["choices"]
    ]
    if parents and draw.random() < 0.4:
        for parent in draw.sample(parents, min(len(parents), draw.randint(1, 2))):
            choices = search[parent]["choices"]
            allowed = draw.sample(choices, draw.randint(1, len(choices)))
            entry.setdefault("when", {})[parent] = allowed if draw.random() < 0.7 else allowed[0]
    if draw.random() < 0.3:
        centre = entry.get("high", entry.get("choices", [0])[0])
        entry["prior"] = {
            "centre": draw.choice((centre, published(tables, name))),
            "strength": draw.choice((0, 0.3, 1, 1.0)),
        }
    label = draw.choice(("@a", "@b.c", "@", "@é")) if draw.random() < 0.02 else ""
    if draw.random() < 0.3 and not label and name not in search:
        table = search
        *heads, last = name.split(".")
        for head in heads:
            table = table.setdefault(head, {})
            if not isinstance(table, dict):
                return
        table[last] = entry
    else:
        search[name + label] = entry


def many_dimensions(draw: random.Random, tables: dict[str, Any]) -> None:
    for _ in range(draw.choice((3, 5, 20))):
        new_dimension(draw, tables)


def leaves(tables: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = tables.items() if isinstance(tables, dict) else enumerate(tables) if isinstance(tables, list) else ()
    for key, value in inner:
        yield from leaves(value, (*path, key))


def change_a_value(draw: random.Random, tables: dict[str, Any]) -> None:
    *way, last = draw.choice(list(leaves(tables)))
    holder: Any = tables
    for key in way:
        holder = holder[key]
    before = holder[last]
    if isinstance(before, bool) or not isinstance(before, int | float) or draw.random() < 0.5:
        holder[last] = any_value(draw)
    else:
        holder[last] = draw.choice((-before, before * 2, before * 1e6, before / 1e9, before * 1e200, float(before)))


def drop_a_value(draw: random.Random, tables: dict[str, Any]) -> None:
    *way, last = draw.choice(list(leaves(tables)))
    holder: Any = tables
    for key in way:
        holder = holder[key]
    del holder[last]


def change_a_setting(draw: random.Random, tables: dict[str, Any]) -> None:
    """A setting of the study that the base may not state."""
    name = draw.choice(SETTINGS)
    *heads, last = name.split(".")
    table = tables
    for head in heads:
        table = table.setdefault(head, {})
        if not isinstance(table, dict):
            return
    hint, item = dotted_names(StudySettings)[name]
    allowed = item.metadata["bounds"]
    bounds: list[float] = [bound for word in BOUNDS if (bound := getattr(allowed, word)) is not None]
    near = [bound + step for bound in bounds for step in (-1, 0, 1e-9, 1)]
    value: Any = draw.choice([*near, *NUMBERS]) if hint in (int, float) else any_value(draw)
    table[last] = int(value) if hint is int and isinstance(value, float) and math.isfinite(value) else value


def change_the_sampler(draw: random.Random, tables: dict[str, Any]) -> None:
    tables["sampler"] = {"name": draw.choice([*SAMPLERS]), "startup_trials": draw.choice((1, 1, 2, 8, 10**4))}
    tables["early_stopping"] = {"calibration": draw.choice((1, 1, 2, "auto"))}


def change_the_rungs(draw: random.Random, tables: dict[str, Any]) -> None:
    if isinstance(tables.setdefault("recipe", {}), dict):
        tables["recipe"]["epochs"] = draw.choice((1, 2, 27, 1000, 10**6, 10**9))
    tables["early_stopping"] = {
        "method": draw.choice(("asha", "random", "none")),
        "first_rung": draw.choice((1, 1, 2, 3, 1000)),
        "reduction_factor": draw.choice((1.0000001, 1.01, 1.5, 3, 1000, 1 + 1e-15)),
        "brackets": draw.choice((1, 1, 2, 100)),
        "calibration": 1,
    }


def add_points(draw: random.Random, tables: dict[str, Any]) -> None:
    search = tables.get("search")
    names = [*search, *draw.sample(ALL_FIELDS, 2)] if isinstance(search, dict) else ALL_FIELDS
    points = []
    for _ in range(draw.randint(1, 3)):
        point = {}
        for name in draw.sample(names, min(len(names), draw.randint(0, 3))):
            entry = search.get(name) if isinstance(search, dict) else None
            inside = (
                [*entry.get("choices", [])[:3], entry.get("low"), entry.get("high")] if isinstance(entry, dict) else []
            )
            point[name] = draw.choice([one for one in inside if one is not None] or [any_value(draw)])
        points.append(point)
    tables["first_points"] = points


def say_it_twice(draw: random.Random, tables: dict[str, Any]) -> None:
    """A dimension by its quoted name and as a table."""
    search = tables.get("search")
    names = (
        [name for name, entry in search.items() if "." in name and isinstance(entry, dict)]
        if isinstance(search, dict)
        else []
    )
    if names:
        name = draw.choice(names)
        *heads, last = name.split(".")
        table = search
        for head in heads:
            table = table.setdefault(head, {})
            if not isinstance(table, dict):
                return
        table[last] = copy.deepcopy(search[name])


MUTATIONS = (
    *[new_dimension] * 10,
    *[many_dimensions] * 2,
    *[change_a_value] * 3,
    drop_a_value,
    *[change_a_setting] * 2,
    *[change_the_sampler] * 6,
    *[change_the_rungs] * 2,
    add_points,
    say_it_twice,
)
