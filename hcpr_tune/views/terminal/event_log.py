"""The news of a running search, line by line, without a terminal: `key=value` for grep, JSON for programs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console

from hcpr_tune.common.intervals import Proportion
from hcpr_tune.common.output import Unheard
from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.record.events.search import EpochEvent, JobEndEvent
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.metrics import ACCURACIES
from hcpr_tune.search.record.results import StoredStudy, most_checkpoints
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.search_progress import STARTING_TRIALS
from hcpr_tune.views.status import (
    Plain,
    alarm_plain,
    answer,
    counts,
    gain_plain,
    running_plain,
    scored,
    seconds_left,
    state_of,
)
from hcpr_tune.views.summary import Alarm, alarms
from hcpr_tune.views.wording import clock, printable

EPOCH_SECONDS, SILENT_SECONDS = 10.0, 20.0
"""Once a rung is reached, an epoch is worth a line after so long a silence; without an event, what runs is told."""
NUMBER = re.compile(r"[-+.\w]*\d[-+.\w]*|nan|inf")


class EventLog:
    """Turns events into news: a reached rung, a trial that ended without one, an alarm, a loss, changed workers."""

    def __init__(self, study: StudySpec, history: History) -> None:
        """Alarms that the history already has are not news."""
        self._study = study
        self._known = {kind_of(alarm) for alarm in alarms(study, history)}

    def of(self, event: Event, history: History) -> list[Plain]:
        if event["event"] == "loss":
            return [{"news": "loss", "time": event["time"], "what": event["what"]}]
        if event["event"] == "workers":
            return [{"news": "workers", "time": event["time"], "workers": event["workers"]}]
        if event["event"] != "job_end":
            return []
        return [self._job(event, history), *self._alarms(event, history)]

    def _job(self, event: JobEndEvent, history: History) -> Plain:
        trial, study = history.trials[event["trial"]], self._study
        reached = event["status"] == "reached" and bool(trial.rungs)
        return {
            "news": "rung" if reached else "trial",
            "time": event["time"],
            "trial": trial.number,
            "epoch": trial.last_epoch,
            "status": event["status"],
            "reason": trial.reason,
            "worker": running_plain(trial)["worker"],
            **(at_rung(trial.at_rung(trial.last_rung)) if reached else {}),
            "best": scored(history.best_trial),
            **gain_plain(history),
            "trials": counts(study, history),
            "seconds": history.seconds,
            "seconds_left": seconds_left(study, history),
        }

    def _alarms(self, event: JobEndEvent, history: History) -> list[Plain]:
        found = []
        for alarm in alarms(self._study, history):
            if kind_of(alarm) not in self._known:
                found.append({"news": "alarm", "time": event["time"], **alarm_plain(alarm)})
            self._known.add(kind_of(alarm))
        return found


def kind_of(alarm: Alarm) -> str:
    """A key for alarms that are news only once: the trial for masked gradients, the reason without numbers for lost
    trials, the kind for a floor.
    """
    if alarm.kind == "masking":
        return alarm.words
    reason = alarm.words.partition(": ")[2] if alarm.trials else ""
    return f"{alarm.kind}: {NUMBER.sub('#', reason)}"


def at_rung(epoch: EpochEvent) -> Plain:
    """Both accuracies of a rung's report."""
    total = epoch["total_validation"]
    return {
        "robust_accuracy_validation": Proportion(epoch["robust_correct_validation"], total).to_plain(),
        "clean_accuracy_validation": Proportion(epoch["clean_correct_validation"], total).to_plain(),
    }


class PlainLines:
    """A listener that prints a line of `key=value` for each piece of news, for the epochs before the first rung, and
    for what goes on where there was nothing to print for a while.
    """

    def __init__(
        self,
        study: StudySpec,
        console: Console,
        history: History | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._console, self._now = study, console, now
        history = history or History(study.recipe.epochs, study.goal)
        self._news = EventLog(study, history)
        self._printed = now()
        # Made by the thread that changes the history, printed by another one.
        self._going = (waiting_line(history), history.seconds, now())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="plain lines", daemon=True)
        self._thread.start()

    def on_event(self, event: Event, history: History) -> None:
        news = self._news.of(event, history)
        for one in news:
            self._print(plain_line(one))
        quiet = self._now() - self._printed >= EPOCH_SECONDS
        if event["event"] == "epoch" and not event["is_rung"] and (quiet or not history.scored):
            self._print(epoch_line(self._study, event, history))
        self._going = waiting_line(history), history.seconds, self._now()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _print(self, line: str) -> None:
        self._printed = self._now()
        self._console.out(line, highlight=False)

    def _tick(self) -> None:
        with suppress(Unheard):
            while not self._over.wait(1.0):
                if self._now() - self._printed >= SILENT_SECONDS:
                    line, seconds, taken = self._going
                    self._print(f"{line} elapsed={clock(seconds + self._now() - taken)}")


