"""What `hcpr_tune tune` prints: where to look, the search as it goes, and the answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.paths import there
from hcpr_tune.common.shell import command, option, quoted, typed
from hcpr_tune.views.search_progress import Phase, SearchProgress, SearchStart
from hcpr_tune.views.terminal.console import make_console, print_lines, print_notes

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.record import Listener
    from hcpr_tune.search.record.results import StoredStudy, StudyFolder
    from hcpr_tune.views.terminal.phases import Phases


class TerminalProgress(SearchProgress):
    """Prints a search or a verdict on a console: a live view, plain lines where that cannot be, or JSON lines."""

    def __init__(self, console: Console, quiet: bool = False, json: bool = False) -> None:
        self._console, self._quiet, self._json = console, quiet, json
        self._phases: Phases | None = None

    def phase(self, phase: Phase) -> None:
        from hcpr_tune.views.terminal.phases import Phases

        if not self._quiet and not self._json:
            self._phases = self._phases or Phases(self._console)
            self._phases.begin(phase)

    def close(self) -> None:
        if self._phases is not None:
            self._phases.end()

    def planned(self, study: StoredStudy) -> None:
        if not self._quiet and not self._json:
            print_plan(self._console, study)

    def notes(self, notes: Iterable[str]) -> None:
        print_notes(notes)

    def started(self, study: StoredStudy, start: SearchStart) -> None:
        if not self._quiet:
            print_start(self._console, study, start, self._json)

    def listeners(self, study: StoredStudy) -> list[Listener]:
        from hcpr_tune.views.terminal.event_log import JsonLines, PlainLines
        from hcpr_tune.views.terminal.live_view import LiveView
        from hcpr_tune.views.terminal.phases import is_live

        self.close()
        _, spec, history = study
        if self._quiet:
            return []
        if self._json:
            return [JsonLines(spec, self._console, history)]
        return [(LiveView if is_live(self._console) else PlainLines)(spec, self._console, history)]

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


def print_plan(console: Console, study: StoredStudy) -> None:
    """What is to be searched, where to look, and what was lost before, before anything is started."""
    from hcpr_tune.views.forecast import budget_words

    folder, spec, history = study
    task, rungs = spec.recipe.task, ", ".join(map(str, spec.rungs))
    lines = [
        f"study        {folder.address}" + ("" if folder.bucket is None else f" (a copy for you in {folder.root})"),
        f"task         {task.dataset}, epsilon {task.epsilon:g}, {len(spec.space)} searched dimensions",
        f"budget       {budget_words(spec)}, rungs at epochs {rungs}",
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


def print_start(console: Console, study: StoredStudy, start: SearchStart, json: bool = False) -> None:
    """What is known once Ray is there: the workers, what the search may take of the disk, the dashboard."""
    from hcpr_tune.views.forecast import disk_words
    from hcpr_tune.views.terminal.event_log import start_news, tell

    _, spec, history = study
    if json:
        size = start.checkpoint_bytes
        tell(console, start_news(study, start.workers, size, start.dashboard_url))
        return
    lines = [
        f"workers      {start.workers} at once",
        f"disk         {disk_words(spec, history, start.workers, start.checkpoint_bytes)}",
        f"dashboard    {start.dashboard_url or 'none'}",
        *token_lines(start),
    ]
    print_lines(console, lines)


def token_lines(start: SearchStart) -> list[str]:
    """How to get into the dashboard: Ray protects what it starts here by a token."""
    if not start.dashboard_url or not start.own_ray:
        return []
    shows = f"{typed('ray')} get-auth-token" if start.token is None else f"cat {quoted(start.token)}"
    return [f"token        {shows}"]


def best_words(history: History) -> str:
    """The best score so far."""
    best = history.best_trial
    return "none yet" if best is None else f"{100 * (best.score or 0.0):.1f} % by trial {best.number}"


def print_json_result(console: Console, study: StoredStudy, code: int, interrupted: bool) -> None:
    """The answer for programs."""
    from hcpr_tune.views.terminal.event_log import result_news, tell

    tell(console, result_news(study, code, interrupted))


def print_result(console: Console, study: StoredStudy, report: str, more: Sequence[str] = ()) -> None:
    """The answer and the files. `report`: where the report is, or how to get one; `more`: options of further work."""
    from hcpr_tune.search.scheduling.asha import LOST_AT_ONCE, hopeless, over_budget
    from hcpr_tune.views.forecast import budget_words
    from hcpr_tune.views.next_commands import about, way_on
    from hcpr_tune.views.terminal.layout import loss_lines
    from hcpr_tune.views.terminal.live_view import ledger_lines, result_table

    folder, spec, history = study
    if history.best_trial is None:
        reason = hopeless(history)
        given_up = f" The search was given up after {LOST_AT_ONCE} trials lost in the same way." if reason else ""
        reasons = reason or "; ".join(sorted({trial.reason for trial in history.trials.values() if trial.reason}))
        words = f"No trial reached its first rung{': ' + reasons if reasons else ''}.{given_up} See {folder.table}."
        print_lines(console, [words, *([f"mend, go on  {about('tune --resume', folder, *more)}"] if reason else [])])
        return
    console.print(result_table(spec, history))
    if over_budget(history, spec.asha_config):
        on = way_on(study, "out of time", typed(), *more)
        print_lines(console, [f"the budget of time is spent: {budget_words(spec)}", f"go on        {on}"])
    lines = (
        *ledger_lines(spec, history),
        *loss_lines(history.losses),
        f"best recipe  {folder.best / 'recipe.toml'} ({beside_best(folder)})",
        f"all trials   {folder.table}",
        f"report       {report}",
        f"train again  {command('train', option('--recipe', folder.best / 'recipe.toml'))}",
    )
    print_lines(console, lines)


def print_verdict(
    console: Console,
    study: StoredStudy,
    verdict: dict[str, Any] | None,
    no_verdict: str = "",
    more: Sequence[str] = (),
) -> None:
    """The small verdict at the end of the search or why there is none, and the command for a full one if a trial can be
    a finalist; `more`: its options.
    """
    from hcpr_tune.views.next_commands import about
    from hcpr_tune.views.verdicts import verdict_lines

    if verdict is not None:
        print_lines(console, ["", *verdict_lines(verdict)])
    elif no_verdict:
        print_lines(console, [f"verdict      none: {no_verdict}"])
    if any(trial.status == "completed" for trial in study.history.trials.values()):
        print_lines(console, [f"full verdict {about('verdict', study.folder, *more)}"])


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
