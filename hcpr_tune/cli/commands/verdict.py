"""`hcpr_tune verdict`: evaluate what a search found, on fresh seeds and under strong attacks."""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import begin, named_as_model, named_in_study, trust_space, trust_study
from hcpr_tune.cli.console import (
    COMPLETED,
    NOTHING_COMPLETED,
    check_recipe,
    interruptible,
    make_console,
    print_lines,
    search_view,
)
from hcpr_tune.cli.flags import VERDICT, flag_of
from hcpr_tune.cli.verdicts import run_verdict, write_report
from hcpr_tune.common.output import outlets, say
from hcpr_tune.common.paths import is_file, reading, there
from hcpr_tune.common.shell import command, same_again, storage_words
from hcpr_tune.errors import ClusterLost, InputError, Interrupted, MovedOn, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.execution.capacity import Share
    from hcpr_tune.search.record.events.search import Request
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec
    from hcpr_tune.verdict.plan import Candidate, Plan


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked, then Ray, then the verdict."""
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        try:
            return judge(options, Path(scratch))
        except MovedOn:
            # The process before this one had not quite ended when its record was read.
            return judge(options, Path(scratch))


@outlets(forgiving=True)
def judge(options: argparse.Namespace, scratch: Path) -> int:
    """Judge a study, or a model that was trained elsewhere, and print what came out."""
    from hcpr_tune.execution.cluster import allot, connected
    from hcpr_tune.verdict.baselines import check_methods
    from hcpr_tune.verdict.run import known_state

    folder, study, history = judged_study(options)
    methods = list(dict.fromkeys(filter(None, options.compare.split(","))))
    check_methods(methods, study)
    given = the_given(options, study, scratch)
    others = [] if given is None else [given[0]]
    plan_of(options, folder, study, history, others)  # says what is wrong with it, before any work
    known_state(folder)
    check_free(folder)
    if options.address is None:
        check_recipe(study.recipe)
        check_test(options, study)
    console = make_console()
    try:
        with (
            interruptible(),
            connected(
                options.address,
                named_in_study(study) | named_as_model(options.arch or "small_cnn"),
                options.dashboard_host,
                folder.root.name,
            ) as cluster,
            interruptible(),
        ):
            share = allot(study.settings.resources, cluster, str(folder.study), options.wait)
            for method in methods:
                baseline = searched_baseline(options, folder, study, history, method, share, console)
                others += [] if baseline is None else [baseline]
            if methods:  # hours have passed
                folder, study, history = judged_study(options)
            if given is not None:
                keep_given(folder, study, given)
            plan = plan_of(options, folder, study, history, others)
            plain = run_verdict(folder, study, history, plan, share, console, options)
    except (Interrupted, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        raise Interrupted(f"{reason}; all that was done is kept; go on with: {same_again()}") from None
    except (StorageError, ClusterLost) as error:
        raise type(error)(f"{error} ({same_again()})") from None
    report = write_report(folder, study, history)
    show(console, folder, plain, report, options)
    return COMPLETED if plain["winner"] is not None else NOTHING_COMPLETED


def judged_study(options: argparse.Namespace) -> tuple[StudyFolder, StudySpec, History]:
    """The study that is judged, with what the command line says of the verdict; a new, empty one for a model alone."""
    from hcpr_tune.common.settings import parse_assignments, shorten
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.verdict.plan import changed

    if (options.model is None) != (options.arch is None):
        raise InputError("--model PATH and --arch NAME go together: the weights, and the network that they are of")
    if options.classes is not None and options.model is None:
        raise InputError("--classes goes with --model PATH: the classes in the order of that model's outputs")
    if options.name is None:
        return empty_study(options)
    if options.space is not None:
        raise InputError("--space goes with --model and without NAME: a study has its task already")
    folder, study, history = reopen(options.storage, options.name, "verdict ", with_best=True)
    trust_study(options, folder, study, history)
    study = with_settings(study, options)
    if options.model is None:
        values = parse_assignments(options.set)
        study = replace(
            study, recipe=changed(study.recipe, values, " ".join(f"--set {shorten(text)}" for text in options.set))
        )
    return folder, study, history


def empty_study(options: argparse.Namespace) -> tuple[StudyFolder, StudySpec, History]:
    """For a model alone: a study that has its task and searches nothing, in a folder of its own, the same for the same
    file, network and task.

    So that a verdict that was broken off goes on, and the test images that it has seen stay counted.
    """
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.spec.study import find_space, read_study
    from hcpr_tune.search.storage.studies import check_new, exists, reopen, study_folder

    if options.model is None:
        raise InputError(
            f"name a study, for instance {command('verdict NAME', *storage_words(options.storage))}, or give --model "
            "PATH --arch NAME"
        )
    if options.compare:
        raise InputError("--compare goes with the NAME of a study, whose time the baselines get")
    path = Path(options.model)
    if not is_file(path, f"--model {path}"):
        raise InputError(
            f"--model {path}: there is no such file; give the weights, .safetensors or a state dict of torch"
        )
    space = find_space(options.space or "default")
    study = read_study(space)
    trust_space(options, space, study)
    own = named_in_study(study)
    with reading(f"--model {path}"):
        weights = path.read_bytes()
    about = (weights, options.arch, *options.set, study.fingerprint, *filter(None, [options.classes]))
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", path.stem)[:60]
    name = f"judged-{stem}-{digest}"
    if exists(study_folder(options.storage, name)):
        folder, study, history = reopen(options.storage, name, "verdict ")
        trust_study(options, folder, study, history, own)
        return folder, with_settings(study, options), history
    return check_new(options.storage, name), with_settings(study, options), History(study.recipe.epochs, study.goal)


def with_settings(study: StudySpec, options: argparse.Namespace) -> StudySpec:
    """The study with the flags laid over its table [verdict]."""
    from hcpr_tune.common.settings import parse_assignment, read, to_plain
    from hcpr_tune.search.spec.study import Verdict

    given = {
        name: parse_assignment(f"{name}={value}")[1]
        for name in VERDICT
        if (value := getattr(options, name)) is not None
    }
    where = " ".join(f"{flag_of(name)} {value}" for name, value in given.items())
    verdict = read(Verdict, to_plain(study.settings.verdict) | given, where or "verdict")
    return replace(study, settings=replace(study.settings, verdict=verdict))


def the_given(options: argparse.Namespace, study: StudySpec, scratch: Path) -> tuple[Candidate, Path] | None:
    """The model of --model, and its weights as safetensors."""
    if options.model is None:
        return None
    from hcpr_tune.common.settings import parse_assignments
    from hcpr_tune.verdict.external_model import given_candidate

    values = parse_assignments(options.set)
    told = (lambda words: None) if options.quiet or options.json else say
    classes = given_classes(options.classes)
    return given_candidate(study, Path(options.model), options.arch, values, scratch, classes, told)


def given_classes(text: str | None) -> list[str]:
    """The names of --classes; a name with a comma is quoted."""
    return [] if text is None else [name.strip() for name in next(csv.reader([text]), [])]


def keep_given(folder: StudyFolder, study: StudySpec, given: tuple[Candidate, Path]) -> None:
    """Put the given weights where workers look for them, and begin the empty study where there is none."""
    from hcpr_tune.search.storage.studies import exists
    from hcpr_tune.verdict.external_model import keep
    from hcpr_tune.verdict.run import verdict_folder

    if not exists(folder):
        begin(folder, study)
    keep(verdict_folder(folder), *given)


def plan_of(
    options: argparse.Namespace, folder: StudyFolder, study: StudySpec, history: History, others: list[Candidate]
) -> Plan:
    """The plan. Raises `InputError` where there are too few finalists."""
    from hcpr_tune.verdict.plan import full_plan, given_plan
    from hcpr_tune.views.next_commands import about

    if options.name is None:
        return given_plan(study, others[0], options.test)
    try:
        return full_plan(study, history, options.test, others)
    except InputError as error:
        raise InputError(f"{error} ({about('tune --resume', folder)})") from None


def check_free(folder: StudyFolder) -> None:
    """Raises `InputError` where another process leads the study, before baselines are searched for hours."""
    from hcpr_tune.search.storage.lease import living_lease_holder, refusal

    holder = living_lease_holder(folder.objects)
    if holder is not None:
        raise refusal(folder.address, holder)


def check_test(options: argparse.Namespace, study: StudySpec) -> None:
    """Find out before any work whether there are test images; nothing is done with them."""
    if options.test:
        from hcpr_tune.training.data.heldout import open_test

        open_test(study.recipe.task)


def searched_baseline(
    options: argparse.Namespace,
    folder: StudyFolder,
    study: StudySpec,
    history: History,
    method: str,
    share: Share,
    console: Console,
) -> Candidate | None:
    """The best that a baseline's own search found; the search is run, or gone on with, where it is not over."""
    from hcpr_tune.common.settings import parse_assignments
    from hcpr_tune.execution import runner
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.spec.study import extend
    from hcpr_tune.search.storage.studies import exists, reopen, study_folder
    from hcpr_tune.verdict.baselines import baseline_candidate, baseline_name, baseline_study
    from hcpr_tune.verdict.plan import changed
    from hcpr_tune.views.tensorboard.writer import TensorBoardView

    name = baseline_name(folder.root.name, method)
    baseline = baseline_study(study, history, folder.root.name, method)
    place, found = study_folder(options.storage, name), History(baseline.recipe.epochs, baseline.goal)
    requests: tuple[Request, ...] = ()
    if exists(place):
        needed = baseline.settings.budget.worker_hours
        place, baseline, found = reopen(options.storage, name, "--compare ")
        trust_study(options, place, baseline, found, named_in_study(study))
        if needed > baseline.settings.budget.worker_hours:  # the study was searched further since
            budget = {"worker_hours": needed}
            requests, baseline = ({"event": "extend", "time": time.time(), "budget": budget},), extend(baseline, budget)
    if found.ended != "finished" or requests:
        seconds = history.worker_seconds
        if not options.quiet and not options.json:
            console.print(
                f"baseline        {name}: {method}, searched for {seconds:.0f} worker-seconds as {folder.root.name} was"
            )
        if not exists(place):
            begin(place, baseline)

        def listeners() -> list[Any]:
            shown = [] if options.quiet else [search_view(baseline, console, found, options.json)]
            return [TensorBoardView(place, baseline, found), *shown]

        runner.run(place, baseline, found, share, listeners, requests)
    candidate = baseline_candidate(baseline, found, method)
    if candidate is not None:  # the same schedule for all, also where the baseline was searched under another one
        values = parse_assignments(options.set)
        candidate = replace(candidate, recipe=changed(candidate.recipe, values, "--set"))
    if candidate is None and not options.quiet:
        print(f"hcpr_tune: no trial of {name} came to its end: {method} is left out", file=sys.stderr)
    return candidate


def show(
    console: Console, folder: StudyFolder, plain: dict[str, Any], report: str, options: argparse.Namespace
) -> None:
    """Print the verdict and its files."""
    from hcpr_tune.views.terminal.event_log import tell
    from hcpr_tune.views.verdicts import verdict_lines

    if options.json:
        tell(console, {"news": "verdict", **plain})
        return
    print_lines(console, verdict_lines(plain))
    print_lines(console, where_lines(folder, plain))
    if not options.quiet:
        print_lines(console, [f"report       {report}"])


def where_lines(folder: StudyFolder, plain: dict[str, Any]) -> list[str]:
    """The files of the verdict and its model."""
    own = folder.root / "verdict"
    lines = [f"verdict      {own / 'verdict.md'}"]
    if there(own / "model.safetensors"):
        lines.append(f"model        {own} (model.safetensors, recipe.toml, model_card.md)")
    elif plain["winner"] is not None:
        lines.append(f"model        none: {plain['model_missing']}")
    return lines
