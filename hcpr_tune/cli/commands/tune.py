"""`hcpr_tune tune`: check everything that can be checked, then Ray, then the search."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import begin, named_in_study, option_again
from hcpr_tune.cli.console import (
    COMPLETED,
    INTERRUPTED,
    NOTHING_COMPLETED,
    check_recipe,
    interruptible,
    make_console,
    print_lines,
    search_view,
    tell_notes,
)
from hcpr_tune.cli.run_request import RunRequest, run_request
from hcpr_tune.common.output import outlets, say
from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, typed
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, MovedOn, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.execution.cluster import Cluster
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.views.report.report_file import ReportFile

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
            "--json tells of a search that runs here, not of --dry-run or --detach; of one elsewhere tells status "
            "NAME --json"
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

    request = run_request(options)
    try:
        check_sampler(request.study)
        if options.address is None and not options.dry_run:
            check_recipe(request.study.recipe)
    except InputError as error:
        raise located(error, request.where) from None
    if options.dry_run:
        return dry_run(options, request)
    if options.log_to and not options.detach:
        from hcpr_tune.views.trackers.trackers import check_tracker

        for name in options.log_to:
            check_tracker(name)
    if options.detach:
        from hcpr_tune.cli.detach import detach

        return detach(options, request)
    return search(options, request)


def dry_run(options: argparse.Namespace, request: RunRequest) -> int:
    """Print the resolved study and what it could cost; with --probe, after training a little on this cluster."""
    from hcpr_tune.views.forecast import plan_lines, probe_lines

    print_study(request.study)
    for line in plan_lines(request.study):
        say(f"# {line}")
    if options.probe:
        from hcpr_tune.execution.cluster import allot, connected
        from hcpr_tune.execution.probing import probe_cluster

        check_recipe(request.study.recipe)
        with connected(options.address, named_in_study(request.study)) as cluster, interruptible():
            share = allot(request.study.settings.resources, cluster, request.where, options.wait)
            probes = probe_cluster(request.study, share)
        for line in probe_lines(request.study, share.workers, probes):
            say(f"# {line}")
    say("# nothing was searched (--dry-run)" if options.probe else "# nothing was trained (--dry-run)")
    return COMPLETED


@outlets(forgiving=True)
def search(options: argparse.Namespace, request: RunRequest) -> int:
    """Run the search and print where to look, the search, and the answer."""
    from hcpr_tune.cli.sizes import measuring
    from hcpr_tune.cli.verdicts import small_verdict
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

    folder, study, history = request.folder, request.study, request.history
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
            share = allot(study.settings.resources, cluster, request.where, options.wait)
            if not options.quiet:
                print_start(console, request, dashboard_of(cluster, options), share.workers, size(), options.json)
            if not studies.exists(folder):
                if options.address is not None:
                    tell_notes(check_data(study, share))
                begin(folder, study)
            runner.run(folder, study, history, share, listeners, request.requests, request.patience)
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
    code = NOTHING_COMPLETED if history.best_trial is None else COMPLETED
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
        f"{interrupted}; everything recorded is kept in {folder.address}; go on with: "
        f"{resume_command(options, folder, study)}"
    )


def resume_command(options: argparse.Namespace, folder: StudyFolder, study: StudySpec) -> str:
    """The exact command that continues the study, from this folder and on the same cluster."""
    from hcpr_tune.views.next_commands import about

    more = [] if options.address is None else [option("--address", options.address)]
    more += [option("--wait", options.wait)] if options.wait else []
    more += [option("--dashboard-host", options.dashboard_host)] if options.dashboard_host != LOOPBACK else []
    more += [option("--log-to", name) for name in options.log_to]
    return about("tune --resume", folder, *more, option_again(folder, study).strip())


def print_study(study: StudySpec) -> None:
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
    console: Console, request: RunRequest, dashboard: str, workers: int, checkpoint_bytes: int, json: bool = False
) -> None:
    """The addresses to look at, what it may take of the disk, and what was lost before, before anything runs."""
    from hcpr_tune.views.forecast import budget_words, disk_words
    from hcpr_tune.views.terminal.event_log import start_news, tell

    folder, study, history = request.folder, request.study, request.history
    if json:
        tell(console, start_news(folder, study, history, workers, checkpoint_bytes, dashboard))
        return
    lines = [
        f"study        {folder.address}" + ("" if folder.bucket is None else f" (a copy for you in {folder.root})"),
        f"task         {study.recipe.task.dataset}, epsilon {study.recipe.task.epsilon:g}, {len(study.space)} "
        "searched dimensions",
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
    best = history.best_trial
    return "none yet" if best is None else f"{100 * (best.score or 0.0):.1f} % by trial {best.number}"


def print_json_result(console: Console, folder: StudyFolder, study: StudySpec, history: History, code: int) -> None:
    """The answer for programs."""
    from hcpr_tune.views.terminal.event_log import result_news, tell

    tell(console, result_news(folder, study, history, code, code == INTERRUPTED))


def print_result(console: Console, folder: StudyFolder, study: StudySpec, history: History, page: ReportFile) -> None:
    """The answer and the files."""
    from hcpr_tune.search.scheduling.asha import LOST_AT_ONCE, hopeless, over_budget
    from hcpr_tune.views.forecast import budget_words
    from hcpr_tune.views.next_commands import about, way_on
    from hcpr_tune.views.terminal.layout import loss_lines
    from hcpr_tune.views.terminal.live_view import ledger_lines, result_table

    if history.best_trial is None:
        reason = hopeless(history)
        given_up = (
            f" The search was given up after {LOST_AT_ONCE} trials lost in the same way; mend it and go on by "
            f"{about('tune --resume', folder)}."
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
    """The small verdict at the end of the search, and the command for a full one if a trial can be a finalist."""
    from hcpr_tune.views.next_commands import about
    from hcpr_tune.views.verdicts import verdict_lines

    if judged is not None:
        print_lines(console, ["", *verdict_lines(judged)])
    if any(trial.status == "completed" for trial in history.trials.values()):
        print_lines(console, [f"full verdict {about('verdict', folder)}"])


def beside_best(folder: StudyFolder) -> str:
    """What is next to the best recipe."""
    if there(folder.best / "model.safetensors"):
        return "weights and metrics beside it"
    return "metrics beside it; its weights were lost: train it again"
