"""What `hcpr_tune tune` is to run, found out from its arguments before anything starts: a new study, or one that was
begun before.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.api.trust import named_in_study, trust_space, trust_study
from hcpr_tune.cli.flags import BUDGET, SEARCH, flag_of
from hcpr_tune.cli.numbers import real, whole
from hcpr_tune.errors import InputError

if TYPE_CHECKING:
    from hcpr_tune.search.record.events.search import ExtendEvent, Request
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import StudyFolder
    from hcpr_tune.search.spec.study import StudySpec

EXTENDING = (*BUDGET, "epochs")
"""Flags that extend a study with --resume: a number, or +N for so much more."""


def overrides_of(options: argparse.Namespace) -> tuple[list[tuple[str, Any]], str]:
    """What the command line lays over the study file, and how it said so."""
    from hcpr_tune.common.settings import check_given_once, parse_assignment, parse_assignments, shorten

    overrides = parse_assignments(options.set, below="recipe.")
    given = [f"--set {shorten(text)}" for text in options.set]
    for flag, dotted in SEARCH.items():
        value = getattr(options, flag, None)
        if value is not None:
            check_given_once([name for name, _ in overrides], dotted)
            overrides.append(parse_assignment(f"{dotted}={value}"))
            given.append(f"{flag_of(flag)} {shorten(str(value))}")
    return overrides, " ".join(given)


@dataclass(frozen=True)
class RunRequest:
    """What is to be run: a study, new or begun before, and the events that come first."""

    folder: StudyFolder
    study: StudySpec
    history: History
    where: str
    """Where the settings stand, for messages."""
    requests: tuple[Request, ...] = ()
    patience: float = 0.0
    """Seconds to wait for a driver that may be dead."""


def run_request(options: argparse.Namespace) -> RunRequest:
    """What the arguments ask for. Raises `InputError`, and then nothing was started or written."""
    if options.go_on:
        return continued_request(options)
    return new_request(options) if options.resume is None else resumed_request(options)


def given_study(options: argparse.Namespace) -> tuple[StudySpec, str, str]:
    """The study of the space and the command line, where it stands, and the name of its space."""
    from hcpr_tune.search.spec.study import find_space, read_study

    overrides, given = overrides_of(options)
    path = find_space("default" if options.space is None else options.space)
    study = read_study(path, overrides, given)
    trust_space(options, path, study)
    return study, f"{path} with {given}" if given else str(path), path.stem


def new_request(options: argparse.Namespace) -> RunRequest:
    """A new study from a space file and the command line."""
    from hcpr_tune.common.files import new_name
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.spec.study import check_reopens
    from hcpr_tune.search.storage.studies import check_new
    from hcpr_tune.search.suggestion.warm_start import warm_start

    for flag in ("epochs", "audit"):
        if getattr(options, flag) is not None:
            more = "; set recipe.epochs in the space, or by --set epochs=N" if flag == "epochs" else ""
            raise InputError(f"--{flag} goes with --resume NAME{more}")
    if options.probe and not options.dry_run:
        raise InputError("--probe goes with --dry-run; a search needs no probe")
    study, where, stem = given_study(options)
    check_reopens(study, where)
    requests = () if options.warm_start is None else (warm_start(Path(options.warm_start), study, time.time()),)
    folder = check_new(options.storage, new_name(stem) if options.name is None else options.name)
    return RunRequest(folder, study, History(study.recipe.epochs, study.goal), where, requests)


def continued_request(options: argparse.Namespace) -> RunRequest:
    """The study `--name`, begun by the space and the command line unless it was begun by them before."""
    from hcpr_tune.search.storage.lease import STALE_SECONDS
    from hcpr_tune.search.storage.studies import budget_of_file, exists, reopen, study_folder
    from hcpr_tune.search.suggestion.warm_start import warm_start

    if options.name is None or options.resume is not None:
        raise InputError(
            "--continue goes with --name NAME and without --resume: it goes on with that study, or begins it"
        )
    if not exists(study_folder(options.storage, options.name)):
        return new_request(options)
    if any(value is not None for value in (options.epochs, options.audit)) or options.probe:
        raise InputError(
            "--epochs, --audit and --probe do not go with --continue; give them with --resume NAME, or --dry-run"
        )
    today, where, _ = given_study(options)
    folder, study, history = reopen(options.storage, options.name, "--continue --name ", today)
    trust_study(options, folder, study, history, named_in_study(today))
    budget = budget_of_file(today, history, study, where)
    # Where this follows a kill, its machine may have died with it: then its heartbeat must first run out.
    request = RunRequest(folder, study, history, where, patience=STALE_SECONDS + 10)
    if options.warm_start is not None and not history.trials and not history.old_trials:
        # It was killed before its record had begun.
        request = replace(request, requests=(warm_start(Path(options.warm_start), study, time.time()),))
    return with_budget(request, budget)


def resumed_request(options: argparse.Namespace) -> RunRequest:
    """A study that was begun before, with what its file and the command line extend it by."""
    from hcpr_tune.search.spec.study import read_study
    from hcpr_tune.search.storage.lease import living_lease_holder, refusal
    from hcpr_tune.search.storage.studies import audit_event, budget_of_file, reopen

    refuse_settings(options)
    folder, study, history = reopen(options.storage, options.resume)
    trust_study(options, folder, study, history)
    holder = living_lease_holder(folder.objects)
    if holder is not None:
        raise refusal(f"--resume {options.resume}: {folder.address}", holder, folder.address)
    request = RunRequest(folder, study, history, str(folder.study))
    request = with_budget(request, budget_of_file(read_study(folder.study), history, study, str(folder.study)))
    request = with_budget(request, extension_of(options, request.study, history))
    if options.audit is not None:
        event = audit_event(request.study, history, positive(options.audit, "--audit"))
        request = replace(request, requests=(*request.requests, event))
    return request


def refuse_settings(options: argparse.Namespace) -> None:
    """With --resume the study says it all."""
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
            "--resume goes on with the study as it was begun; drop --space, --name, --set and the other settings "
            "(--trials, --hours, --worker-hours and --epochs"
            " extend it), or give them all with --continue"
        )


def with_budget(request: RunRequest, budget: dict[str, float]) -> RunRequest:
    """The request with its study extended."""
    from hcpr_tune.search.spec.study import extend

    if not budget:
        return request
    event: ExtendEvent = {"event": "extend", "time": time.time(), "budget": budget}
    return replace(request, study=extend(request.study, budget), requests=(*request.requests, event))


def extension_of(options: argparse.Namespace, study: StudySpec, history: History) -> dict[str, float]:
    """The new budget that the flags ask for, by the budget's keys and `epochs`.

    +N is more than the limit, or than what was spent beyond it.
    """
    from hcpr_tune.common.settings import to_plain

    spent = {"hours": history.seconds / 3600, "worker_hours": history.worker_seconds / 3600}
    limits = {**to_plain(study.settings.budget), "epochs": study.recipe.epochs}
    now = {name: max(limit, spent.get(name, limit)) for name, limit in limits.items()}
    wanted: dict[str, float] = {}
    for flag in EXTENDING:
        text = getattr(options, flag)
        if text is None:
            continue
        option, counted = flag_of(flag), flag in ("trials", "epochs")
        number = whole(option, text) if counted else real(option, text)
        wanted[flag] = now[flag] + number if text.startswith("+") else number
        if flag == "trials" and wanted[flag] < now[flag]:
            raise InputError(
                f"{option} must be at least the {now[flag]} that the study has, got {text}; {option} +10 adds ten"
            )
        if flag in spent and wanted[flag] <= spent[flag] and wanted[flag] != 0:
            raise InputError(
                f"{option} must be above the {spent[flag]:.3g} hours that are spent, or 0 for no limit, got {text}; "
                f"{option} +1 adds an hour"
            )
    return wanted


def positive(text: str, option: str) -> int:
    """A whole number of at least 1 from the command line."""
    return whole(option, text, least=1)
