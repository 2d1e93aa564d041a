"""What a plan is made of, from the arguments of `hcpr_tune plan`: variants, workers, learning curves, costs. Every
mistake is found before any work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import named_in_study, trust_space
from hcpr_tune.cli.numbers import real
from hcpr_tune.cli.run_request import overrides_of
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.simulation.curves.costs import Costs
    from hcpr_tune.simulation.curves.curves import Curves
    from hcpr_tune.simulation.curves.recorded import OldStudy
    from hcpr_tune.simulation.variants import Variant
    from hcpr_tune.simulation.worker_pool import WorkerPool

MOST_PROBE_SECONDS = 15.0
MOST_DEATHS = 60.0
"""An hour: a worker that lives for less than a minute finishes nothing, and a played search of such workers no more."""
Plain = dict[str, Any]


def check_numbers(options: argparse.Namespace) -> None:
    """What can be wrong with the plan's own numbers. Raises `InputError`, before any work."""
    if options.repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {options.repeats}")
    options.seconds = real("--seconds", options.seconds)
    for name in ("epoch_seconds", "driver_rate"):
        if getattr(options, name) is not None:
            setattr(options, name, real(f"--{name.replace('_', '-')}", getattr(options, name), above=0))


def the_variants(options: argparse.Namespace) -> tuple[list[Variant], str]:
    """The study as it is, its variants, and the name of its space."""
    from hcpr_tune.search.spec.study import find_space, read_study
    from hcpr_tune.simulation.variants import variants_of

    overrides, given = overrides_of(options)
    path = find_space("default" if options.space is None else options.space)

    @cache
    def read(more: Sequence[tuple[str, Any]]) -> StudySpec:
        words = " ".join([given, *(f"--vary {name}={value}" for name, value in more)]).strip()
        return read_study(path, [*overrides, *more], words)

    variants = variants_of(options.vary, read, the_worker_pool(options, read(())))
    for variant in variants:
        trust_space(options, path, variant.study)
    return variants, path.stem


def the_worker_pool(options: argparse.Namespace, study: StudySpec) -> WorkerPool:
    """The workers that the options speak of. Raises `InputError`."""
    from hcpr_tune.simulation.variants import check_workers
    from hcpr_tune.simulation.worker_pool import WorkerPool

    resources = study.settings.resources
    here = max(1, int((os.cpu_count() or 1) / resources.cpus_per_trial))
    wanted = options.workers if options.workers is not None else resources.workers or here
    workers = check_workers("--workers", wanted, study)
    speeds = tuple(real("--speeds", text, above=0) for text in options.speeds.split(","))
    return WorkerPool(
        workers,
        speeds,
        60 * real("--join-over", options.join_over),
        real("--deaths", options.deaths, most=MOST_DEATHS),
        real("--back", options.back),
    )


def old_studies(options: argparse.Namespace, variants: Sequence[Variant]) -> list[OldStudy]:
    """The studies of --from."""
    from hcpr_tune.simulation.curves.recorded import check_comparable, read_old

    if "" in options.studies:
        raise InputError("--from needs the folder of a study, such as results/NAME")
    old = [read_old(Path(folder)) for folder in dict.fromkeys(options.studies)]
    for one in old:
        for variant in variants:
            check_comparable(one, variant.study)
    return old


def given_curves(options: argparse.Namespace, variants: Sequence[Variant], old: Sequence[OldStudy]) -> Curves | None:
    """Curves of a file, or of recorded studies; None where there are neither."""
    from hcpr_tune.simulation.curves.csv_curves import read_curves
    from hcpr_tune.simulation.curves.recorded import recorded_curves

    study = variants[0].study
    if options.curves is None:
        return recorded_curves(old, study) if old else None
    check_one_score(study, f"--curves {options.curves} has one score per epoch")
    return read_curves(Path(options.curves))


def check_one_score(study: StudySpec, why: str) -> None:
    """Raises `InputError` where the study looks at two accuracies."""
    if study.goal.floors or len(study.settings.objective) > 1:
        raise InputError(
            f"{why}, but the study compares trials by clean and robust accuracy; plan with --from results/OLD, or "
            "with --set constraints.clean_accuracy=0"
            " --set objective=robust_accuracy"
        )


def guessed_curves(study: StudySpec, probes: Sequence[Plain]) -> Curves:
    """The stated family, through what the probe has seen."""
    from hcpr_tune.simulation.curves.curves import GuessedCurves

    check_one_score(study, "without --from and --curves the learning curves are a guess at one accuracy")
    probe = probes[0]
    return GuessedCurves(
        probe["classes"],
        study.recipe.epochs,
        probe["validation_images"],
        probe["steps"] / probe["steps_per_epoch"],
        sum(one["robust_accuracy_validation"] for one in probes) / len(probes),
    )


def the_costs(options: argparse.Namespace, study: StudySpec, old: Sequence[OldStudy]) -> tuple[Costs, list[Plain]]:
    """What the work costs, and what a probe measured; none is made if costs were recorded and curves are given."""
    from hcpr_tune.cli.sizes import measuring
    from hcpr_tune.simulation.curves.costs import costs_of_probe, costs_of_records

    probes: list[Plain] = []
    if old:
        with measuring(study) as size:
            names = ", ".join(str(one.folder) for one in old)
            costs = costs_of_records([one.events for one in old], size(), f"recorded in {names}")
    else:
        probes = probed(options, study)
        costs = costs_of_probe(probes)
    if options.epoch_seconds is not None:
        costs = costs.with_epoch_seconds(study, options.epoch_seconds)
    if options.driver_rate is not None:
        costs = costs.with_driver_rate(options.driver_rate)
    return costs, probes


def probed(options: argparse.Namespace, study: StudySpec) -> list[Plain]:
    """Train a little, here or on a cluster."""
    from dataclasses import asdict

    from hcpr_tune.cli.console import check_recipe, interruptible

    if options.address is not None:
        from hcpr_tune.execution.cluster import allot, connected
        from hcpr_tune.execution.probing import probe_cluster

        with connected(options.address, named_in_study(study)) as cluster, interruptible():
            share = allot(study.settings.resources, cluster, "--address", 0)
            return probe_cluster(study, share)
    check_recipe(study.recipe)
    with waiting(options, "probing: training a few steps to see what they take"):
        from hcpr_tune.training.plugins import guarded
        from hcpr_tune.training.probe import probe
        from hcpr_tune.training.session import DataShelf

        with guarded():
            return [asdict(probe(study.recipe, DataShelf(), MOST_PROBE_SECONDS))]


@contextmanager
def waiting(options: argparse.Namespace, words: str) -> Iterator[Any]:
    """Say on a terminal what takes a while."""
    if options.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(words) as status:
        yield status
