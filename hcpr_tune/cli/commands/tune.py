"""`hcpr_tune tune`: search a space."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.search_request import (
    EXTENSIBLE,
    Extension,
    SearchRequest,
    continued_search,
    new_search,
    resumed_search,
)
from hcpr_tune.cli.arguments import add_named, add_ray, add_set, add_space, add_storage, add_trust
from hcpr_tune.cli.completers import studies
from hcpr_tune.cli.exit_codes import COMPLETED, INTERRUPTED, NOTHING_COMPLETED
from hcpr_tune.cli.flags import BUDGET, SEARCH, add_settings, flag_of
from hcpr_tune.cli.options import ray_of, space_of, trust_of
from hcpr_tune.common.numbers import whole
from hcpr_tune.common.output import outlets, say
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, MovedOn, StorageError
from hcpr_tune.views.terminal.console import make_console, print_lines

if TYPE_CHECKING:
    from hcpr_tune.api.search import SearchResult


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    tune = commands.add_parser("tune", description="Search a space of recipes with Ray Tune and Optuna.")
    add_space(tune)
    tune.add_argument("--name", metavar="NAME", help="the study's name (default: SPACE-DATE-TIME-CODE)")
    add_named(tune, "--resume", studies, "continue a study from its record")
    tune.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="with --name: continue that study, or start it if it does not exist, so that the same command can be "
        "run again and again",
    )
    add_storage(tune)
    extending = dict.fromkeys(BUDGET, "; with --resume, N or +N")
    add_settings(tune, SEARCH, extending)
    tune.add_argument("--epochs", metavar="N", help="with --resume: a new top rung, N or +N")
    tune.add_argument(
        "--audit", metavar="K", help="with --resume: run K of the stopped trials to the end, to see what stopping cost"
    )
    add_named(tune, "--warm-start", studies, "learn from an earlier study of the same task, for instance results/OLD")
    add_set(tune, "a key of the space by dotted name, or a field of the recipe, which is then fixed and not searched")
    add_ray(tune)
    tune.add_argument(
        "--detach",
        action="store_true",
        help="with --address: hand the search to the cluster and return; see status, logs and stop",
    )
    tune.add_argument(
        "--log-to",
        action="append",
        default=[],
        choices=("mlflow", "wandb", "optuna"),
        help="copy values and curves there as the search goes; optuna: a journal optuna.log in the study's folder, for "
        "optuna-dashboard; may be given several times",
    )
    tune.add_argument(
        "--watch",
        action="store_true",
        help="serve the live page of the search while it runs (see the command watch)",
    )
    tune.add_argument(
        "--dry-run", action="store_true", help="print the resolved study and what it could cost, and train nothing"
    )
    tune.add_argument(
        "--probe",
        action="store_true",
        help="with --dry-run: train for at most two minutes on the cluster and say what the search would cost",
    )
    add_trust(tune, "a study")
    tune.add_argument("--quiet", action="store_true", help="print only the result")
    tune.add_argument("--json", action="store_true", help="print a JSON object per line, for programs; the result last")


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked, then Ray, then the search."""
    if options.detach and (options.address is None or options.dry_run):
        raise InputError(
            "--detach goes with --address HOST:PORT, the cluster that is to run the search, and not with --dry-run"
        )
    if options.watch and (options.detach or options.dry_run or options.json or options.quiet):
        raise InputError(
            "--watch prints the page's URL, and is not for --dry-run, --detach, --json or --quiet; give the command "
            "watch NAME"
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
    from hcpr_tune.api.search import check_request
    from hcpr_tune.views.terminal.search_output import TerminalProgress

    request = request_of(options)
    if options.dry_run:
        return dry_run(options, request)
    progress = TerminalProgress(make_console(), options.quiet, options.json)
    try:
        check_request(request, ray_of(options), () if options.detach else options.log_to, progress)
        if options.detach:
            from hcpr_tune.cli.detach import detach

            return detach(options, request, progress)
    finally:
        progress.close()
    return search(options, request)


def request_of(options: argparse.Namespace) -> SearchRequest:
    """What the arguments ask for. Raises `InputError`, and then nothing was started or written."""
    trust = trust_of(options)
    if options.go_on:
        if options.name is None or options.resume is not None:
            raise InputError(
                "--continue needs --name NAME and excludes --resume: it continues that study, or begins it"
            )
        if any(value is not None for value in (options.epochs, options.audit)) or options.probe:
            raise InputError(
                "--epochs, --audit and --probe do not go with --continue; give them with --resume NAME, or --dry-run"
            )
        return continued_search(space_of(options), options.storage, options.name, options.warm_start, trust)
    if options.resume is not None:
        refuse_settings(options)
        budget = {key: text for key in EXTENSIBLE if (text := getattr(options, key)) is not None}
        audit = None if options.audit is None else whole("--audit", options.audit, least=1)
        return resumed_search(options.storage, options.resume, Extension(budget, audit, flag_of), trust)
    for flag in ("epochs", "audit"):
        if getattr(options, flag) is not None:
            more = "; set recipe.epochs in the space, or by --set epochs=N" if flag == "epochs" else ""
            raise InputError(f"--{flag} goes with --resume NAME{more}")
    if options.probe and not options.dry_run:
        raise InputError("--probe goes with --dry-run; a search needs no probe")
    return new_search(space_of(options), options.storage, options.name, options.warm_start, trust)


def refuse_settings(options: argparse.Namespace) -> None:
    """With --resume the study has all settings."""
    fixed = (
        options.space,
        options.name,
        options.warm_start,
        options.seed,
        options.cpus_per_trial,
        options.gpus_per_trial,
    )
    if any(value is not None for value in fixed) or options.set or options.probe:
        raise InputError(
            "--resume continues the study as it was begun; drop --space, --name, --set and the other settings "
            "(--trials, --hours, --worker-hours and --epochs"
            " extend it), or give them all with --continue"
        )


def dry_run(options: argparse.Namespace, request: SearchRequest) -> int:
    """Print the resolved study and what it could cost; with --probe, after training a little on this cluster."""
    from hcpr_tune.api.search import check_decisions
    from hcpr_tune.api.simulate import probe_workers
    from hcpr_tune.common.settings import located
    from hcpr_tune.search.spec.study import study_to_toml
    from hcpr_tune.views.forecast import plan_lines, probe_lines

    spec = request.study.spec
    try:
        check_decisions(spec)
    except InputError as error:
        raise located(error, request.where) from None
    say(study_to_toml(spec))  # can be given as --space
    for line in plan_lines(spec):
        say(f"# {line}")
    if options.probe:
        workers, probes = probe_workers(spec, ray_of(options), request.where)
        for line in probe_lines(spec, workers, probes):
            say(f"# {line}")
    say("# nothing was searched (--dry-run)" if options.probe else "# nothing was trained (--dry-run)")
    return COMPLETED


@outlets(forgiving=True)
def search(options: argparse.Namespace, request: SearchRequest) -> int:
    """Run the search; print where to look, the search as it goes, and the answer."""
    from hcpr_tune.api.search import resume_command, run_search
    from hcpr_tune.cli.live_page import LivePage
    from hcpr_tune.training.plugins import PluginError
    from hcpr_tune.views.terminal.search_output import TerminalProgress, print_json_result

    console, study = make_console(), request.study
    terminal = TerminalProgress(console, options.quiet, options.json)
    try:
        with LivePage(terminal) if options.watch else nullcontext(terminal) as progress:
            result = run_search(request, ray_of(options), options.log_to, progress)
    except (StorageError, ClusterLost, PluginError):
        if options.json:
            print_json_result(console, study, NOTHING_COMPLETED, interrupted=False)
        raise
    code = show(options, result)
    if not result.interrupted:
        return code
    raise Interrupted(
        f"{result.interrupted}; everything recorded is kept in {study.folder.address}; continue with: "
        f"{resume_command(study, ray_of(options), options.log_to)}"
    )


def show(options: argparse.Namespace, result: SearchResult) -> int:
    """Print the answer; returns the exit code of a search that was not interrupted."""
    from hcpr_tune.api.search import options_again
    from hcpr_tune.views.terminal.search_output import print_json_result, print_result, print_verdict

    console, study = make_console(), result.study
    code = NOTHING_COMPLETED if study.history.best_trial is None else COMPLETED
    if options.json:
        interrupted = bool(result.interrupted)
        print_json_result(console, study, INTERRUPTED if interrupted else code, interrupted)
        return code
    if study.history.trials:
        more = options_again(study, ray_of(options))
        print_result(console, study, result.report, more)
        print_verdict(console, study, result.verdict, result.no_verdict, more)
    print_lines(console, result.troubles)
    return code
