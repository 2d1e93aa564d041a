"""`hcpr_tune transfer`: what a small study found, as a space for a large one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_named, add_study, whole_number
from hcpr_tune.cli.completers import spaces
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.cli.new_space import new_space, write_space
from hcpr_tune.common.output import say
from hcpr_tune.common.shell import command, option

if TYPE_CHECKING:
    from hcpr_tune.search.spec.dimensions import Value
    from hcpr_tune.search.suggestion.transfer import Moved, Transfer

HEADINGS = ("dimension", "winner", "centre", "strength", "")


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    transfer = commands.add_parser(
        "transfer",
        description="Write another space with what a search found: its best values as the first point, and priors "
        "around them.",
    )
    add_study(transfer)
    words = "the other space: a file of search_spaces/ by name, or a path"
    add_named(transfer, "--to", spaces, words, required=True)
    transfer.add_argument(
        "--out", metavar="FILE", help="the new space (default: TO-from-NAME.toml, in search_spaces/ where there is one)"
    )
    transfer.add_argument(
        "--trial", type=whole_number, metavar="N", help="this trial's values (default: the best one's)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the other space with the winner's values as its first point and priors around them."""
    from hcpr_tune.common.settings import read_toml
    from hcpr_tune.search.spec.study_file import find_space, read_study
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.search.suggestion.transfer import (
        comments_of,
        repeats_published,
        score_words,
        transfer,
        transferred_space,
        transferred_trial,
    )

    space = find_space(options.to, "--to")
    stored = reopen(options.storage, options.name, "transfer ")
    (folder, study, history), name = stored, stored.name
    out = new_space(options.out, f"{space.stem}-from-{name}.toml", "--out")
    trial = transferred_trial(study, history, name, options.trial)
    target = read_study(space)
    handed = transfer(study, history, trial, target, str(space))
    comments = comments_of(study, trial, handed, folder.address, str(space))
    where = f"{space} with trial {trial.number} of {name}"
    text = transferred_space(read_toml(space), target, handed, comments, where)
    write_space(out, text, "--out")
    say(f"trial {trial.number} of {name}: {score_words(study, trial)}")
    for line in _lines(handed):
        say(line)
    if repeats_published(target, handed):
        say(f"no first point: these are the values of the recipe of {space}, which trial 0 trains")
    say(f"wrote {out}; look at it, then: {command('tune', option('--space', out))}")
    return COMPLETED


def _lines(handed: Transfer) -> list[str]:
    from hcpr_tune.common.settings import show
    from hcpr_tune.views.wording import brief

    def cell(value: Value | None) -> str:
        return "-" if value is None else show(value) if isinstance(value, bool) else brief(value)

    def row(one: Moved) -> tuple[str, ...]:
        strength = "-" if one.strength is None else f"{one.strength:.2f}"
        return one.name, cell(one.value), cell(one.centre), strength, one.word

    rows = [HEADINGS, *map(row, handed.moved)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
    lines += [
        f"{name} = {show(value)} as in the study, in the first point alone" for name, value in handed.held.items()
    ]
    lines += [
        f"{name} is not searched there and stays {show(here)} (winner: {show(value)})"
        for name, (value, here) in handed.fixed.items()
    ]
    return lines
