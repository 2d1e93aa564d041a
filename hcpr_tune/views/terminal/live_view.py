"""A search on a terminal: the live view while it runs, and the result at its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hcpr_tune.common.keyboard import Keyboard, keys_can_be_read
from hcpr_tune.search.record.answer import answer_of
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.ledger import ledger
from hcpr_tune.search.record.metrics import masking_alarms, rung_accuracies
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.plan_progress import foreseen_line
from hcpr_tune.views.search_progress import STARTING_TRIALS
from hcpr_tune.views.status import alarm_plain, board, study_status
from hcpr_tune.views.summary import alarms, answer_words, gain_at, gain_of, mean_of, rung_lines
from hcpr_tune.views.terminal.layout import Board, View, alarm_lines
from hcpr_tune.views.terminal.leaderboard import columns_of
from hcpr_tune.views.terminal.options import QUIT, BoardOptions
from hcpr_tune.views.terminal.phases import live
from hcpr_tune.views.wording import clock, percent, printable

SHARE, AT_ONCE = 1 / 20, 0.5
"""The share of the driver's time that the live view may take, plus seconds for bursts of events."""


def view_of(study: StudySpec, history: History, alive: bool = True) -> View:
    """The current view of a study; `alive`: whether a search is running."""
    return View(study_status(study, history, alive), columns_of(study.space), board(history, alive))


