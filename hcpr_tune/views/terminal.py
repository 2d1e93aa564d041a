"""What is printed while a search runs: one live view on a terminal, plain greppable lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hcpr_tune.search.halving import usual_epochs
from hcpr_tune.search.history import Event, History
from hcpr_tune.search.ledger import ledger
from hcpr_tune.search.results import front, masking_of, rung_accuracies
from hcpr_tune.search.space import Params
from hcpr_tune.search.study import Study
from hcpr_tune.search.worth import FEWEST_POINTS, rung_worths

LEADERS = 5
LOSSES_SHOWN = 3
STATES = {
    "running": "running",
    "stopped": "stopped early",
    "interrupted": "interrupted",
    "completed": "completed",
    "diverged": "diverged",
    "failed": "failed",
    "killed": "killed",
}


def expected_epochs(study: Study) -> int:
    """The epochs that the search takes where each rung promotes exactly its quota."""
    return usual_epochs(study.rules, study.calibration)


def seconds_left(study: Study, history: History) -> float | None:
    """An estimate: the usual number of epochs less those that are done, at their pace, and no more than the budget of time leaves."""
    done = sum(len(trial.epochs) for trial in history.trials.values())
    if not done:
        return None
    running = sum(trial.target - trial.last_epoch for trial in history.running)
    to_begin = study.settings.budget.trials - len(history.trials)
    epochs = max(running, expected_epochs(study) - done) if to_begin > 0 else running
    worker_seconds = sum(trial.seconds for trial in history.trials.values()) / done * epochs
    rules, workers = study.rules, max(1, history.workers)
    in_budget = min(rules.seconds - history.seconds, (rules.worker_seconds - history.worker_seconds) / workers)
    return max(0.0, min(worker_seconds / workers, in_budget))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counts(study: Study, history: History) -> dict[str, int]:
    """How many trials are in which state; a waiting trial is stopped unless it is promoted later."""
    result = dict.fromkeys(STATES, 0)
    for trial in history.trials.values():
        result[trial.state] += 1
    return result | {"suggested": len(history.trials), "budget": study.settings.budget.trials}


def printable(text: str) -> str:
    """Text from a file or an error without what would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def describe(params: Params) -> str:
    """Searched values in one line."""
    short = {name.removeprefix("hcpr."): value for name, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in short.items()
    )


class PlainLines:
    """A line for each rung that is reached and for each trial that ends badly."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study, self._console = study, console

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] in ("loss", "workers"):
            news = f'loss="{printable(event["what"])}"' if event["event"] == "loss" else f"workers={event['workers']}"
            self._console.print(news, soft_wrap=True, markup=False, highlight=False)
        if event["event"] != "job_end":
            return
        trial = history.trials[event["trial"]]
        count = counts(self._study, history)
        left = seconds_left(self._study, history)
        words = [f"trial={trial.number}", f"epoch={trial.last_epoch}", f"status={event['status']}"]
        accuracies = rung_accuracies(trial)
        if event["status"] == "reached" and accuracies:
            last = trial.at_rung(trial.last_rung)
            total = last["total_validation"]
            words += [
                f"robust_accuracy_validation={last['robust_correct_validation'] / total:.4f}",
                f"clean_accuracy_validation={last['clean_correct_validation'] / total:.4f}",
            ]
        else:
            words.append(f'reason="{printable(trial.reason)}"')
        best = history.ranked()
        words.append(
            f"best={best[0].score:.4f}@trial{best[0].number}" if best and best[0].score is not None else "best=none"
        )
        words.append(
            f"trials={count['suggested']}/{count['budget']} running={count['running']} stopped={count['stopped']}"
        )
        words.append(f"elapsed={clock(history.seconds)} left={'?' if left is None else clock(left)}")
        self._console.print(" ".join(words), soft_wrap=True, markup=False, highlight=False)

    def close(self) -> None:
        pass


class LiveView:
    """One calm view that is redrawn in place."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._shown: Snapshot | None = None
        self._cost = 0.0
        self._live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._render)
        self._live.start()

    def on_event(self, event: Event, history: History) -> None:
        # It takes longer as the study grows; it may take a twentieth of the driver's time.
        began = time.monotonic()
        if self._shown is None or began - self._shown.taken >= 20 * self._cost:
            self._shown = snapshot(self._study, history)
            self._cost = time.monotonic() - began

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        if self._shown is None:
            return Text("starting the first trials ...")
        return render(self._shown, time.monotonic() - self._shown.taken)


@dataclass(frozen=True)
class Snapshot:
    """What is shown between two events: built by the thread that changes the history, drawn by another one."""

    seconds: float
    left: float | None
    body: RenderableType
    taken: float


def snapshot(study: Study, history: History) -> Snapshot:
    """The view of a study at this moment."""
    count = counts(study, history)
    words = ", ".join(f"{count[state]} {name}" for state, name in STATES.items() if count[state] or state == "running")
    state = Text(f"{count['suggested']} of {count['budget']} trials: {words}")
    worths = [Text(line, style="dim") for line in rung_lines(study, history)]
    losses = [Text(line, style="yellow") for line in loss_lines(history)]
    body = Group(state, leaderboard(history), running_line(history), *worths, *losses)
    return Snapshot(history.seconds, seconds_left(study, history), body, time.monotonic())


def render(shown: Snapshot, since: float) -> RenderableType:
    """A snapshot with the clocks `since` seconds further on."""
    elapsed = shown.seconds + since
    left = None if shown.left is None else max(0.0, shown.left - since)
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=0.0 if left is None else elapsed / max(elapsed + left, 1e-9), width=40)
    line.add_row(bar, Text(f"elapsed {clock(elapsed)}, about {'?' if left is None else clock(left)} left", style="dim"))
    return Group(line, shown.body)


