"""The two tasks, and the one schedule under which rivals train and all final choices are scored."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from shared import ROOT, Override

from hcpr_tune.common.settings import parse_assignment
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.recipe import Recipe

SPACES = {
    "digits": ROOT / "search_spaces" / "default.toml",
    "fashion": ROOT / "benchmarks" / "fashion.toml",
}
"""The space of each task. On `fashion`, task.root is the folder of the pooled images (`pooled.write`)."""
SINGLE: tuple[Override, ...] = (("lr_schedule.mode", "single"), ("lr_schedule.shape", "steps"))
"""The published schedule: one run of steps, over the whole training."""
RIVAL_STUDY: tuple[Override, ...] = (*SINGLE, ("early_stopping.method", "none"), ("evaluation.masking_images", 0))
"""For the arms that take the recipe and the space from here, and stop trials by themselves."""


def study_of(task: str, root: Path, settings: list[str], *overrides: Override) -> StudySpec:
    """The study of a task with the settings of --set, and `overrides` over them."""
    given = [parse_assignment(text) for text in settings]
    where = [("task.root", str(root))] if task == "fashion" else []
    return read_study(SPACES[task], [*where, *given, *overrides])


def rival_study(options: argparse.Namespace) -> StudySpec:
    return study_of(options.task, options.root, options.set, *RIVAL_STUDY, ("seed", options.seed))


def first_points(study: StudySpec) -> list[Params]:
    """What every arm tries first: the published recipe, and the points that the space names."""
    return [params_of(study.recipe, study.space), *study.first_points]


def as_scored(recipe: Recipe, seed: int) -> Recipe:
    """A final choice as it is trained for its true score: to the end, under the published schedule, on another seed.

    Pace and consistency that ramp over each segment ramp over the whole training then, which is one segment.
    """
    return replace(
        recipe,
        seed=seed,
        stop_epoch=0,
        segment_ends=(),
        lr_schedule=replace(recipe.lr_schedule, mode="single", shape="steps"),
        evaluation=replace(recipe.evaluation, period=recipe.epochs, masking_images=0),
    )
