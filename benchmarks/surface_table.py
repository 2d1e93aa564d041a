"""The recorded trainings of `surfaces.py train`, as a table of one row per training.

    python benchmarks/surfaces.py table --surface surfaces.json --out benchmarks/tables/digits_surface.csv

Columns: `space`, `epochs` and `epsilon` of the task; `mode`, `recipe`, `seed`; a dimension of the space each, empty
where it does not exist; `WEIGHTS EPOCH clean` and `WEIGHTS EPOCH RADIUS`, the number of the `validation_images` that
are classified correctly and that survive the margin attack at that multiple of epsilon; `true WEIGHTS clean` and `true
WEIGHTS robust`, the same for the `true_images`, which chose nothing, at epsilon; `seconds` of a
processor, of the whole; `diverged`, the reason. Counts that were not reached are empty.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcpr_tune.search.spec.dimensions import Choice, Dimension, Params, Space, Value
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import find_space, read_study

Plain = dict[str, Any]
WEIGHTS = ("last", "averaged")


@dataclass(frozen=True)
class Training:
    """One recorded training."""

    mode: str
    recipe: int
    seed: int
    params: Params
    scores: dict[int, dict[str, list[int]]]
    """By epoch and weights: correct images, then the survivors at each radius."""
    truth: dict[str, list[int]]
    """By weights: correct images and survivors at epsilon, of those that chose nothing; empty if it diverged."""
    true_images: int
    seconds: float
    diverged: str


@dataclass(frozen=True)
class Surface:
    """Recorded trainings of one task. `radii`: of the attacks that score, as multiples of epsilon."""

    space: str
    epochs: int
    epsilon: float
    radii: tuple[float, ...]
    validation_images: int
    trainings: list[Training]

    def study(self, *values: tuple[str, Any]) -> StudySpec:
        """The study whose recipes these are, with more settings."""
        return read_study(find_space(self.space), [("epochs", self.epochs), *values])

    def pairs(self, mode: str) -> dict[int, list[Training]]:
        """The recipes with at least two seeds: the trainings of the first two, by number."""
        found: dict[int, list[Training]] = {}
        for one in sorted(self.trainings, key=lambda one: (one.recipe, one.seed)):
            if one.mode == mode:
                found.setdefault(one.recipe, []).append(one)
        return {recipe: trainings[:2] for recipe, trainings in found.items() if len(trainings) > 1}


def read_surface(path: Path) -> Surface:
    """From the file of `train` or from a table."""
    if path.suffix == ".csv":
        return from_rows(list(csv.DictReader(path.read_text().splitlines())))
    return from_results(json.loads(path.read_text()))


def from_results(results: Plain) -> Surface:
    """What `train` writes."""
    settings = results["settings"]
    trainings = [
        Training(
            one["mode"],
            one["recipe"],
            one["seed"],
            results["params"][one["recipe"]],
            {int(epoch): counts for epoch, counts in one["scores"].items()},
            {name: one["truth"][name] for name in WEIGHTS if one["truth"]},
            one["truth"].get("images", 0),
            one["seconds"],
            one["diverged"],
        )
        for one in results["trainings"]
    ]
    space, epochs = settings["space"], settings["epochs"]
    images = settings.get("validation_images") or validation_images(space, epochs)
    return Surface(space, epochs, settings["epsilon"], tuple(settings["radii"]), images, trainings)


def validation_images(space: str, epochs: int) -> int:
    from hcpr_tune.training.data.dataset import load_data

    return len(load_data(read_study(find_space(space), [("epochs", epochs)]).recipe.task).validation)


def rows_of(surface: Surface) -> list[Plain]:
    """A table's rows, which have all columns."""
    space = surface.study().space
    names = ["clean", *map(str, surface.radii)]
    looked = sorted({epoch for one in surface.trainings for epoch in one.scores})
    rows = []
    for one in sorted(surface.trainings, key=lambda one: (one.mode, one.recipe, one.seed)):
        row: Plain = {"space": surface.space, "epochs": surface.epochs, "epsilon": surface.epsilon}
        row |= {"validation_images": surface.validation_images, "true_images": one.true_images}
        row |= {"mode": one.mode, "recipe": one.recipe, "seed": one.seed}
        row |= {name: one.params.get(name, "") for name in space}
        for epoch in looked:
            for weights in WEIGHTS:
                counts = one.scores.get(epoch, {}).get(weights, [""] * len(names))
                row |= {f"{weights} {epoch} {name}": count for name, count in zip(names, counts, strict=True)}
        for weights in WEIGHTS:
            clean, robust = one.truth.get(weights, ("", ""))
            row |= {f"true {weights} clean": clean, f"true {weights} robust": robust}
        row |= {"seconds": one.seconds, "diverged": one.diverged}
        rows.append(row)
    return rows


def from_rows(rows: list[dict[str, str]]) -> Surface:
    """From the texts of a table."""
    first = rows[0]
    space, epochs = first["space"], int(first["epochs"])
    dimensions = read_study(find_space(space), [("epochs", epochs)]).space
    scored = [name.split() for name in first if name.split()[0] in WEIGHTS]
    looked = sorted({int(epoch) for _, epoch, _ in scored})
    radii = list(dict.fromkeys(radius for _, _, radius in scored if radius != "clean"))
    trainings = []
    for row in rows:
        scores = {
            epoch: {name: [int(row[f"{name} {epoch} {radius}"]) for radius in ("clean", *radii)] for name in WEIGHTS}
            for epoch in looked
            if row[f"last {epoch} clean"]
        }
        kinds = ("clean", "robust")
        truth = {
            name: [int(row[f"true {name} {kind}"]) for kind in kinds] for name in WEIGHTS if int(row["true_images"])
        }
        trainings.append(
            Training(
                row["mode"],
                int(row["recipe"]),
                int(row["seed"]),
                params_in(row, dimensions),
                scores,
                truth,
                int(row["true_images"]),
                float(row["seconds"]),
                row["diverged"],
            )
        )
    images = int(first["validation_images"])
    return Surface(space, epochs, float(first["epsilon"]), tuple(map(float, radii)), images, trainings)


def params_in(row: dict[str, str], space: Space) -> Params:
    return {name: value_in(row[name], dimension) for name, dimension in space.items() if row[name]}


def value_in(text: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Choice):
        return next(choice for choice in dimension.choices if str(choice) == text)
    return int(text) if isinstance(dimension.at(0.0), int) else float(text)


def table(options: argparse.Namespace) -> None:
    """The command `table`."""
    rows = rows_of(read_surface(options.surface))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} trainings, {options.out.stat().st_size} bytes")


def add_table(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--surface", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
