"""What is printed while a search runs: one live view on a terminal, plain greppable lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hcpr_tune.search.halving import usual_epochs
from hcpr_tune.search.record import Event, History, Trial
from hcpr_tune.search.results import rung_accuracies
from hcpr_tune.search.study import Study

LEADERS = 5


class SearchView(Protocol):
    """A listener that shows the search."""

    def on_event(self, event: Event, history: History) -> None: ...

    def close(self) -> None: ...


def expected_epochs(study: Study) -> int:
    """The epochs that the search takes where each rung promotes exactly its quota."""
    settings = study.settings
    return usual_epochs(study.rungs, settings.early_stopping.reduction_factor, settings.budget.trials)


def seconds_left(study: Study, history: History) -> float | None:
    """An estimate from the epochs so far; None before the first one."""
    done = sum(len(trial.epochs) for trial in history.trials.values())
    if not done:
        return None
    # While a search is young its promotions are not made yet; it never has fewer epochs left than its running jobs.
    running = sum(trial.target - trial.last_epoch for trial in history.running)
    left = max(expected_epochs(study) - done, running)
    return left * history.seconds / done


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counts(study: Study, history: History) -> dict[str, int]:
    """How many trials are in which state; a waiting trial is stopped unless it is promoted later."""
    result = {"running": 0, "stopped": 0, "completed": 0, "diverged": 0, "failed": 0}
    for trial in history.trials.values():
        result["stopped" if trial.status == "waiting" else trial.status] += 1
    return result | {"suggested": len(history.trials), "budget": study.settings.budget.trials}


def describe(params: dict[str, object]) -> str:
    """Searched values in one line."""
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items())


class PlainLines:
    """A line for each rung that is reached, each trial that ends badly, and each minute of progress."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study, self._console = study, console

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] != "job_end":
            return
        trial = history.trials[event["trial"]]
        count = counts(self._study, history)
        left = seconds_left(self._study, history)
        words = [f"trial={trial.number}", f"epoch={trial.last_epoch}", f"status={trial.status}"]
        accuracies = rung_accuracies(trial)
        if event["status"] == "reached" and accuracies:
            last = trial.epochs[trial.last_rung]
            total = last["total_validation"]
            words += [
                f"robust_accuracy_validation={last['robust_correct_validation'] / total:.4f}",
                f"clean_accuracy_validation={last['clean_correct_validation'] / total:.4f}",
            ]
        else:
            words.append(f'reason="{trial.reason}"')
        best = history.ranked()
        words.append(f"best={best[0].score:.4f}@trial{best[0].number}" if best and best[0].score is not None else "best=none")
        words.append(f"trials={count['suggested']}/{count['budget']} running={count['running']} stopped={count['stopped']}")
        words.append(f"elapsed={clock(history.seconds)} left={'?' if left is None else clock(left)}")
        self._console.print(" ".join(words), soft_wrap=True, markup=False, highlight=False)

    def close(self) -> None:
        pass


class LiveView:
    """One calm view that is redrawn in place."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._history: History | None = None
        self._seen = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._render)
        self._live.start()

    def on_event(self, event: Event, history: History) -> None:
        self._history, self._seen = history, time.monotonic()

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        if self._history is None:
            return Text("starting the first trials ...")
        return render(self._study, self._history, time.monotonic() - self._seen)


def render(study: Study, history: History, since_event: float = 0.0) -> RenderableType:
    """The view of a study at one moment."""
    # The drawing thread reads while the driver may add a trial.
    trials = list(history.trials.values())
    done = sum(len(trial.epochs) for trial in trials)
    count, left = counts(study, history), seconds_left(study, history)
    shown_left = "?" if left is None else clock(max(0.0, left - since_event))
    bar = ProgressBar(total=max(expected_epochs(study), done), completed=done, width=40)
    state = Text(
        f"{count['suggested']}/{count['budget']} trials: {count['running']} running, {count['stopped']} stopped early,"
        f" {count['completed']} completed, {count['diverged']} diverged, {count['failed']} failed"
    )
    times = Text(f"elapsed {clock(history.seconds + since_event)}, about {shown_left} left", style="dim")
    return Group(bar, state, times, leaderboard(history), running_line(trials))


def leaderboard(history: History) -> Table:
    """The best trials so far, and the published recipe."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("", "right"), ("trial", "right"), ("epoch", "right"), ("robust accuracy", "left"), ("clean", "left"), ("values", "left")):
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    ranked = history.ranked()
    shown = ranked[:LEADERS] + [trial for trial in ranked[LEADERS:] if trial.number == 0]
    for trial in shown:
        accuracies = rung_accuracies(trial) or {}
        values = "published recipe" if trial.number == 0 else describe(trial.params)
        robust, clean = accuracies["robust_accuracy_validation"], accuracies["clean_accuracy_validation"]
        row = (str(ranked.index(trial) + 1), str(trial.number), str(trial.best_rung), str(robust), f"{100 * clean.share:.1f} %", values)
        table.add_row(*(Text(cell) for cell in row), style="green" if trial is ranked[0] else "")
    return table


def running_line(trials: list[Trial]) -> Text:
    """What runs, and how far it is."""
    jobs = [f"trial {t.number} epoch {t.last_epoch}/{t.job.end}" for t in trials if t.job is not None]
    return Text("running: " + (", ".join(jobs) or "nothing"), style="dim")


def result_table(history: History) -> RenderableType:
    """The answer: the best recipe against the published one, with intervals and what they are worth."""
    ranked = history.ranked()
    published = history.trials.get(0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "trial", "epoch", "robust accuracy (95 %)", "clean accuracy (95 %)"):
        table.add_column(title, justify="right" if title in ("trial", "epoch") else "left", no_wrap=True)
    rows = [("best", ranked[0])] + ([("published", published)] if published is not None else [])
    for title, trial in rows:
        accuracies = rung_accuracies(trial)
        if accuracies is None:
            table.add_row(title, str(trial.number), "-", Text(f"{trial.status}: {trial.reason}"), "-")
        else:
            robust, clean = accuracies.values()
            table.add_row(title, str(trial.number), str(trial.best_rung), str(robust), str(clean))
    return Group(table, Text(result_words(history)))


def result_words(history: History) -> str:
    """What the numbers are, and what they are not."""
    best, published = history.ranked()[0], history.trials[0]
    accuracies = rung_accuracies(best) or {}
    total = accuracies["robust_accuracy_validation"].total
    candidates = sum(bool(trial.rungs) for trial in history.trials.values())
    words = f"On {total} validation images, margin attack."
    if best is published:
        return f"{words} No trial beat the published recipe, which is trial 0 of the {candidates} that the best was chosen from."
    if published.score is not None and best.score is not None:
        words += f" Gain over the published recipe: {100 * (best.score - published.score):+.1f} points."
    return (
        f"{words} The best was chosen from {candidates} trials by these very images, and the published recipe, trial 0, is one of"
        " those: the gain is optimistic."
    )
