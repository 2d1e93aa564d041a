"""`hcpr_tune plan`: play a search through before paying for it."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.commands.console import COMPLETED, NOTHING_COMPLETED, make_console, typed
from hcpr_tune.commands.new_space import new_space, write_space
from hcpr_tune.commands.plans import given_study, overrides_of
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.planning.comparison import Played
    from hcpr_tune.planning.costs import Costs
    from hcpr_tune.planning.curves import Curves
    from hcpr_tune.planning.fleet import Fleet
    from hcpr_tune.planning.recorded import OldStudy
    from hcpr_tune.planning.variants import Variant
    from hcpr_tune.search.study import Study

MOST_PROBE_SECONDS = 15.0
Plain = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked, find out what things cost, play, compare, and write."""
    if options.replay is not None:
        return replayed(options)
    check_numbers(options)
    variants, stem = the_variants(options)
    base = variants[0].study
    old = old_studies(options, variants)
    epochs = sorted({rung for variant in variants for rung in variant.study.rungs})
    given = given_curves(options, variants, old)
    if given is not None:
        given.play(epochs, 1, 0)  # says what is wrong with it, before the probe
    written = None if options.write is None else new_space(space_file(options.write), "", "--write")
    page = page_file(options, stem)
    costs, probes = the_costs(options, base, old)
    curves = guessed_curves(base, probes) if given is None else given
    results, notes = play(options, variants, curves, costs)
    plain = told(options, stem, curves, costs, results, notes)
    write_page(page, plain)
    if written is not None:
        write_space(written, planned_space(options, results), "--write")
    show(options, plain, page, written)
    return COMPLETED


def replayed(options: argparse.Namespace) -> int:
    """`--replay DIR`: whether the simulation does what the search did."""
    from hcpr_tune.planning.recorded import read_old
    from hcpr_tune.planning.replay import replay

    beside = (options.studies, options.curves, options.vary, options.set, options.write, options.workers, options.space)
    if any(beside):
        raise InputError("--replay DIR goes alone, or with --json: the record says everything else")
    came = replay(read_old(Path(options.replay), "--replay"))
    if options.json:
        make_console().out(json.dumps(came.to_plain()), highlight=False)
    else:
        print(f"decisions    {came.same} of {came.decisions} are the same, in the same order")
        if came.departs:
            print(f"             {came.departs}")
        print(
            f"wall-clock   {came.recorded_seconds:.1f} s recorded, {came.replayed_seconds:.1f} s replayed ({100 * came.off:+.1f} %)"
        )
    return NOTHING_COMPLETED if came.departs else COMPLETED


def check_numbers(options: argparse.Namespace) -> None:
    """What can be wrong with the plan's own numbers. Raises `InputError`, before any work."""
    if options.repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {options.repeats}")
    options.seconds = number("--seconds", options.seconds)
    for name in ("epoch_seconds", "driver_rate"):
        if getattr(options, name) is not None:
            setattr(options, name, number(f"--{name.replace('_', '-')}", getattr(options, name), above=0))


def the_variants(options: argparse.Namespace) -> tuple[list[Variant], str]:
    """The study as it is, its variants, and the name of its space."""
    from hcpr_tune.planning.variants import variants_of
    from hcpr_tune.search.study import find_space, read_study

    study, _, stem = given_study(options)
    fleet = the_fleet(options, study)
    overrides, given = overrides_of(options)
    path = find_space("default" if options.space is None else options.space)

    def read(more: Sequence[tuple[str, Any]]) -> Study:
        words = " ".join([given, *(f"--vary {name}={value}" for name, value in more)]).strip()
        return read_study(path, [*overrides, *more], words)

    return variants_of(options.vary, read, fleet), stem


def the_fleet(options: argparse.Namespace, study: Study) -> Fleet:
    """The workers that the options speak of. Raises `InputError`."""
    from hcpr_tune.planning.fleet import Fleet
    from hcpr_tune.planning.variants import check_workers

    resources = study.settings.resources
    here = max(1, int((os.cpu_count() or 1) / resources.cpus_per_trial))
    wanted = options.workers if options.workers is not None else resources.workers or here
    workers = check_workers("--workers", wanted, study)
    speeds = tuple(number("--speeds", text, above=0) for text in options.speeds.split(","))
    return Fleet(
        workers,
        speeds,
        60 * number("--join-over", options.join_over),
        number("--deaths", options.deaths),
        number("--back", options.back),
    )


