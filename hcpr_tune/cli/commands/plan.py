"""`hcpr_tune plan`: simulate a search before paying for it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import (
    add_named,
    add_set,
    add_space,
    add_storage,
    add_trust,
    any_whole_number,
    whole_number,
)
from hcpr_tune.cli.completers import studies
from hcpr_tune.cli.exit_codes import COMPLETED, NOTHING_COMPLETED
from hcpr_tune.cli.flags import BUDGET, add_settings
from hcpr_tune.cli.new_space import new_space, write_space
from hcpr_tune.cli.options import space_of, trust_of
from hcpr_tune.common.numbers import real
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_folder_of, check_writable, exists, is_dir
from hcpr_tune.common.shell import command, option
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.ray_options import RayOptions
from hcpr_tune.views.terminal.console import make_console, print_lines

if TYPE_CHECKING:
    from hcpr_tune.api.simulate import SimulationRequest, SimulationResult


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    plan = commands.add_parser(
        "plan",
        description="Simulate a search under a virtual clock, with the scheduler of a real one: how long it takes, "
        "what it costs, what it finds, and how it would do with other settings. No trial is trained; without an "
        "earlier study, a probe trains for a few seconds.",
    )
    add_space(plan)
    plan.add_argument(
        "--workers", type=any_whole_number, metavar="N", help="trials at once (default: as many as this machine holds)"
    )
    add_settings(plan, {**BUDGET, "seed": "seed"})
    add_set(plan, "a key of the space by dotted name, or a field of the recipe, for all variants")
    plan.add_argument(
        "--vary",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=V1,V2",
        help="values to compare, for instance early_stopping.first_rung=3,9 or workers=8,64; with several keys, "
        "all combinations",
    )
    words = "earlier studies of the same task: their learning curves and costs"
    add_named(plan, "--from", studies, words, dest="studies", action="extend", nargs="+", default=[])
    add_storage(plan)
    plan.add_argument(
        "--curves", metavar="FILE.csv", help="learning curves: columns run, epoch, score and optionally final"
    )
    plan.add_argument(
        "--epoch-seconds",
        metavar="S",
        help="seconds to train one epoch, if you know them better than a probe on this machine does",
    )
    plan.add_argument("--address", metavar="ADDRESS", help="probe on this Ray cluster instead of this machine")
    add_workers(plan)
    plan.add_argument(
        "--repeats", type=whole_number, default=20, metavar="N", help="simulations of each variant (default: 20)"
    )
    plan.add_argument(
        "--seconds", default="40", metavar="S", help="stop repeating after this many seconds in all (default: 40)"
    )
    plan.add_argument(
        "--write", metavar="NAME|PATH", help="write the chosen variant as a new space, with the plan's forecast for it"
    )
    plan.add_argument("--out", metavar="FILE.html", help="the page (default: results/plans/SPACE-DATE-TIME-CODE.html)")
    add_trust(plan, "a study")
    plan.add_argument("--json", action="store_true", help="print JSON")
    words = "instead: replay a recorded search and say whether its decisions and duration are the same"
    add_named(plan, "--replay", studies, words)


def add_workers(plan: Any) -> None:
    """Arguments about the simulated workers and their driver."""
    plan.add_argument(
        "--speeds", default="1", metavar="V1,V2", help="relative speeds of the workers, assigned in turn (default: 1)"
    )
    plan.add_argument("--join-over", default="0", metavar="MIN", help="workers join evenly over this many minutes")
    plan.add_argument("--deaths", default="0", metavar="RATE", help="how often a worker dies, per hour")
    plan.add_argument("--back", default="0", metavar="S", help="seconds until a dead worker is replaced")
    plan.add_argument(
        "--driver-rate",
        metavar="R",
        help="reports that the driver answers per second, with few workers (default: as measured, docs/scale.md)",
    )


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked, find out what things cost, simulate, compare, and write."""
    from hcpr_tune.api.simulate import Simulator

    if options.replay is not None:
        return replayed(options)
    vary = [part.strip().strip("\"'") for text in options.vary for part in text.partition("=")[2].split(",")]
    request = request_of(options)
    simulator = Simulator(request, RayOptions(options.address), trust_of(options, vary))
    written = None if options.write is None else new_space(space_file(options.write), "", "--write")
    page = page_file(options, request.source.path.stem)
    result = simulator.run(lambda words: waiting(options, words))
    try:
        result.write_page(page)
    except OSError as error:
        raise InputError(f"--out {page} cannot be written: {error}; choose another file") from None
    if written is not None:
        write_space(written, result.space(), "--write")
    show(options, result, page, written)
    return COMPLETED


