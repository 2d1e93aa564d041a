"""`hcpr_tune train`: one recipe from the beginning to the end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.finding import find_recipe
from hcpr_tune.api.trust import begin_training, trust_recipe
from hcpr_tune.cli.arguments import add_named, add_set, add_storage, add_trust
from hcpr_tune.cli.completers import recipes
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.cli.options import trust_of
from hcpr_tune.common.output import outlets
from hcpr_tune.common.text import clean
from hcpr_tune.errors import InputError
from hcpr_tune.views.terminal.console import make_console, print_notes

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.api.train import BestRung


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    train = commands.add_parser("train", description="Train one recipe from the beginning to the end.")
    words = "a recipe: its file, or a study by name or path, whose best one it is"
    add_named(train, "--recipe", recipes, words, required=True)
    add_storage(train)
    train.add_argument("--out", metavar="DIR", help="where the results go (default: results/train-DATE-TIME-CODE)")
    add_set(train, "a field of the recipe by dotted name")
    train.add_argument("--resume", action="store_true", help="continue in --out from its latest checkpoint")
    add_trust(train, "a recipe in a study")
    train.add_argument("--quiet", action="store_true", help="print only the result")


@outlets(forgiving=True)
def run(options: argparse.Namespace) -> int:
    """Train the recipe and print each epoch and the best rung."""
    from hcpr_tune.common.settings import lay_over, parse_assignments, read_toml, shorten
    from hcpr_tune.training.recipe import recipe_from_plain

    path, given = find_recipe(options.recipe, options.storage, "--recipe"), ""
    values = read_toml(path)
    for text, (name, value) in zip(options.set, parse_assignments(options.set), strict=True):
        lay_over(values, name, value, str(path))
        given += f" --set {shorten(text)}"
    recipe = recipe_from_plain(values, f"{path} with{given}" if given else str(path))
    if options.resume and options.out is None:
        raise InputError("--resume needs the folder to continue; name it with --out")
    from hcpr_tune.api.train import new_folder, retrain

    out = new_folder(options.out, options.resume, "--out ")
    trust_recipe(trust_of(options), path, recipe)

    console = make_console()
    best: BestRung | None = None
    begin_training(out, recipe)
    with progress(console, recipe.last_epoch, options.quiet) as show:
        for report, rung in retrain(recipe, out, options.resume, print_notes):
            best = rung
            show(report)
    if best is not None:
        text = (
            f"best rung    epoch {best.epoch}: robust accuracy {best.robust}, clean accuracy {best.clean} on validation"
        )
        console.print(text, markup=False)
    console.print(f"results      {out}", markup=False)
    return COMPLETED


@contextmanager
def progress(console: Console, epochs: int, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that shows an epoch's report: a bar on a terminal, a line elsewhere."""
    if quiet or not console.is_terminal:
        yield lambda report: None if quiet else console.print(epoch_line(report, epochs), markup=False)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("the first epoch ...", total=epochs)
        yield lambda report: bar.update(task, completed=report["epoch"], description=epoch_line(report, epochs))


def epoch_line(report: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    line = f"epoch {report['epoch']}/{epochs}  loss {report['loss']:.4f}"
    if "total_validation" in report:
        total = report["total_validation"]
        robust, natural = (int(report[f"{which}_correct_validation"]) / total for which in ("robust", "clean"))
        line += f"  robust {robust:.4f}  clean {natural:.4f}"
    for loss in report.get("losses", []):
        line += f"  LOSS: {loss}"
    for alarm in report.get("masking_validation", {}).get("alarms", []):
        line += f"  ALARM: {alarm}"
    return clean(line)
