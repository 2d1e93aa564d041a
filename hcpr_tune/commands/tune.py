"""`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.commands.console import COMPLETED, NOTHING_COMPLETED, make_console, typed
from hcpr_tune.errors import InputError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.cluster import Cluster
    from hcpr_tune.search.record import Event, History
    from hcpr_tune.search.results import StudyFolder
    from hcpr_tune.search.study import Study
    from hcpr_tune.training.recipe import Recipe

FLAGS = {
    "trials": "budget.trials",
    "hours": "budget.hours",
    "worker_hours": "budget.worker_hours",
    "seed": "seed",
    "cpus_per_trial": "resources.cpus_per_trial",
    "gpus_per_trial": "resources.gpus_per_trial",
}
"""Flags that stand for a key of the study."""
EXTENDING = ("trials", "hours", "worker_hours", "epochs")
"""Flags that extend a study with --resume: a number, or +N for so much more."""


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


@dataclass(frozen=True)
class Plan:
    """What is to be run: a study, new or begun before, and the events that come first."""

    folder: StudyFolder
    study: Study
    history: History
    where: str
    """Where the settings stand, for messages."""
    requests: tuple[Event, ...] = ()


def run(options: argparse.Namespace) -> int:
    """`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""
    from hcpr_tune.search.sampler import check_sampler
    from hcpr_tune.settings import located

    plan = new_plan(options) if options.resume is None else resumed_plan(options)
    try:
        check_sampler(plan.study)
        if options.address is None and not options.dry_run:
            check_recipe(plan.study.recipe)
    except InputError as error:
        raise located(error, plan.where) from None
    if options.dry_run:
        return dry_run(options, plan)
    return search(options, plan)


def new_plan(options: argparse.Namespace) -> Plan:
    """A new study from a space file and the command line."""
    from hcpr_tune.search.record import History
    from hcpr_tune.search.runner import check_new
    from hcpr_tune.search.study import find_space, read_study
    from hcpr_tune.search.warm_start import warm_start

    for flag in ("epochs", "audit"):
        if getattr(options, flag) is not None:
            more = "; set recipe.epochs in the space, or by --set epochs=N" if flag == "epochs" else ""
            raise InputError(f"--{flag} goes with --resume NAME{more}")
    if options.probe and not options.dry_run:
        raise InputError("--probe goes with --dry-run; a search needs no probe")
    overrides, given = overrides_of(options)
    path = find_space("default" if options.space is None else options.space)
    study = read_study(path, overrides, given)
    requests = () if options.warm_start is None else (warm_start(Path(options.warm_start), study, time.time()),)
    folder = check_new(Path(options.storage), options.name or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    where = f"{path} with {given}" if given else str(path)
    return Plan(folder, study, History(study.recipe.epochs, study.goal), where, requests)


def resumed_plan(options: argparse.Namespace) -> Plan:
    """A study that was begun before, with what the command line extends it by."""
    from hcpr_tune.search.runner import audit_event, reopen
    from hcpr_tune.search.study import extend

    fixed = [
        options.space,
        options.name,
        options.warm_start,
        options.seed,
        options.cpus_per_trial,
        options.gpus_per_trial,
    ]
    if any(value is not None for value in fixed) or options.set or options.probe:
        raise InputError(
            "--resume goes on with the study as it was begun; drop --space, --name, --set and the other settings (--trials, --hours, --worker-hours and --epochs extend it)"
        )
    folder, study, history = reopen(Path(options.storage), options.resume)
    budget = extension_of(options, study, history)
    requests: list[Event] = []
    if budget:
        study = extend(study, budget)
        requests.append({"event": "extend", "time": time.time(), "budget": budget})
    if options.audit is not None:
        requests.append(audit_event(study, history, positive(options.audit, "--audit")))
    return Plan(folder, study, history, str(folder.study), tuple(requests))


def extension_of(options: argparse.Namespace, study: Study, history: History) -> dict[str, float]:
    """The new budget that the flags ask for, by the budget's keys and `epochs`. +N is more than the limit, or than what was spent beyond it."""
    from hcpr_tune.settings import to_plain

    spent = {"hours": history.seconds / 3600, "worker_hours": history.worker_seconds / 3600}
    limits = {**to_plain(study.settings.budget), "epochs": study.recipe.epochs}
    now = {name: max(limit, spent.get(name, limit)) for name, limit in limits.items()}
    wanted: dict[str, float] = {}
    for flag in EXTENDING:
        text = getattr(options, flag)
        if text is None:
            continue
        option, whole = f"--{flag.replace('_', '-')}", flag in ("trials", "epochs")
        try:
            number = int(text) if whole else float(text)
        except ValueError:
            raise InputError(f"{option} must be a {'whole ' if whole else ''}number or +N, got {text}") from None
        wanted[flag] = now[flag] + number if text.startswith("+") else number
        if flag == "trials" and wanted[flag] < now[flag]:
            raise InputError(
                f"{option} must be at least the {now[flag]} that the study has, got {text}; {option} +10 adds ten"
            )
        if flag in spent and wanted[flag] <= spent[flag] and wanted[flag] != 0:
            raise InputError(
                f"{option} must be above the {spent[flag]:.3g} hours that are spent, or 0 for no limit, got {text}; {option} +1 adds an hour"
            )
    return wanted


def positive(text: str, option: str) -> int:
    """A whole number of at least 1 from the command line."""
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{option} must be a whole number of at least 1, got {text}")
    return int(text)


def dry_run(options: argparse.Namespace, plan: Plan) -> int:
    """Print the resolved study and what it could cost; with --probe, after training a little on this cluster."""
    from hcpr_tune.views.forecast import plan_lines, probe_lines

    print_study(plan.study)
    for line in plan_lines(plan.study):
        print(f"# {line}")
    if options.probe:
        from hcpr_tune.cluster import allot, connected
        from hcpr_tune.search.probing import probe_cluster

        check_recipe(plan.study.recipe)
        with connected(options.address) as cluster, interruptible():
            share = allot(plan.study.settings.resources, cluster, plan.where)
            probes = probe_cluster(plan.study, share)
        for line in probe_lines(plan.study, share.workers, probes):
            print(f"# {line}")
    print("# nothing was searched (--dry-run)" if options.probe else "# nothing was trained (--dry-run)")
    return COMPLETED


def search(options: argparse.Namespace, plan: Plan) -> int:
    """Run the search and print where to look, the search, and the answer."""
    from hcpr_tune.cluster import allot, connected
    from hcpr_tune.search import runner
    from hcpr_tune.views.tensorboard import TensorBoardView

    folder, study, history = plan.folder, plan.study, plan.history
    console = make_console()
    # Handlers come after Ray's start: it installs one of its own for SIGTERM.
    with connected(options.address) as cluster, interruptible():
        share = allot(study.settings.resources, cluster, plan.where)
        if options.resume is None:
            runner.create(folder, study)
        if not options.quiet:
            print_start(console, study, folder, dashboard_of(cluster, options.address), share.workers)
        listeners = [TensorBoardView(folder, history), *([] if options.quiet else [search_view(study, console)])]
        try:
            runner.run(folder, study, history, share, listeners, plan.requests)
        except Interrupted:
            interrupted = True
        else:
            interrupted = False
    code = print_result(console, folder, study, history)
    if not interrupted:
        return code
    elsewhere = "" if options.storage == "results" else f" --storage {options.storage}"
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


def print_study(study: Study) -> None:
    """The resolved study, as a file that can be given as --space."""
    from hcpr_tune.search.study import study_to_toml

    print(study_to_toml(study))


def dashboard_of(cluster: Cluster, address: str | None) -> str:
    """The dashboard's address, and how to get in: Ray protects what it starts here by a token."""
    token = f" (it asks for the token that `{typed('ray')} get-auth-token` prints)"
    return cluster.dashboard_url + (token if cluster.dashboard_url and address is None else "")


def print_start(console: Console, study: Study, folder: StudyFolder, dashboard: str, workers: int) -> None:
    """The addresses to look at, before anything runs."""
    from hcpr_tune.views.forecast import budget_words

    lines = [
        f"study        {folder.root}",
        f"task         {study.recipe.task.dataset}, epsilon {study.recipe.task.epsilon:g}, {len(study.space)} searched dimensions",
        f"budget       {budget_words(study)}, rungs at epochs {', '.join(map(str, study.rungs))}, {workers} at once",
        f"dashboard    {dashboard or 'none'}",
        f"tensorboard  {typed('tensorboard')} --logdir {folder.root}",
    ]
    for line in lines:
        console.print(line, markup=False)


def print_result(console: Console, folder: StudyFolder, study: Study, history: History) -> int:
    """The answer and where everything lies; the exit code."""
    from hcpr_tune.search.halving import over_budget
    from hcpr_tune.views.forecast import budget_words
    from hcpr_tune.views.terminal import ledger_lines, result_table

    if not history.ranked():
        reasons = "; ".join(sorted({trial.reason for trial in history.trials.values() if trial.reason}))
        console.print(
            f"No trial reached its first rung{': ' + reasons if reasons else ''}. See {folder.table}.", markup=False
        )
        return NOTHING_COMPLETED
    console.print(result_table(study, history))
    if over_budget(history, study.rules):
        more = f"{typed('hcpr_tune')} tune --resume {folder.root.name} --hours or --worker-hours +N goes on"
        console.print(f"the budget of time is spent: {budget_words(study)}; {more}", markup=False)
    for line in (
        *ledger_lines(study, history),
        f"best recipe  {folder.best / 'recipe.toml'} (weights and metrics beside it)",
        f"all trials   {folder.table}",
        f"train again  {typed('hcpr_tune')} train --recipe {folder.best / 'recipe.toml'}",
    ):
        console.print(line, markup=False)
    return COMPLETED
