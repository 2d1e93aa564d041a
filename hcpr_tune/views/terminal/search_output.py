"""What `hcpr_tune tune` prints: where to look, the search as it goes, and the answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, typed
from hcpr_tune.views.search_progress import SearchProgress, SearchStart
from hcpr_tune.views.terminal.console import make_console, print_lines, print_notes

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.record import Listener
    from hcpr_tune.search.record.results import StoredStudy, StudyFolder


class TerminalProgress(SearchProgress):
    """Prints a search or a verdict on a console: a live view, plain lines where that cannot be, or JSON lines."""

    def __init__(self, console: Console, quiet: bool = False, json: bool = False) -> None:
        self._console, self._quiet, self._json = console, quiet, json

    def notes(self, notes: Iterable[str]) -> None:
        print_notes(notes)

    def started(self, study: StoredStudy, start: SearchStart) -> None:
        if not self._quiet:
            print_start(self._console, study, start, self._json)

    def listeners(self, study: StoredStudy) -> list[Listener]:
        from hcpr_tune.views.terminal.event_log import JsonLines, PlainLines
        from hcpr_tune.views.terminal.live_view import LiveView

        _, spec, history = study
        if self._quiet:
            return []
        if self._json:
            return [JsonLines(spec, self._console, history)]
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        return [(LiveView if live else PlainLines)(spec, self._console, history)]

    def message(self, line: str) -> None:
        if not self._quiet and not self._json:
            print_lines(self._console, [line])

    def verdict_event(self, event: dict[str, Any]) -> None:
        from hcpr_tune.views.terminal.event_log import tell

        if self._json:
            tell(self._console, event)
        elif not self._quiet:
            print_lines(self._console, [verdict_event_words(event)])


def progress_of(quiet: bool | None) -> SearchProgress:
    """For a program that calls us: what it sees on its standard output, only notes on the data if `quiet`.

    None: a progress bar in a notebook, and `quiet` elsewhere.
    """
    console = make_console()
    if quiet is None and console.is_jupyter:
        from hcpr_tune.views.notebook import NotebookProgress

        return NotebookProgress()
    return TerminalProgress(console, quiet is not False)


def print_start(console: Console, study: StoredStudy, start: SearchStart, json: bool = False) -> None:
    """The addresses to look at, what it may take of the disk, and what was lost before, before anything runs."""
    from hcpr_tune.views.forecast import budget_words, disk_words
    from hcpr_tune.views.terminal.event_log import start_news, tell

    folder, spec, history = study
    if json:
        size = start.checkpoint_bytes
        tell(console, start_news(study, start.workers, size, start.dashboard_url))
        return
    task, rungs = spec.recipe.task, ", ".join(map(str, spec.rungs))
    lines = [
        f"study        {folder.address}" + ("" if folder.bucket is None else f" (a copy for you in {folder.root})"),
        f"task         {task.dataset}, epsilon {task.epsilon:g}, {len(spec.space)} searched dimensions",
        f"budget       {budget_words(spec)}, rungs at epochs {rungs}, {start.workers} at once",
        f"disk         {disk_words(spec, history, start.workers, start.checkpoint_bytes)}",
        f"dashboard    {dashboard_words(start)}",
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


def dashboard_words(start: SearchStart) -> str:
    """The dashboard's address, and how to get in: Ray protects what it starts here by a token."""
    where = f"that `{typed('ray')} get-auth-token` prints" if start.token is None else f"in {start.token}"
    token = f" (it asks for the token {where})" if start.dashboard_url and start.own_ray else ""
    return (start.dashboard_url or "none") + token


def best_words(history: History) -> str:
    """The best score so far."""
    best = history.best_trial
    return "none yet" if best is None else f"{100 * (best.score or 0.0):.1f} % by trial {best.number}"


def print_json_result(console: Console, study: StoredStudy, code: int, interrupted: bool) -> None:
    """The answer for programs."""
    from hcpr_tune.views.terminal.event_log import result_news, tell

    tell(console, result_news(study, code, interrupted))


def print_result(console: Console, study: StoredStudy, report: str) -> None:
    """The answer and the files. `report`: where the report is, or how to get one."""
    from hcpr_tune.search.scheduling.asha import LOST_AT_ONCE, hopeless, over_budget
    from hcpr_tune.views.forecast import budget_words
    from hcpr_tune.views.next_commands import about, way_on
    from hcpr_tune.views.terminal.layout import loss_lines
    from hcpr_tune.views.terminal.live_view import ledger_lines, result_table

    folder, spec, history = study
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
    console.print(result_table(spec, history))
    if over_budget(history, spec.asha_config):
        more = f"{way_on(study, 'out of time', typed('hcpr_tune'))} goes on"
        print_lines(console, [f"the budget of time is spent: {budget_words(spec)}; {more}"])
    lines = (
        *ledger_lines(spec, history),
        *loss_lines(history.losses),
        f"best recipe  {folder.best / 'recipe.toml'} ({beside_best(folder)})",
        f"all trials   {folder.table}",
        f"report       {report}",
        f"train again  {command('train', option('--recipe', folder.best / 'recipe.toml'))}",
    )
    print_lines(console, lines)


def print_verdict(console: Console, study: StoredStudy, verdict: dict[str, Any] | None, no_verdict: str = "") -> None:
    """The small verdict at the end of the search or why there is none, and the command for a full one if a trial can be
    a finalist.
    """
    from hcpr_tune.views.next_commands import about
    from hcpr_tune.views.verdicts import verdict_lines

    if verdict is not None:
        print_lines(console, ["", *verdict_lines(verdict)])
    elif no_verdict:
        print_lines(console, [f"verdict      none: {no_verdict}"])
    if any(trial.status == "completed" for trial in study.history.trials.values()):
        print_lines(console, [f"full verdict {about('verdict', study.folder)}"])


def beside_best(folder: StudyFolder) -> str:
    """What is next to the best recipe."""
    if there(folder.best / "model.safetensors"):
        return "weights and metrics beside it"
    return "metrics beside it; its weights were lost: train it again"


def verdict_event_words(event: dict[str, Any]) -> str:
    """A step of a verdict in one line."""
    clock = time.strftime("%H:%M:%S")
    if event["news"] == "test_access":
        return f"{clock} access {event['number']} to the test images begins; it is noted in the study's record"
    who = f"{event['candidate']}, seed {event['seed']}"
    if event["news"] == "trouble":
        return f"{clock} TROUBLE   {who}: {event['what']}"
    share = event["robust_accuracy"]
    robust = "no rung" if share is None else f"{100 * share:.1f} %"
    if event["news"] == "trained":
        return f"{clock} trained   {who}: {robust} under the search's attack"
    return f"{clock} attacked  {who}: {robust} of {event['images']} {event['split']} images survive"