def epoch_line(study: StudySpec, event: EpochEvent, history: History) -> str:
    """An epoch on the way to a rung."""
    trial, count, left = history.trials[event["trial"]], counts(study, history), seconds_left(study, history)
    return (
        f"trial={trial.number} epoch={event['epoch']}/{trial.target} status=running"
        f" trials={count['suggested']}/{count['budget']} running={count['running']}"
        f" elapsed={clock(history.seconds)} left={'?' if left is None else clock(left)}"
    )


def waiting_line(history: History) -> str:
    """What goes on, without its time."""
    running = history.running_jobs
    if not any(trial.epochs for trial in history.trials.values()):
        return f'running={len(running)} waiting="{STARTING_TRIALS.what} (usually {STARTING_TRIALS.usual})"'
    latest = next(reversed(running.values()), None)
    epoch = "" if latest is None else f" trial={latest.number} epoch={latest.last_epoch}/{latest.target}"
    return f"running={len(running)}{epoch}"


def plain_line(news: Plain) -> str:
    """One piece of news as `key=value`."""
    if news["news"] in ("loss", "alarm"):
        return f'{news["news"]}="{printable(news.get("what") or news["words"])}"'
    if news["news"] == "workers":
        return f"workers={news['workers']}"
    words = [f"trial={news['trial']}", f"epoch={news['epoch']}", f"status={news['status']}"]
    accuracies = [f"{name}={news[name]['share']:.4f}" for name in ACCURACIES if name in news]
    words += accuracies or [f'reason="{printable(news["reason"])}"']
    best, gain, count, left = news["best"], news["gain_points"], news["trials"], news["seconds_left"]
    words.append(f"best={best[ACCURACIES[0]]['share']:.4f}@trial{best['trial']}" if best else "best=none")
    words.append("gain=none" if gain is None else f"gain={gain:+.1f}@epoch{news['gain_at_epoch']}")
    words.append(f"trials={count['suggested']}/{count['budget']} running={count['running']} stopped={count['stopped']}")
    words.append(f"elapsed={clock(news['seconds'])} left={'?' if left is None else clock(left)}")
    return " ".join(words)


class JsonLines:
    """A listener that prints a JSON object for each piece of news."""

    def __init__(self, study: StudySpec, console: Console, history: History) -> None:
        self._news, self._console = EventLog(study, history), console

    def on_event(self, event: Event, history: History) -> None:
        for news in self._news.of(event, history):
            tell(self._console, news)

    def close(self) -> None:
        pass


def tell(console: Console, news: Plain) -> None:
    """Print an object as one line of JSON."""
    console.out(json.dumps(news, allow_nan=False), highlight=False)


def start_news(stored: StoredStudy, workers: int, checkpoint_bytes: int, dashboard: str) -> Plain:
    """The study's addresses, budget and size, before anything runs."""
    folder, study, history = stored
    return {
        "news": "start",
        "time": time.time(),
        "study": folder.address,
        "folder": str(folder.root),
        "tensorboard": str(folder.root),
        "dashboard": dashboard or None,
        "dataset": study.recipe.task.dataset,
        "epsilon": study.recipe.task.epsilon,
        "searched": list(study.space),
        "objective": list(study.settings.objective),
        "budget": to_plain(study.settings.budget),
        "rungs": list(study.rungs),
        "workers": workers,
        "checkpoints_at_most": most_checkpoints(study, history, workers),
        "checkpoint_bytes": checkpoint_bytes or None,
        "resumed_with": counts(study, history, alive=False) if history.trials else None,
        "best": scored(history.best_trial),
        "damage": history.damage or None,
    }


def result_news(stored: StoredStudy, code: int, interrupted: bool = False) -> Plain:
    """The answer, and how the search ended."""
    folder, study, history = stored
    reason = "interrupted" if interrupted else state_of(study, history, None)
    return {
        "news": "result",
        "time": time.time(),
        "exit_code": code,
        "exit_reason": reason,
        "study": folder.address,
        **answer(folder, study, history, alive=False),
    }
