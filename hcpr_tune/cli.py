"""The command line: arguments become one call. With the terminal view the only place that prints."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hcpr_tune
from hcpr_tune.errors import HcprTuneError, InputError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.retraining import BestRung
    from hcpr_tune.search.record import History
    from hcpr_tune.search.results import StudyFolder
    from hcpr_tune.search.study import Study

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """argparse, with errors on one line and a way out."""

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except InputError as error:
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        print(f"hcpr_tune: {one_line(error)}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except HcprTuneError as error:
        print(f"hcpr_tune: error: {one_line(error)}", file=sys.stderr)
        return NOTHING_COMPLETED
    return code


def one_line(error: Exception) -> str:
    """The message on one line, whatever was in a file that it quotes."""
    return " ".join(str(error).split())


def parser() -> Parser:
    """The parser of all commands. Nothing heavy is imported for it."""
    top = Parser(
        prog="hcpr_tune", description="Search the coefficients of adversarial training, on one machine or a cluster."
    )
    top.add_argument("--version", action="version", version=f"hcpr_tune {hcpr_tune.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add_tune(commands)
    add_train(commands)
    return top


def add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune", help="search a space", description="Search a space of recipes with Ray Tune and Optuna."
    )
    tune.add_argument(
        "--space",
        default=None,
        metavar="NAME|PATH",
        help="a file of search_spaces/ by name, or a path (default: default)",
    )
    tune.add_argument("--name", metavar="NAME", help="the study's name (default: SPACE-YYYYmmdd-HHMMSS)")
    tune.add_argument("--resume", metavar="NAME", help="go on with a study from its record")
    tune.add_argument("--storage", default="results", metavar="DIR", help="where studies lie (default: results)")
    tune.add_argument("--trials", metavar="N", help="number of recipes to try (budget.trials)")
    tune.add_argument("--seed", metavar="N", help="seed of the suggestions and of every training (seed)")
    tune.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a key of the space by dotted name, or a field of the recipe, which is then fixed and not searched; repeatable",
    )
    tune.add_argument(
        "--address", metavar="ADDRESS", help="an existing Ray cluster (default: start Ray on this machine)"
    )
    tune.add_argument("--cpus-per-trial", metavar="N", help="CPU cores per trial (resources.cpus_per_trial)")
    tune.add_argument(
        "--gpus-per-trial",
        metavar="N",
        help="GPUs per trial (resources.gpus_per_trial; default: 1 where there are any)",
    )
    tune.add_argument(
        "--dry-run", action="store_true", help="print the resolved study and what it could cost, and train nothing"
    )
    tune.add_argument("--quiet", action="store_true", help="print only the result")
    tune.set_defaults(run=run_tune)


def add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="train one recipe", description="Train one recipe from the beginning to the end."
    )
    train.add_argument(
        "--recipe", required=True, metavar="FILE", help="a recipe, for instance results/NAME/best/recipe.toml"
    )
    train.add_argument("--out", metavar="DIR", help="where the results go (default: results/train-YYYYmmdd-HHMMSS)")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the recipe by dotted name; repeatable",
    )
    train.add_argument("--quiet", action="store_true", help="print only the result")
    train.set_defaults(run=run_train)


FLAGS = {
    "trials": "budget.trials",
    "seed": "seed",
    "cpus_per_trial": "resources.cpus_per_trial",
    "gpus_per_trial": "resources.gpus_per_trial",
}
"""Flags that stand for a key of the study."""


def overrides_of(options: argparse.Namespace) -> tuple[list[tuple[str, Any]], str]:
    """What the command line lays over the study file, and how it said so."""
    from hcpr_tune.settings import parse_assignment

    overrides, given = [], []
    for text in options.set:
        overrides.append(parse_assignment(text))
        given.append(f"--set {text}")
    for flag, dotted in FLAGS.items():
        value = getattr(options, flag)
        if value is not None:
            overrides.append(parse_assignment(f"{dotted}={value}"))
            given.append(f"--{flag.replace('_', '-')} {value}")
    return overrides, " ".join(given)


def run_tune(options: argparse.Namespace) -> int:
    """`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""
    from hcpr_tune.search.record import History
    from hcpr_tune.search.runner import check_new, create, reopen, run
    from hcpr_tune.search.study import find_space, read_study

    storage = Path(options.storage)
    overrides, given = overrides_of(options)
    if options.resume is not None:
        if options.space or options.name or given:
            raise InputError(
                "--resume goes on with the study as it was begun; drop --space, --name, --set and the other settings"
            )
        folder, study, history = reopen(storage, options.resume)
        where = str(folder.study)
    else:
        path = find_space(options.space or "default")
        study = read_study(path, overrides, given)
        folder = check_new(storage, options.name or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        history = History(study.recipe.epochs)
        where = f"{path} with {given}" if given else str(path)
    if options.dry_run:
        print_dry_run(study)
        return COMPLETED
    from hcpr_tune.cluster import allot, connected
    from hcpr_tune.views.tensorboard import TensorBoardView

    console = make_console()
    # Handlers come after Ray's start: it installs one of its own for SIGTERM.
    with connected(options.address) as cluster, interruptible():
        share = allot(study.settings.resources, cluster, where)
        if options.resume is None:
            create(folder, study)
        if not options.quiet:
            print_start(console, study, folder, cluster.dashboard_url, share.workers)
        listeners = [TensorBoardView(folder, history), *([] if options.quiet else [search_view(study, console)])]
        try:
            run(folder, study, history, share, listeners)
        except Interrupted:
            interrupted = True
        else:
            interrupted = False
    code = print_result(console, folder, history)
    if not interrupted:
        return code
    elsewhere = "" if options.storage == "results" else f" --storage {storage}"
    raise Interrupted(
        f"interrupted; everything recorded is kept in {folder.root}; go on with: hcpr_tune tune --resume {folder.root.name}{elsewhere}"
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (a Slurm preemption, `kill`) and Ctrl-C end the block with KeyboardInterrupt; a second one ends the process at once."""

    def interrupt(number: int, frame: Any) -> None:
        for name in before:
            signal.signal(name, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {name: signal.signal(name, interrupt) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def search_view(study: Study, console: Console) -> Any:
    """The live view on a terminal, plain lines elsewhere."""
    from hcpr_tune.views.terminal import LiveView, PlainLines

    return LiveView(study, console) if console.is_terminal else PlainLines(study, console)


def print_dry_run(study: Study) -> None:
    """The resolved study, its rungs and what it could cost."""
    from hcpr_tune.search.halving import most_epochs
    from hcpr_tune.search.study import study_to_toml
    from hcpr_tune.views.terminal import expected_epochs

    settings = study.settings
    trials, reduction_factor = settings.budget.trials, settings.early_stopping.reduction_factor
    print(study_to_toml(study))
    print(f"# rungs: epochs {', '.join(map(str, study.rungs))}")
    print(f"# trials: {trials}, {len(study.space)} searched dimensions, fingerprint {study.fingerprint}")
    print(
        f"# cost: at most {most_epochs(study.rungs, reduction_factor, trials)} epochs, usually about {expected_epochs(study)}"
    )
    print("# nothing was trained (--dry-run)")


def print_start(console: Console, study: Study, folder: StudyFolder, dashboard: str, workers: int) -> None:
    """The addresses to look at, before anything runs."""
    settings = study.settings
    lines = [
        f"study        {folder.root}",
        f"task         {study.recipe.task.dataset}, epsilon {study.recipe.task.epsilon:g}, {len(study.space)} searched dimensions",
        f"budget       {settings.budget.trials} trials, rungs at epochs {', '.join(map(str, study.rungs))}, {workers} at once",
        f"dashboard    {dashboard or 'none'} (it asks for the token that `ray get-auth-token` prints)",
        f"tensorboard  tensorboard --logdir {folder.root}",
    ]
    for line in lines:
        console.print(line, markup=False)


def print_result(console: Console, folder: StudyFolder, history: History) -> int:
    """The answer and where everything lies; the exit code."""
    from hcpr_tune.views.terminal import result_table

    if not history.ranked():
        reasons = "; ".join(sorted({trial.reason for trial in history.trials.values() if trial.reason}))
        console.print(
            f"No trial reached its first rung{': ' + reasons if reasons else ''}. See {folder.table}.", markup=False
        )
        return NOTHING_COMPLETED
    console.print(result_table(history))
    for line in (
        f"best recipe  {folder.best / 'recipe.toml'} (weights and metrics beside it)",
        f"all trials   {folder.table}",
        f"train again  python launch/train.py --recipe {folder.best / 'recipe.toml'}",
    ):
        console.print(line, markup=False)
    return COMPLETED


def run_train(options: argparse.Namespace) -> int:
    """`hcpr_tune train`: one recipe from the beginning to the end."""
    from hcpr_tune.settings import parse_assignment, read_toml, set_dotted
    from hcpr_tune.training.recipe import recipe_from_plain

    values, given = read_toml(Path(options.recipe)), ""
    for text in options.set:
        set_dotted(values, *parse_assignment(text))
        given += f" --set {text}"
    recipe = recipe_from_plain(values, options.recipe + (f" with{given}" if given else ""))
    out = Path(options.out or f"results/train-{time.strftime('%Y%m%d-%H%M%S')}")
    if out.exists():
        raise InputError(f"--out {out} exists; choose another folder")
    from hcpr_tune.retraining import retrain

    console = make_console()
    best: BestRung | None = None
    for report, rung in retrain(recipe, out):
        best = rung
        if not options.quiet:
            print_epoch(console, report, recipe.epochs)
    if best is not None:
        console.print(
            f"best rung    epoch {best.epoch}: robust accuracy {best.robust}, clean accuracy {best.clean} on validation",
            markup=False,
        )
        console.print(f"results      {out}", markup=False)
    return COMPLETED


def print_epoch(console: Console, report: dict[str, Any], epochs: int) -> None:
    """One line per epoch."""
    line = f"epoch {report['epoch']}/{epochs}  loss {report['loss']:.4f}"
    if "total_validation" in report:
        total = report["total_validation"]
        line += f"  robust {report['robust_correct_validation'] / total:.4f}  clean {report['clean_correct_validation'] / total:.4f}"
    console.print(line, markup=False)