def number(option: str, text: str, above: float = -math.inf) -> float:
    """A number of at least 0 from the command line, above `above`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf and value > above):
        law = "above 0" if above == 0 else "of at least 0"
        raise InputError(f"{option} must be a number {law}, got {text}")
    return value


def old_studies(options: argparse.Namespace, variants: Sequence[Variant]) -> list[OldStudy]:
    """The studies of --from."""
    from hcpr_tune.planning.recorded import check_comparable, read_old

    if "" in options.studies:
        raise InputError("--from needs the folder of a study, such as results/NAME")
    old = [read_old(Path(folder)) for folder in dict.fromkeys(options.studies)]
    for one in old:
        for variant in variants:
            check_comparable(one, variant.study)
    return old


def given_curves(options: argparse.Namespace, variants: Sequence[Variant], old: Sequence[OldStudy]) -> Curves | None:
    """Curves of a file, or of recorded studies; None where there are neither."""
    from hcpr_tune.planning.csv_curves import read_curves
    from hcpr_tune.planning.recorded import recorded_curves

    study = variants[0].study
    if options.curves is None:
        return recorded_curves(old, study) if old else None
    check_one_score(study, f"--curves {options.curves} has one score per epoch")
    return read_curves(Path(options.curves))


def check_one_score(study: Study, why: str) -> None:
    """Raises `InputError` where the study looks at two accuracies."""
    if study.goal.floors or len(study.settings.objective) > 1:
        raise InputError(
            f"{why}, but the study compares trials by clean and robust accuracy; plan with --from results/OLD, or with --set constraints.clean_accuracy=0"
            " --set objective=robust_accuracy"
        )


def guessed_curves(study: Study, probes: Sequence[Plain]) -> Curves:
    """The stated family, through what the probe has seen."""
    from hcpr_tune.planning.curves import GuessedCurves

    check_one_score(study, "without --from and --curves the learning curves are a guess at one accuracy")
    probe = probes[0]
    return GuessedCurves(
        probe["classes"],
        study.recipe.epochs,
        probe["validation_images"],
        probe["steps"] / probe["steps_per_epoch"],
        sum(one["robust_accuracy_validation"] for one in probes) / len(probes),
    )


def the_costs(options: argparse.Namespace, study: Study, old: Sequence[OldStudy]) -> tuple[Costs, list[Plain]]:
    """What the work costs, and what a probe measured; that is not made where costs were recorded and curves are given."""
    from hcpr_tune.commands.sizes import measuring
    from hcpr_tune.planning.costs import costs_of_probe, costs_of_records

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


def probed(options: argparse.Namespace, study: Study) -> list[Plain]:
    """Train a little, here or on a cluster."""
    from dataclasses import asdict

    from hcpr_tune.commands.tune import check_recipe, interruptible, plugins_of

    if options.address is not None:
        from hcpr_tune.cluster import allot, connected
        from hcpr_tune.search.probing import probe_cluster

        with connected(options.address, plugins_of(study)) as cluster, interruptible():
            share = allot(study.settings.resources, cluster, "--address", 0)
            return probe_cluster(study, share)
    check_recipe(study.recipe)
    with waiting(options, "probing: training a few steps to see what they take"):
        from hcpr_tune.training.probe import probe
        from hcpr_tune.training.session import DataShelf

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


def play(
    options: argparse.Namespace, variants: Sequence[Variant], curves: Curves, costs: Costs
) -> tuple[list[Played], list[str]]:
    """The comparison, and what is to be said of it."""
    from hcpr_tune.planning.comparison import compare
    from hcpr_tune.planning.notes import notes_of
    from hcpr_tune.planning.suggesting import played_studies

    studies, samplers = played_studies([variant.study for variant in variants], curves)
    played = [replace(variant, study=study) for variant, study in zip(variants, studies, strict=True)]
    with waiting(options, "playing") as status:

        def tell(repeat: int) -> None:
            if status is not None:
                status.update(f"played {repeat} of {options.repeats} times")

        seed = variants[0].study.settings.seed
        results = compare(played, curves, costs, seed, options.repeats, options.seconds, tell)
    return results, [*notes_of(results, curves, options.repeats), *filter(None, [samplers])]


def told(
    options: argparse.Namespace,
    stem: str,
    curves: Curves,
    costs: Costs,
    results: Sequence[Played],
    notes: Sequence[str],
) -> Plain:
    """The plan as JSON has it."""
    from hcpr_tune.planning.comparison import comparison_plain

    return {
        "space": stem,
        "task": results[0].variant.study.recipe.task.dataset,
        "objective": results[0].variant.study.settings.objective[0],
        "command": command(),
        "curves": {"from": curves.words, "guess": curves.guess},
        "costs": costs.to_plain(),
        "notes": list(notes),
        **comparison_plain(results),
    }


def command() -> str:
    """What was typed, to be typed again."""
    return f"{typed('hcpr_tune')} {shlex.join(sys.argv[1:])}"


def page_file(options: argparse.Namespace, stem: str) -> Path:
    """Where the page goes. Raises `InputError`."""
    out = Path(options.out or f"results/plans/{stem}-{time.strftime('%Y%m%d-%H%M%S')}.html")
    if out.suffix != ".html":
        raise InputError(f"--out {out} must end in .html; the numbers go beside it as .json")
    if options.out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.absolute().parent}; make it, or choose another file")
    there = next(path for path in (out.parent, *out.absolute().parents) if path.exists())
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; choose another file")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"--out {out} cannot be written: {there} is no folder that you may write to; choose another file"
        )
    numbers = out.with_suffix(".json")
    if numbers.exists() and not out.exists():
        raise InputError(f"--out {out}: its numbers would overwrite {numbers}, which is no plan's; choose another file")
    return out


def write_page(page: Path, plain: Plain) -> None:
    """The page, and its numbers beside it."""
    from hcpr_tune.files import write_json
    from hcpr_tune.views.plan_page import PlanShown, write_plan_page

    shown = PlanShown(
        title=plain["space"],
        curves=plain["curves"]["from"],
        guess=plain["curves"]["guess"],
        costs={**plain["costs"]["seconds"], **plain["costs"], "words": plain["costs"]["from"]},
        warnings=plain["notes"],
        results=plain["variants"],
        unbeaten=frozenset(plain["unbeaten"]),
        chosen=plain["chosen"],
        objective=plain["objective"],
        command=plain["command"],
        repeats=plain["repeats"],
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_plan_page(page, shown)
        write_json(page.with_suffix(".json"), plain)
    except OSError as error:
        raise InputError(f"--out {page} cannot be written: {error}; choose another file") from None


def space_file(given: str) -> str:
    """A NAME means a file of search_spaces/, where there is that folder."""
    if given.endswith(".toml") or "/" in given:
        return given
    return str(Path("search_spaces") / f"{given}.toml") if Path("search_spaces").is_dir() else f"{given}.toml"


def planned_space(options: argparse.Namespace, results: Sequence[Played]) -> str:
    """The chosen variant as a space, with what was foreseen of it."""
    from hcpr_tune.planning.comparison import choice
    from hcpr_tune.planning.foreseen import with_foreseen
    from hcpr_tune.search.study import find_space, read_study, study_to_toml

    chosen = choice(results)
    overrides, given = overrides_of(options)
    path = find_space("default" if options.space is None else options.space)
    study = read_study(path, [*overrides, *chosen.variant.overrides], given)
    heading = f"# {path.stem}, {chosen.variant.name}: written by `{command()}`.\n"
    return heading + study_to_toml(with_foreseen(study, chosen))


def show(options: argparse.Namespace, plain: Plain, page: Path, written: Path | None) -> None:
    """The answer, the table, what the rungs are worth, what is to be known of it, and where things lie."""
    from hcpr_tune.commands.tune import print_lines
    from hcpr_tune.views.plan_words import answer_lines, plan_lines, plan_table

    console = make_console()
    if options.json:
        paths = {"page": str(page), "written": None if written is None else str(written)}
        console.out(json.dumps(plain | paths), highlight=False)
        return
    results, chosen, unbeaten = plain["variants"], plain["chosen"], plain["unbeaten"]
    console.print(plan_table(results, unbeaten, chosen))
    print_lines(
        console,
        [
            *plan_lines(results, chosen),
            *answer_lines(results, unbeaten, chosen, plain["objective"]),
            *(f"NOTE         {note}" for note in plain["notes"]),
            f"curves       {plain['curves']['from']}",
            f"costs        {plain['costs']['from']}",
            f"page         {page} (its numbers: {page.with_suffix('.json').name})",
        ],
    )
    if written is not None:
        print_lines(
            console,
            [f"written      {written}; search it: {typed('hcpr_tune')} tune --space {shlex.quote(str(written))}"],
        )
