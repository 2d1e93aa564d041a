"""A study's status laid out for a terminal of any width and height."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hcpr_tune.search.scheduling.rung_correlation import FEWEST_POINTS
from hcpr_tune.views.status import TRIAL_STATES, Plain
from hcpr_tune.views.summary import gain_at
from hcpr_tune.views.terminal.leaderboard import Column, Frame, board_lines, legend, mark
from hcpr_tune.views.terminal.options import AT_FIRST, BoardOptions, choosing_lines, keys_line
from hcpr_tune.views.wording import clock, printable

BAR_WIDTH, LABEL_WIDTH = 40, 13
SO_FAR = "gain so far"
"""The label of a gain that is no answer yet."""
STARTING = "starting"
"""Shown for a worker that has not reported yet."""
FIRST_START = f"{STARTING}: imports torch, reads data"
"""The same before any worker has reported."""


@dataclass(frozen=True)
class View:
    """A status from `since` seconds ago; its clocks run on.

    `rows`: the trials of the board in each order; `heading`: lines above all; `quits`: what the key q does, empty where
    no keys are read. If `bounded` to the terminal's height, less important lines are left out and long ones cut off;
    otherwise long lines are wrapped.
    """

    study_status: Plain
    columns: tuple[Column, ...]
    rows: Mapping[str, list[Plain]] = field(default_factory=dict)
    since: float = 0.0
    bounded: bool = False
    options: BoardOptions = AT_FIRST
    heading: tuple[str, ...] = ()
    quits: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        board = Board(self, width)
        lines = [*(Text(printable(line)) for line in self.heading), *head_lines(self.study_status)]
        # One line is for the clock; one stays free, as a full screen would scroll.
        room = options.max_height - len(lines) - 2 if self.bounded else 10**6
        keys = board.keys if room > 1 else None
        room -= keys is not None
        if self.options.cursor is not None:
            lines += choosing_lines(self.options, board.names, board.shown_names, room) if room > 0 else []
        else:
            wanted = [len(part.draw(board, part.most)) for part in PARTS]
            for part, most in zip(PARTS, allotted(wanted, room), strict=True):
                lines += part.draw(board, most) if most else []
        lines += [keys] if keys is not None else []
        yield time_line(self.study_status, self.since, width)
        for line in lines if self.bounded else folded(lines, width):
            line.no_wrap, line.overflow = True, "ellipsis"
            yield line


@dataclass(frozen=True)
class Board:
    """A view on a terminal `width` wide."""

    view: View
    width: int

    @property
    def status(self) -> Plain:
        return self.view.study_status

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.view.columns]

    @property
    def frame(self) -> Frame:
        return Frame(self.width, self.status["rungs"][-1])

    @cached_property
    def shown(self) -> list[Column]:
        """The dimensions that are shown."""
        return self.frame.fitting(self.view.columns, self.view.options.chosen)

    @property
    def shown_names(self) -> list[str]:
        return [column.name for column in self.shown]

    @property
    def trials(self) -> list[Plain]:
        """The trials in their order."""
        return self.view.rows.get(self.view.options.sort, [])

    @property
    def keys(self) -> Text | None:
        """What the keys do and the marks mean; None where there is nothing to say."""
        marks = legend({mark(trial) for trial in self.trials})
        line = keys_line(self.view.options, len(self.shown), len(self.names), self.view.quits, marks)
        return line if line.plain and (self.trials or self.view.quits) else None

    def trial_lines(self, most: int) -> list[Text]:
        best = self.status["best"]
        return board_lines(self.trials, self.shown, self.frame, most, None if best is None else best["trial"])


def folded(lines: Sequence[Text], width: int) -> Iterator[Text]:
    """Wrap long lines, indented below their label; tables are narrow enough."""
    wrapper = textwrap.TextWrapper(max(width, 2 * LABEL_WIDTH), subsequent_indent=" " * LABEL_WIDTH)
    for line in lines:
        parts = wrapper.wrap(line.plain) if len(line.plain) > width else [line.plain]
        yield from (Text(part, style=line.style) for part in parts)


def time_line(study_status: Plain, since: float, width: int) -> Table:
    """A progress bar, with the elapsed and the remaining time. It is full only where nothing is left to do."""
    running = study_status["share_done"] is None
    elapsed, left = study_status["seconds"] + since * running, study_status["seconds_left"]
    left = None if left is None else max(0.0, left - since)
    words = f"elapsed {clock(elapsed)}"
    if running:
        words += f", about {'?' if left is None else clock(left)} left"
    space = max(1, min(BAR_WIDTH, width - len(words) - 2))
    if running:
        share = 0.0 if left is None else elapsed / max(elapsed + left, 1e-9)
        share = min(share, 1 - 1 / (2 * space))  # the smallest part that is drawn
    else:
        share = study_status["share_done"]
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=share, width=space)
    line.add_row(bar, Text(words, style="dim", no_wrap=True, overflow="ellipsis"))
    return line


def head_lines(study_status: Plain) -> list[Text]:
    """The number of trials in each state, the gain, and the front."""
    count, objectives = study_status["trials"], study_status["objective"]
    words = ", ".join(f"{count[state]} {state}" for state in TRIAL_STATES if count[state] or state == "running")
    again = f", {count['replicates']} trained again" if count["replicates"] else ""
    lines = [Text(f"{count['suggested']} of {count['budget']} trials: {words}{again}"), gain_line(study_status)]
    if len(objectives) > 1:
        front, scored = len(study_status["front"]), study_status["chosen_from"]
        lines.append(labelled("front", f"{front} of {scored} trials with a score: no other trial beats them in both"))
    return lines


def gain_line(study_status: Plain) -> Text:
    """The gain over the published recipe with its epochs; a `SO_FAR` one is no answer yet."""
    gain, best = study_status["gain_points"], study_status["best"]
    if best is None:
        return labelled("gain", "not known: no trial has reached a rung")
    if gain is None:
        yet = " yet" if study_status["share_done"] is None else ""
        return labelled("gain", f"not known{yet}: the published recipe, trial 0, has no score")
    at, published_at = study_status["gain_at_epoch"], study_status["gain_published_at_epoch"]
    label = "gain" if study_status["gain_is_final"] else SO_FAR
    if best["trial"] == 0:
        return labelled(label, f"none: the published recipe, trial 0, is the best, at epoch {at}")
    words = gain_at(gain, at, published_at)
    if not study_status["gain_is_final"]:
        return labelled(label, words)
    how = "on the same fresh seeds" if study_status["gain_is_of_fresh_seeds"] else "optimistic"
    return labelled("gain", f"{words}, {how}", "bold" if len(study_status["objective"]) == 1 else "")


def labelled(label: str, words: str, style: str = "") -> Text:
    """A line with its label in front."""
    return Text(f"{label:<{LABEL_WIDTH}}{words}", style=style)


def running_lines(jobs: list[Plain], most: int) -> list[Text]:
    """What runs where: a line for each trial, or for each host if there are too many trials."""
    starting = STARTING if any(job["worker"] for job in jobs) else FIRST_START
    if len(jobs) <= most:
        texts = [
            f"trial {job['trial']:<5} epoch {job['epoch']} of {job['target']:<5} "
            + printable(job["worker"] or starting)
            for job in jobs
        ]
    else:
        hosts: dict[str, list[Plain]] = {}
        for job in jobs:
            hosts.setdefault(printable((job["worker"] or "").rpartition(":")[0] or STARTING), []).append(job)
        names = sorted(hosts)
        texts = [f"{name}: {host_words(hosts[name])}" for name in names]
        if len(names) > most:
            left = sum(len(hosts[name]) for name in names[most - 1 :])
            known = sum(name != STARTING for name in names)
            texts[most - 1 :] = [f"{left} more trials" if most > 1 else f"{left} trials on {known} hosts"]
    return [labelled("" if index else "running", text, "dim") for index, text in enumerate(texts)]


def host_words(jobs: list[Plain]) -> str:
    """The trials that run on one host."""
    epochs = ", ".join(f"{job['trial']} at {job['epoch']}/{job['target']}" for job in jobs)
    return f"{len(jobs)} {'trials' if len(jobs) > 1 else 'trial'}, {epochs}"


def rung_lines(study_status: Plain, most: int) -> list[Text]:
    """The trials that reached and stopped at each rung, and its rank correlation."""
    correlations, stopped = study_status["rank_correlations"], study_status["stopped_at"]
    if not correlations["rungs"]:
        return []
    lines = [labelled("rung", f"{'trials':>6} {'stopped':>8}  rank correlation with a later epoch", "dim")]
    for rung in correlations["rungs"]:
        counted = f"{rung['trials']:>6} {stopped.get(str(rung['epoch']), 0):>8}"
        words = f"{counted}  {rung_correlation_words(rung, correlations['min_rank_correlation'])}"
        lines.append(labelled(f"epoch {rung['epoch']}", words, "dim"))
    if len(lines) > most > 2:
        lines[most - 1 :] = [labelled("", f"and {len(lines) - most + 1} more rungs", "dim")]
    return lines[:most]


def rung_correlation_words(rung: Plain, least: float) -> str:
    """A rung's rank correlation, and what follows from it."""
    end = rung["with_end"]
    rho = end["rank_correlation"]
    if rho is None and end["seen"] is not None:
        return f"not known, little but noise at {end['later']}: stops trials"
    if rho is None:
        return f"not known yet ({end['trials']} of {FEWEST_POINTS} trials)"
    follows = "stops no trials" if not rung["stops"] else "stops trials" if rho >= least else "stops trials for now"
    return f"{rho:.2f} ({end['low_95']:.2f} to {end['high_95']:.2f}) at {end['later']}: {follows}"


