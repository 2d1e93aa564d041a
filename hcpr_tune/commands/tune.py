"""`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.commands.console import COMPLETED, NOTHING_COMPLETED, make_console, typed
from hcpr_tune.errors import InputError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.cluster import Cluster
    from hcpr_tune.search.record import History
    from hcpr_tune.search.results import StudyFolder
    from hcpr_tune.search.study import Study
    from hcpr_tune.training.recipe import Recipe

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


def run(options: argparse.Namespace) -> int:
    """`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""
    from hcpr_tune.search import runner
    from hcpr_tune.search.record import History
    from hcpr_tune.search.runner import check_new, create, reopen
    from hcpr_tune.search.study import find_space, read_study
    from hcpr_tune.settings import located

    storage = Path(options.storage)
    overrides, given = overrides_of(options)
    if options.resume is not None:
        if options.space is not None or options.name is not None or given:
            raise InputError(
                "--resume goes on with the study as it was begun; drop --space, --name, --set and the other settings"
            )
        folder, study, history = reopen(storage, options.resume)
        where = str(folder.study)
    else:
        path = find_space("default" if options.space is None else options.space)
        study = read_study(path, overrides, given)
        folder = check_new(storage, options.name or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        history = History(study.recipe.epochs)
        where = f"{path} with {given}" if given else str(path)
    if options.dry_run:
        print_dry_run(study)
        return COMPLETED
    if options.address is None:
        try:
            check_recipe(study.recipe)
        except InputError as error:
            raise located(error, where) from None
    from hcpr_tune.cluster import allot, connected
    from hcpr_tune.views.tensorboard import TensorBoardView

    console = make_console()
    # Handlers come after Ray's start: it installs one of its own for SIGTERM.
    with connected(options.address) as cluster, interruptible():
        share = allot(study.settings.resources, cluster, where)
        if options.resume is None:
            create(folder, study)
        if not options.quiet:
            print_start(console, study, folder, dashboard_of(cluster, options.address), share.workers)
        listeners = [TensorBoardView(folder, history), *([] if options.quiet else [search_view(study, console)])]
        try:
            runner.run(folder, study, history, share, listeners)
        except Interrupted:
            interrupted = True
        else:
            interrupted = False
    code = print_result(console, folder, history)
    if not interrupted:
        return code
    elsewhere = "" if options.storage == "results" else f" --storage {storage}"
    elsewhere += "" if options.address is None else f" --address {options.address}"
    raise Interrupted(
        f"interrupted; everything recorded is kept in {folder.root}; go on with: {typed('hcpr_tune')} tune --resume {folder.root.name}{elsewhere}"
    )


def check_recipe(recipe: Recipe) -> None:
    """Find out before Ray starts whether the data can be read and the model built; on a cluster both may be elsewhere.

    The embedded digits and the built-in models are known to work, and the import of torch is saved.
    """
    from hcpr_tune.training.recipe import METHODS, MODELS, Task

    usual = Task(split_seed=recipe.task.split_seed, norm=recipe.task.norm, epsilon=recipe.task.epsilon)
    if recipe.task == usual and recipe.model.name in MODELS and recipe.method in METHODS and not recipe.model.mean:
        return
    from hcpr_tune.training.session import DataShelf, check_trainable

    check_trainable(recipe, DataShelf())


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


def dashboard_of(cluster: Cluster, address: str | None) -> str:
    """The dashboard's address, and how to get in: Ray protects what it starts here by a token."""
    token = f" (it asks for the token that `{typed('ray')} get-auth-token` prints)"
    return cluster.dashboard_url + (token if cluster.dashboard_url and address is None else "")


def print_start(console: Console, study: Study, folder: StudyFolder, dashboard: str, workers: int) -> None:
    """The addresses to look at, before anything runs."""
    settings = study.settings
    lines = [
        f"study        {folder.root}",
        f"task         {study.recipe.task.dataset}, epsilon {study.recipe.task.epsilon:g}, {len(study.space)} searched dimensions",
        f"budget       {settings.budget.trials} trials, rungs at epochs {', '.join(map(str, study.rungs))}, {workers} at once",
        f"dashboard    {dashboard or 'none'}",
        f"tensorboard  {typed('tensorboard')} --logdir {folder.root}",
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
        f"train again  {typed('hcpr_tune')} train --recipe {folder.best / 'recipe.toml'}",
    ):
        console.print(line, markup=False)
    return COMPLETED