def leaderboard(history: History) -> Table:
    """The best trials so far, and the published recipe."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for title, width in (("", 4), ("trial", 5), ("epoch", 5)):
        table.add_column(title, justify="right", width=width)
    table.add_column("robust accuracy", width=22)
    table.add_column("clean", width=7)
    table.add_column("values", ratio=1, no_wrap=True, overflow="ellipsis")
    ranked = history.ranked()
    for trial in ranked[:LEADERS] + [trial for trial in ranked[LEADERS:] if trial.number == 0]:
        robust, clean = (rung_accuracies(trial) or {}).values()
        values = "published recipe" if trial.number == 0 else describe(trial.params)
        row = (
            str(ranked.index(trial) + 1),
            str(trial.number),
            str(trial.best_rung),
            str(robust),
            f"{100 * clean.share:.1f} %",
        )
        table.add_row(*row, Text(values), style="green" if trial is ranked[0] else "")
    return table


def loss_lines(history: History) -> list[str]:
    """What was damaged and done again, the latest first, a few of them."""
    lines = [f"LOSS         {printable(what)}" for what in reversed(history.losses[-LOSSES_SHOWN:])]
    more = len(history.losses) - LOSSES_SHOWN
    return lines + ([f"LOSS         and {more} before"] if more > 0 else [])


def running_line(history: History) -> Text:
    """What runs, and how far it is."""
    jobs = [f"trial {trial.number} at epoch {trial.last_epoch} of {trial.target}" for trial in history.running]
    return Text("running: " + (", ".join(jobs) or "nothing"), style="dim")


def rung_lines(study: Study, history: History) -> list[str]:
    """What each rung is worth, in words."""
    least = study.settings.early_stopping.least_worth
    lines = []
    for rung, worth in rung_worths(history, study.rungs).items():
        known = f"rung {rung}: rank correlation with epoch {worth.end.later} {worth.end}"
        if worth.end.rho is None:
            lines.append(
                f"rung {rung}: what it is worth is not known yet ({worth.end.trials} of {FEWEST_POINTS} trials)"
            )
        elif worth.end.rho >= least:
            lines.append(f"{known}; it stops trials")
        elif worth.halves(least):
            lines.append(
                f"{known}, below {least:g} but not certainly so; it stops trials, and promotes them if that turns out to be wrong"
            )
        else:
            lines.append(f"{known}, below {least:g}: it foretells too little and stops nobody")
    return lines


def result_table(study: Study, history: History) -> RenderableType:
    """The answer: the best recipe against the published one, with intervals and what they are worth, and what the rungs were worth."""
    ranked = history.ranked()
    published = history.trials.get(0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "trial", "epoch", "robust accuracy (95 %)", "clean accuracy (95 %)"):
        table.add_column(title, justify="right" if title in ("trial", "epoch") else "left", no_wrap=True)
    best = front(study, history) or ranked[:1]
    rows = [("best" if len(study.settings.objective) == 1 else "front", trial) for trial in best]
    rows += [("published", published)] if published is not None and published not in best[1:] else []
    for title, trial in rows:
        accuracies = rung_accuracies(trial)
        if accuracies is None:
            table.add_row(title, str(trial.number), "-", Text(f"{trial.status}: {printable(trial.reason)}"), "-")
        else:
            robust, clean = accuracies.values()
            table.add_row(title, str(trial.number), str(trial.best_rung), str(robust), str(clean))
    alarms = (masking_of(best[0]) or {}).get("alarms", [])
    warnings = [Text(f"ALARM: the best model may mask its gradients: {alarm}", style="red") for alarm in alarms]
    return Group(table, *warnings, *map(Text, rung_lines(study, history)), Text(result_words(study, history)))


def ledger_lines(study: Study, history: History) -> list[str]:
    """Where the time went, in two lines at most."""
    account = ledger(history, study.rules)
    total = account["total"]
    there = max(1e-9, history.worker_seconds_offered)
    names = {"attack": "attack", "update": "update", "evaluation": "evaluation", "startup": "start-up", "idle": "idle"}
    shares = ", ".join(f"{words} {100 * total[name] / there:.0f} %" for name, words in names.items())
    saved = account["saved_by_halving"]
    lines = [
        f"time         {clock(history.seconds)}; of the workers' time {shares}; early stopping saved about {clock(saved)} of it"
    ]
    audit = account["audit"]
    if audit is not None:
        lines.append(
            f"audit        {audit['better_than_the_best']} of {audit['completed']} stopped trials that were run to the end beat the best,"
            f" by at most {audit['most_points_lost']:.1f} points"
        )
    return lines


def result_words(study: Study, history: History) -> str:
    """What the numbers are, and what they are not."""
    best, published = history.ranked()[0], history.trials[0]
    accuracies = rung_accuracies(best) or {}
    total = accuracies["robust_accuracy_validation"].total
    candidates = sum(bool(trial.rungs) for trial in history.trials.values())
    words = f"On {total} validation images, margin attack."
    short = study.goal.shortfall(best.scores[best.best_rung])
    if short:
        words += f" NO trial reaches the floor of {study.settings.constraints.clean_accuracy:g} clean accuracy; the nearest one lacks {100 * short:.1f} points."
    if len(study.settings.objective) > 1:
        return f"{words} The front holds the trials of {candidates} that no other one beats in both accuracies; they were chosen by these very images."
    if best is published:
        return f"{words} No trial beat the published recipe, which is trial 0 of the {candidates} that the best was chosen from."
    if published.score is not None and best.score is not None:
        words += f" Gain over the published recipe: {100 * (best.score - published.score):+.1f} points."
    return (
        f"{words} The best was chosen from {candidates} trials by these very images, and the published recipe, trial 0, is one of"
        " those: the gain is optimistic."
    )
