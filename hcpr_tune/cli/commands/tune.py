"""`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.console import COMPLETED, INTERRUPTED, NOTHING_COMPLETED, make_console, tell_notes
from hcpr_tune.cli.run_request import Plan, plan_of
from hcpr_tune.cli.trust import begin, named_in_study, option_again
from hcpr_tune.common.output import outlets, say
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, typed
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, MovedOn, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.execution.cluster import Cluster
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import Study
    from hcpr_tune.training.recipe import Recipe
    from hcpr_tune.views.report.report_file import ReportFile

COPIED = ("tensorboard ", "train again ", "full verdict ", "report ", "written ")
"""How the lines begin that hold a command."""
LOOPBACK = "127.0.0.1"
"""Where the dashboard listens unless another place was given."""


def run(options: argparse.Namespace) -> int:
    """`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""
    if options.detach and (options.address is None or options.dry_run):
        raise InputError(
            "--detach goes with --address HOST:PORT, the cluster that is to run the search, and not with --dry-run"
        )
    if options.json and (options.detach or options.dry_run):
        raise InputError(
            "--json tells of a search that runs here, not of --dry-run or --detach; of one elsewhere tells status NAME --json"
        )
    try:
        return act(options)
    except MovedOn:
        # The driver before this one had not quite ended when its record was read.
        return act(options)


def act(options: argparse.Namespace) -> int:
    """Do what the arguments ask for, from the study as it is now."""
    from hcpr_tune.common.settings import located
    from hcpr_tune.search.suggestion.sampler import check_sampler

    plan = plan_of(options)
    try:
        check_sampler(plan.study)
        if options.address is None and not options.dry_run:
            check_recipe(plan.study.recipe)
    except InputError as error:
        raise located(error, plan.where) from None
    if options.dry_run:
        return dry_run(options, plan)
    if options.log_to and not options.detach:
        from hcpr_tune.views.trackers.trackers import check_tracker

        for name in options.log_to:
            check_tracker(name)
    if options.detach:
        from hcpr_tune.cli.detach import detach

        return detach(options, plan)
    return search(options, plan)


def dry_run(options: argparse.Namespace, plan: Plan) -> int:
    """Print the resolved study and what it could cost; with --probe, after training a little on this cluster."""
    from hcpr_tune.views.forecast import plan_lines, probe_lines

    print_study(plan.study)
    for line in plan_lines(plan.study):
        say(f"# {line}")
    if options.probe:
        from hcpr_tune.execution.cluster import allot, connected
        from hcpr_tune.execution.probing import probe_cluster

        check_recipe(plan.study.recipe)
        with connected(options.address, named_in_study(plan.study)) as cluster, interruptible():
            share = allot(plan.study.settings.resources, cluster, plan.where, options.wait)
            probes = probe_cluster(plan.study, share)
        for line in probe_lines(plan.study, share.workers, probes):
            say(f"# {line}")
    say("# nothing was searched (--dry-run)" if options.probe else "# nothing was trained (--dry-run)")
    return COMPLETED


@outlets(forgiving=True)
def search(options: argparse.Namespace, plan: Plan) -> int:
    """Run the search and print where to look, the search, and the answer."""
    from hcpr_tune.cli.commands.verdict import small_verdict
    from hcpr_tune.cli.sizes import measuring
    from hcpr_tune.common.files import node_folder
    from hcpr_tune.execution import runner
    from hcpr_tune.execution.cluster import allot, connected
    from hcpr_tune.execution.probing import check_data
    from hcpr_tune.execution.ray_metrics import RayMetrics
    from hcpr_tune.search.storage import studies
    from hcpr_tune.training.data.node_cache import release
    from hcpr_tune.training.plugins import PluginError
    from hcpr_tune.views.report.report_file import ReportFile
    from hcpr_tune.views.tensorboard.writer import TensorBoardView

    folder, study, history = plan.folder, plan.study, plan.history
    console = make_console()
    page = ReportFile(folder, study, typed("hcpr_tune"))
    watchers: list[Any] = []

    def listeners() -> list[Any]:
        watchers.append(RayMetrics(folder, study, history, share.gpus_per_trial))
        if options.log_to:
            from hcpr_tune.views.trackers.trackers import TrackerView

            watchers.extend(TrackerView(name, folder, study, history) for name in dict.fromkeys(options.log_to))
        return [
            *watchers,
            TensorBoardView(folder, study, history),
            *([] if options.quiet else [search_view(study, console, history, options.json)]),
            page,
        ]

    interrupted, judged = "", None
    try:
        # Twice: Ray installs a handler of its own for SIGTERM when it starts.
        with (
            interruptible(),
            measuring(study) as size,
            connected(options.address, named_in_study(study), options.dashboard_host, folder.root.name) as cluster,
            interruptible(),
        ):
            share = allot(study.settings.resources, cluster, plan.where, options.wait)
            if not options.quiet:
                print_start(console, plan, dashboard_of(cluster, options), share.workers, size(), options.json)
            if not studies.exists(folder):
                if options.address is not None:
                    tell_notes(check_data(study, share))
                begin(folder, study)
            runner.run(folder, study, history, share, listeners, plan.requests, plan.patience)
            judged = small_verdict(folder, study, history, share, console, options)
    except (Interrupted, KeyboardInterrupt) as error:
        interrupted = str(error) or "interrupted"
    except (StorageError, ClusterLost) as error:
        if options.json:
            print_json_result(console, folder, study, history, NOTHING_COMPLETED)
        raise type(error)(f"{error} ({resume_command(options, folder, study)})") from None
    except PluginError as error:
        if options.json:
            print_json_result(console, folder, study, history, NOTHING_COMPLETED)
        raise PluginError(f"{error} ({resume_command(options, folder, study)})", error.details) from None
    release(node_folder())
    if interrupted and not studies.exists(folder):
        raise Interrupted(f"{interrupted} before the study was begun; nothing was written")
    code = NOTHING_COMPLETED if not history.ranked() else COMPLETED
    if options.json:
        print_json_result(console, folder, study, history, INTERRUPTED if interrupted else code)
    else:
        if history.trials:
            print_result(console, folder, study, history, page)
            print_verdict(console, folder, history, judged)
        print_lines(console, [watcher.trouble for watcher in watchers if watcher.trouble])
    if not interrupted:
        return code
    raise Interrupted(
        f"{interrupted}; everything recorded is kept in {folder.address}; go on with: {resume_command(options, folder, study)}"
    )


def resume_command(options: argparse.Namespace, folder: StudyFolder, study: Study) -> str:
    """The exact command that goes on with the study, from this folder and on the same cluster."""
    from hcpr_tune.views.next_commands import about

    more = [] if options.address is None else [option("--address", options.address)]
    more += [option("--wait", options.wait)] if options.wait else []
    more += [option("--dashboard-host", options.dashboard_host)] if options.dashboard_host != LOOPBACK else []
    more += [option("--log-to", name) for name in options.log_to]
    return about("tune --resume", folder, *more, option_again(folder, study).strip())


def check_recipe(recipe: Recipe) -> None:
    """Find out before Ray starts whether the data can be read and the model built; on a cluster both may be elsewhere.

    The embedded digits and the built-in models are known to work, and the import of torch is saved.
    """
    from hcpr_tune.training.recipe import METHODS, MODELS, Task

    usual = Task(split_seed=recipe.task.split_seed, norm=recipe.task.norm, epsilon=recipe.task.epsilon)
    if recipe.task == usual and recipe.model.name in MODELS and recipe.method in METHODS and not recipe.model.mean:
        return
    from hcpr_tune.training.session import DataShelf, check_trainable

    tell_notes(check_trainable(recipe, DataShelf()))


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (a Slurm preemption, `kill`), SIGHUP (the terminal was closed) and Ctrl-C end the block with KeyboardInterrupt; a second one ends the process at once.

    Whoever ignores SIGHUP, as `nohup` does, goes on ignoring it.
    """

    def interrupt(number: int, frame: Any) -> None:
        for name in before:
            # A terminal that is closed says so twice, by the shell and by the system: that is no second wish.
            signal.signal(name, signal.SIG_IGN if name == signal.SIGHUP else signal.SIG_DFL)
        raise KeyboardInterrupt

    names = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        names.append(signal.SIGHUP)
    before = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def search_view(study: Study, console: Console, history: History, json: bool) -> Any:
    """The live view on a terminal that can redraw it, plain lines elsewhere; JSON for whoever wants it."""
    from hcpr_tune.views.terminal.event_log import JsonLines, PlainLines
    from hcpr_tune.views.terminal.live_view import LiveView

    if json:
        return JsonLines(study, console, history)
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveView(study, console, history) if live else PlainLines(study, console, history)


def print_study(study: Study) -> None:
    """The resolved study, as a file that can be given as --space."""
    from hcpr_tune.search.spec.study import study_to_toml

    say(study_to_toml(study))


def dashboard_of(cluster: Cluster, options: argparse.Namespace) -> str:
    """The dashboard's address, and for people how to get in: Ray protects what it starts here by a token."""
    where = f"that `{typed('ray')} get-auth-token` prints" if cluster.token is None else f"in {cluster.token}"
    token = f" (it asks for the token {where})"
    asks = cluster.dashboard_url and options.address is None and not options.json
    return cluster.dashboard_url + (token if asks else "")


def print_start(
    console: Console, plan: Plan, dashboard: str, workers: int, checkpoint_bytes: int, json: bool = False
) -> None:
    """The addresses to look at, what it may take of the disk, and what was lost before, before anything runs."""
    from hcpr_tune.views.forecast import budget_words, disk_words
    from hcpr_tune.views.terminal.event_log import start_news, tell

    folder, study, history = plan.folder, plan.study, plan.history
    if json:
        tell(console, start_news(folder, study, history, workers, checkpoint_bytes, dashboard))
        return
    lines = [
        f"study        {folder.address}" + ("" if folder.bucket is None else f" (a copy for you in {folder.root})"),
        f"task         {study.recipe.task.dataset}, epsilon {study.recipe.task.epsilon:g}, {len(study.space)} searched dimensions",
        f"budget       {budget_words(study)}, rungs at epochs {', '.join(map(str, study.rungs))}, {workers} at once",
        f"disk         {disk_words(study, history, workers, checkpoint_bytes)}",
        f"dashboard    {dashboard or 'none'}",
        f"tensorboard  {typed('tensorboard')} {option('--logdir', folder.root)}",
    ]
    if history.trials:
        finished = sum(trial.ended for trial in history.trials.values())
        lines.insert(
            1, f"goes on      {len(history.trials)} trials, {finished} of them ended, best {best_words(history)}"
        )
    if history.damage:
        lines.append(f"LOSS         {history.damage}")
    print_lines(console, lines)


def best_words(history: History) -> str:
    """The best score so far."""
    ranked = history.ranked()
    return f"{100 * (ranked[0].score or 0.0):.1f} % by trial {ranked[0].number}" if ranked else "none yet"


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Words are folded between words; what may be copied is left to the terminal, where it stays whole."""
    from rich.text import Text

    from hcpr_tune.views.wording import printable

    for line in lines:
        if line.startswith(COPIED):
            console.out(printable(line), highlight=False)
        else:
            console.print(Text(printable(line)))


def print_json_result(console: Console, folder: StudyFolder, study: Study, history: History, code: int) -> None:
    """The answer for programs."""
    from hcpr_tune.views.terminal.event_log import result_news, tell

    tell(console, result_news(folder, study, history, code, code == INTERRUPTED))


def print_result(console: Console, folder: StudyFolder, study: Study, history: History, page: ReportFile) -> None:
    """The answer and where everything lies."""
    from hcpr_tune.search.scheduling.asha import LOST_AT_ONCE, hopeless, over_budget
    from hcpr_tune.views.forecast import budget_words
    from hcpr_tune.views.next_commands import about, way_on
    from hcpr_tune.views.terminal.layout import loss_lines
    from hcpr_tune.views.terminal.live_view import ledger_lines, result_table

    if not history.ranked():
        reason = hopeless(history)
        given_up = (
            f" The search was given up after {LOST_AT_ONCE} trials lost in the same way; mend it and go on by {about('tune --resume', folder)}."
            if reason
            else ""
        )
        reasons = reason or "; ".join(sorted({trial.reason for trial in history.trials.values() if trial.reason}))
        print_lines(
            console,
            [f"No trial reached its first rung{': ' + reasons if reasons else ''}.{given_up} See {folder.table}."],
        )
        return
    console.print(result_table(study, history))
    if over_budget(history, study.asha_config):
        more = f"{way_on(folder, study, history, 'out of time', typed('hcpr_tune'))} goes on"
        print_lines(console, [f"the budget of time is spent: {budget_words(study)}; {more}"])
    lines = (
        *ledger_lines(study, history),
        *loss_lines(history.losses),
        f"best recipe  {folder.best / 'recipe.toml'} ({beside_best(folder)})",
        f"all trials   {folder.table}",
        f"report       {page.words}",
        f"train again  {command('train', option('--recipe', folder.best / 'recipe.toml'))}",
    )
    print_lines(console, lines)


def print_verdict(console: Console, folder: StudyFolder, history: History, judged: dict[str, Any] | None) -> None:
    """The small verdict that the search ended with, and how one comes by the full one where a trial can be a finalist."""
    from hcpr_tune.views.next_commands import about
    from hcpr_tune.views.verdicts import verdict_lines

    if judged is not None:
        print_lines(console, ["", *verdict_lines(judged)])
    if any(trial.status == "completed" for trial in history.trials.values()):
        print_lines(console, [f"full verdict {about('verdict', folder)}"])


def beside_best(folder: StudyFolder) -> str:
    """What lies beside the best recipe."""
    if there(folder.best / "model.safetensors"):
        return "weights and metrics beside it"
    return "metrics beside it; its weights were lost: train it again"
