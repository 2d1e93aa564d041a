"""`hcpr_tune plan`: simulate a search before paying for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import trust_sampler
from hcpr_tune.cli.console import COMPLETED, NOTHING_COMPLETED, make_console, print_lines
from hcpr_tune.cli.new_space import new_space, write_space
from hcpr_tune.cli.plan_inputs import (
    check_numbers,
    given_curves,
    guessed_curves,
    old_studies,
    the_costs,
    the_variants,
    waiting,
)
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_folder_of, check_writable, exists, is_dir
from hcpr_tune.common.shell import command, option, same_again
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.simulation.comparison import Played
    from hcpr_tune.simulation.curves.costs import Costs
    from hcpr_tune.simulation.curves.curves import Curves
    from hcpr_tune.simulation.variants import Variant

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
        write_space(written, planned_space(stem, results), "--write")
    show(options, plain, page, written)
    return COMPLETED


def replayed(options: argparse.Namespace) -> int:
    """`--replay DIR`: whether the simulation does what the search did."""
    from hcpr_tune.simulation.curves.recorded import read_old
    from hcpr_tune.simulation.replay import replay

    beside = (options.studies, options.curves, options.vary, options.set, options.write, options.workers, options.space)
    if any(beside):
        raise InputError("--replay DIR goes alone, or with --json: the record says everything else")
    old = read_old(Path(options.replay), "--replay")
    trust_sampler(options, old.folder, old.study)
    came = replay(old)
    if options.json:
        make_console().out(json.dumps(came.to_plain()), highlight=False)
    else:
        say(f"decisions    {came.same} of {came.decisions} are the same, in the same order")
        if came.departs:
            say(f"             {came.departs}")
        say(
            f"wall-clock   {came.recorded_seconds:.1f} s recorded, {came.replayed_seconds:.1f} s replayed "
            f"({100 * came.off:+.1f} %)"
        )
    return NOTHING_COMPLETED if came.departs else COMPLETED


def play(
    options: argparse.Namespace, variants: Sequence[Variant], curves: Curves, costs: Costs
) -> tuple[list[Played], list[str]]:
    """The comparison, and what is to be said of it."""
    from hcpr_tune.simulation.comparison import compare
    from hcpr_tune.simulation.notes import notes_of
    from hcpr_tune.simulation.suggesting import played_studies

    studies, samplers = played_studies([variant.study for variant in variants], curves)
    played = [replace(variant, study=study) for variant, study in zip(variants, studies, strict=True)]
    with waiting(options, "playing") as status:

        def tell(repeat: int) -> None:
            if status is not None:
                status.update(f"played {repeat} of {options.repeats} times")

        seed = variants[0].study.settings.seed
        results = compare(played, curves, costs, seed, options.repeats, options.seconds, tell)
    notes = [*notes_of(results, curves, options.repeats), *filter(None, [samplers])]
    for one, variant in zip(results, variants, strict=True):
        one.variant = variant
    return results, notes


def told(
    options: argparse.Namespace,
    stem: str,
    curves: Curves,
    costs: Costs,
    results: Sequence[Played],
    notes: Sequence[str],
) -> Plain:
    """The plan as JSON has it."""
    from hcpr_tune.simulation.comparison import comparison_plain

    return {
        "space": stem,
        "task": results[0].variant.study.recipe.task.dataset,
        "objective": results[0].variant.study.settings.objective[0],
        "command": same_again(),
        "curves": {"from": curves.words, "guess": curves.guess},
        "costs": costs.to_plain(),
        "notes": list(notes),
        **comparison_plain(results),
    }


def page_file(options: argparse.Namespace, stem: str) -> Path:
    """Where the page goes. Raises `InputError`."""
    from hcpr_tune.common.files import new_name

    out = Path(options.out or f"results/plans/{new_name(stem)}.html")
    if out.suffix != ".html":
        raise InputError(f"--out {out} must end in .html; the numbers go beside it as .json")
    where = f"--out {out}"
    if options.out is None:
        check_writable(out, where, "choose another file")
    else:
        check_folder_of(out, where)
    numbers = out.with_suffix(".json")
    if exists(numbers, where) and not exists(out, where):
        raise InputError(f"--out {out}: its numbers would overwrite {numbers}, which is no plan's; choose another file")
    return out


def write_page(page: Path, plain: Plain) -> None:
    """The page, and its numbers as JSON next to it."""
    from hcpr_tune.common.files import write_json
    from hcpr_tune.views.report.plan_page import PlanShown, write_plan_page

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
    return str(Path("search_spaces") / f"{given}.toml") if is_dir(Path("search_spaces"), "--write") else f"{given}.toml"


def planned_space(stem: str, results: Sequence[Played]) -> str:
    """The chosen variant as a space, with what was foreseen of it."""
    from hcpr_tune.search.spec.study import study_to_toml
    from hcpr_tune.simulation.comparison import choice
    from hcpr_tune.simulation.forecast import with_foreseen

    chosen = choice(results)
    heading = f"# {stem}, {chosen.variant.name}: written by `{same_again()}`.\n"
    return heading + study_to_toml(with_foreseen(chosen.variant.study, chosen))


def show(options: argparse.Namespace, plain: Plain, page: Path, written: Path | None) -> None:
    """The answer, the table, the rungs, notes, and the files that were written."""
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
            [f"written      {written}; search it: {command('tune', option('--space', written))}"],
        )