class BoardScreen:
    """A view that is redrawn in place, with keys where standard input is a terminal and we are in its foreground."""

    def __init__(self, console: Console, quits: str, on_quit: Callable[[], None], waiting: str = "") -> None:
        """`quits`: what the key q does, in a word, and `on_quit` does it; `waiting`: shown before the first view."""
        self._console, self._on_quit, self._waiting = console, on_quit, waiting
        self._options, self._began = BoardOptions(), time.monotonic()
        # Made by the thread that changes the history, drawn by another one.
        self._shown: tuple[View | None, float] = (None, self._began)
        self._live = live(console, self.drawn)
        self._live.start()
        self._keyboard = Keyboard(self._pressed) if keys_can_be_read() else None
        self._quits = "" if self._keyboard is None else quits

    def show(self, view: View) -> None:
        """Draw this from now on."""
        self._shown = view, time.monotonic()

    def close(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
        self._live.stop()

    def _pressed(self, key: str) -> None:
        if key.lower() == QUIT:
            self._on_quit()
            return
        view, _ = self._shown
        if view is not None:
            names = [column.name for column in view.columns]
            shown = Board(replace(view, options=self._options), self._console.width).shown_names
            self._options = self._options.after(key, names, shown)
            self._live.refresh()

    def drawn(self) -> RenderableType:
        """What is drawn now."""
        view, taken = self._shown
        passed = time.monotonic() - taken
        if view is None:
            return Text(f"{self._waiting} {clock(passed)}", "dim", no_wrap=True, overflow="ellipsis")
        since = view.since + passed
        return replace(view, since=since, bounded=True, options=self._options, quits=self._quits)


def interrupt_this_process() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


class LiveView:
    """A listener that shows the search in place."""

    def __init__(self, study: StudySpec, console: Console, history: History | None = None) -> None:
        self._study, self._began, self._spent = study, time.monotonic(), 0.0
        waiting = f"{STARTING_TRIALS.what} (usually {STARTING_TRIALS.usual}) ..."
        self.screen = BoardScreen(console, "stop", interrupt_this_process, waiting)
        if history is not None and history.trials:
            self.screen.show(view_of(study, history))

    def on_event(self, event: Event, history: History) -> None:
        # This takes longer as the study grows. The allowance lets a burst of events be shown to its end, as the next
        # event may take long to come.
        began = time.monotonic()
        if self._spent <= SHARE * (began - self._began) + AT_ONCE:
            self.screen.show(view_of(self._study, history))
            self._spent += time.monotonic() - began

    def close(self) -> None:
        self.screen.close()


def result_table(study: StudySpec, history: History) -> RenderableType:
    """The result: the best recipe compared with the published one, caveats, and the rungs' rank correlations."""
    best = history.best_trials or history.ranked()[:1]
    table = answer_table(history) or best_table(study, history)
    masking = masking_alarms(best[0])
    words = [f"ALARM: the best model may mask its gradients: {printable(alarm)}" for alarm in masking]
    lost = [alarm_plain(alarm) for alarm in alarms(study, history) if alarm.kind in ("diverged", "failed")]
    warnings = [*(Text(line, style="red") for line in words), *alarm_lines(lost, len(lost))]
    return Group(table, *warnings, *map(Text, rung_lines(study, history)), Text(result_words(study, history)))


def _table(*titles: str) -> Table:
    """A table without lines, its numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify = "right" if title in ("trial", "epoch", "seeds") else "left"
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # a plain string
    return table


def answer_table(history: History) -> Table | None:
    """The chosen recipe and the published one, means over the fresh seeds that did not collapse; None before that."""
    found = answer_of(history)
    if found is None:
        return None
    table = _table("", "trial", "seeds", "robust accuracy (95 %)", "clean accuracy")
    rows = [("published", 0, found.published)]
    if not found.chosen.single_schedule:
        rows.insert(0, ("best", found.chosen.number, found.replicates))
    for title, number, replicates in rows:
        mean = mean_of(replicates)
        if mean is None:
            table.add_row(title, str(number), "0", "all collapsed or lost", "-")
            continue
        seeds = f"{mean.seeds}" if mean.seeds == len(replicates) else f"{mean.seeds} of {len(replicates)}"
        table.add_row(title, str(number), seeds, mean.words, percent(mean.clean))
    return table


def best_table(study: StudySpec, history: History) -> Table:
    """The best trial, or the front, and the published recipe, each at its best rung."""
    published = history.trials.get(0)
    table = _table("", "trial", "epoch", "robust accuracy (95 %)", "clean accuracy (95 %)")
    best = history.best_trials or history.ranked()[:1]
    rows = [("best" if len(study.settings.objective) == 1 else "front", trial) for trial in best]
    rows += [("published", published)] if published is not None and published not in best[1:] else []
    for title, trial in rows:
        accuracies = rung_accuracies(trial)
        if accuracies is None:
            table.add_row(title, str(trial.number), "-", Text(f"{trial.state}: {printable(trial.reason)}"), "-")
        else:
            robust, clean = accuracies.values()
            table.add_row(title, str(trial.number), str(trial.best_rung), str(robust), str(clean))
    return table


def ledger_lines(study: StudySpec, history: History) -> list[str]:
    """Where the time went, and how that compares with the plan, in at most three lines."""
    account = ledger(history, study.asha_config)
    total = account["total"]
    there = max(1e-9, history.worker_seconds_offered)
    names = {"attack": "attack", "update": "update", "evaluation": "evaluation", "startup": "start-up", "idle": "idle"}
    shares = ", ".join(f"{words} {100 * total[name] / there:.0f} %" for name, words in names.items())
    saved = account["saved_by_halving"]
    lines = [
        f"time         {clock(history.seconds)}; of the workers' time {shares}; early stopping saved about"
        f" {clock(saved)} of it"
    ]
    audit = account["audit"]
    if audit is not None:
        lines.append(
            f"audit        {audit['better_than_the_best']} of {audit['completed']} stopped trials that were run to the"
            f" end beat the best, by at most {audit['most_points_lost']:.1f} points"
        )
    foreseen = foreseen_line(study, history)
    return [*lines, foreseen] if foreseen else lines


def result_words(study: StudySpec, history: History) -> str:
    """The conditions and the caveats of the numbers."""
    best, published = history.best_trial, history.trials[0]
    assert best is not None
    accuracies = rung_accuracies(best) or {}
    total = accuracies["robust_accuracy_validation"].total
    candidates = history.candidates
    words = f"On {total} validation images, margin attack."
    short = study.goal.shortfall(best.scores[best.best_rung])
    if short:
        words += (
            f" NO trial reaches the floor of {study.settings.constraints.clean_accuracy:g} clean accuracy; the"
            f" nearest one lacks {100 * short:.1f} points."
        )
    if len(study.settings.objective) > 1:
        return (
            f"{words} The front holds the trials of {candidates} that no other one beats in both accuracies; they were"
            " chosen by these same images."
        )
    if again := answer_words(history):
        return (
            f"{words} {again} These images chose it among {candidates} trials; the full verdict asks other seeds,"
            " stronger attacks, and the test images."
        )
    if best is published:
        return (
            f"{words} No trial beat the published recipe, which is trial 0 of the {candidates} that the best was chosen"
            " from."
        )
    words += gain_sentence(history)
    words += f" The best was chosen from {candidates} trials by these same images"
    if published.score is None:
        return f"{words}: its accuracy is optimistic. The published recipe, trial 0, has no score to compare it with."
    return f"{words}, and the published recipe, trial 0, is one of those: the gain is optimistic."


def gain_sentence(history: History) -> str:
    """The gain as the answer if both recipes have reached the last rung, else how the two scores compare so far."""
    gain, best = gain_of(history), history.best_trial
    if gain is None or best is None:
        return ""
    words = gain_at(gain.points, gain.epoch, gain.published_epoch)
    if gain.final:
        return f" Gain: {words}."
    return (
        f" So far trial {best.number} has {words}; only at the last rung, epoch {history.last_epoch}, is it an answer."
    )