def alarm_lines(alarms: list[Plain], most: int) -> list[Text]:
    """Alarms, a line for each kind."""
    kinds: dict[str, list[Plain]] = {}
    for alarm in alarms:
        kinds.setdefault(alarm["kind"], []).append(alarm)
    return [labelled("ALARM", printable(alarm_words(alike)), "red") for alike in kinds.values()][:most]


def alarm_words(alarms: list[Plain]) -> str:
    """One kind of alarm in a line."""
    first = max(alarms, key=lambda alarm: len(alarm["trials"]))
    if len(alarms) == 1:
        return str(first["words"])
    trials = len({trial for alarm in alarms for trial in alarm["trials"]})
    if first["kind"] == "masking":
        if trials == 1:
            return f"{first['words']}; and {len(alarms) - 1} more signs"
        return f"{trials} trials may mask their gradients, the best of them is trial {alarms[0]['trials'][0]}"
    return f"{trials} trials {first['kind']}, for {len(alarms)} reasons: {first['words'].partition(': ')[2]}"


def loss_lines(losses: Sequence[str], most: int = 4) -> list[str]:
    """What was damaged and done again, the latest first, in at most `most` lines."""
    shown = len(losses) if len(losses) <= most else max(1, most - 1)
    words = [printable(what) for what in losses[::-1][:shown]]
    more = len(losses) - shown
    words += [f"and {more} before"] if more and most > 1 else []
    return [f"{'LOSS':<{LABEL_WIDTH}}{what}" for what in words]


class Part(NamedTuple):
    """A part of the view. `draw(board, most)` returns at most `most` lines.

    If it has enough lines, it first gets `least` of them, then `usual`, then `most`.
    """

    draw: Callable[[Board, int], list[Text]]
    least: int
    usual: int
    most: int


PARTS = (
    Part(lambda board, most: board.trial_lines(most), 4, 8, 13),
    Part(lambda board, most: alarm_lines(board.status["alarms"], most), 1, 3, 4),
    Part(lambda board, most: running_lines(board.status["running"], most), 1, 4, 8),
    Part(lambda board, most: rung_lines(board.status, most), 2, 4, 8),
    Part(lambda board, most: [Text(line, "yellow") for line in loss_lines(board.status["losses"], most)], 1, 2, 4),
)


def allotted(wanted: Sequence[int], room: int) -> list[int]:
    """The number of lines for each part: at each level, earlier parts come first."""
    given = [0] * len(PARTS)
    for level in ("least", "usual", "most"):
        for index, part in enumerate(PARTS):
            more = min(wanted[index], getattr(part, level)) - given[index]
            given[index] += max(0, min(more, room - sum(given)))
    return given