def request_of(options: argparse.Namespace) -> SimulationRequest:
    """What the arguments ask for. Raises `InputError`."""
    from hcpr_tune.api.simulate import MOST_DEATHS, SimulationRequest, Workers
    from hcpr_tune.simulation.variants import varied

    def known(name: str) -> float | None:
        text = getattr(options, name)
        return None if text is None else real(f"--{name.replace('_', '-')}", text, above=0)

    if "" in options.studies:
        raise InputError("--from needs the folder of a study, such as results/NAME")
    return SimulationRequest(
        source=space_of(options),
        workers=Workers(
            options.workers,
            tuple(real("--speeds", text, above=0) for text in options.speeds.split(",")),
            real("--join-over", options.join_over),
            real("--deaths", options.deaths, most=MOST_DEATHS),
            real("--back", options.back),
        ),
        vary=varied(options.vary),
        studies=tuple(options.studies),
        storage=options.storage,
        curves=None if options.curves is None else Path(options.curves),
        epoch_seconds=known("epoch_seconds"),
        driver_rate=known("driver_rate"),
        repeats=options.repeats,
        seconds=real("--seconds", options.seconds),
    )


def replayed(options: argparse.Namespace) -> int:
    """`--replay DIR`: whether the simulation does what the search did."""
    from hcpr_tune.api.simulate import replay_search

    others = (options.studies, options.curves, options.vary, options.set, options.write, options.workers, options.space)
    if any(others):
        raise InputError("--replay DIR takes no other option except --json: the record says everything else")
    result = replay_search(options.replay, trust_of(options), options.storage)
    if options.json:
        make_console().out(json.dumps(result.to_plain()), highlight=False)
    else:
        say(f"decisions    {result.same} of {result.decisions} are the same, in the same order")
        if result.departs:
            say(f"             {result.departs}")
        say(
            f"wall-clock   {result.recorded_seconds:.1f} s recorded, {result.replayed_seconds:.1f} s replayed "
            f"({100 * result.off:+.1f} %)"
        )
    return NOTHING_COMPLETED if result.departs else COMPLETED


@contextmanager
def waiting(options: argparse.Namespace, words: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what takes a while."""
    if options.json or not sys.stderr.isatty():
        yield lambda words: None
        return
    from rich.console import Console

    with Console(stderr=True).status(words) as status:
        yield status.update


def page_file(options: argparse.Namespace, stem: str) -> Path:
    """Where the page goes. Raises `InputError`."""
    from hcpr_tune.common.files import new_name

    out = Path(options.out or f"results/plans/{new_name(stem)}.html")
    if out.suffix != ".html":
        raise InputError(f"--out {out} must end in .html; the numbers are written next to it as .json")
    where = f"--out {out}"
    if options.out is None:
        check_writable(out, where, "choose another file")
    else:
        check_folder_of(out, where)
    numbers = out.with_suffix(".json")
    if exists(numbers, where) and not exists(out, where):
        raise InputError(f"--out {out}: its numbers would overwrite {numbers}, which is no plan's; choose another file")
    return out


def space_file(given: str) -> str:
    """A NAME means a file of search_spaces/, where there is that folder."""
    if given.endswith(".toml") or "/" in given:
        return given
    return str(Path("search_spaces") / f"{given}.toml") if is_dir(Path("search_spaces"), "--write") else f"{given}.toml"


def show(options: argparse.Namespace, result: SimulationResult, page: Path, written: Path | None) -> None:
    """The answer, the table, the rungs, notes, and the files that were written."""
    from hcpr_tune.views.plan_words import answer_lines, plan_lines, plan_table

    console, plain = make_console(), result.plain
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
