"""The study's append-only record, the only truth: one JSON object per line, written before a decision takes effect.

Everything else (what runs next, the tables, the views) is rebuilt from it. `History` is the record folded event by event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hcpr_tune.errors import InputError
from hcpr_tune.search.space import Params

Event = dict[str, Any]
Status = Literal["running", "waiting", "completed", "diverged", "failed"]


@dataclass(frozen=True)
class Job:
    """The unit of work: train `trial` from the end of epoch `start` to the end of epoch `end`."""

    trial: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"trial {self.trial}, epochs {self.start + 1} to {self.end}"


@dataclass
class Trial:
    """What the record says of one trial.

    `waiting` trials have reached the end of their job and are stopped unless they are promoted. `epochs` holds the first report
    of each epoch; `rungs` the robust accuracy on validation at each rung's epoch; `target` is where its latest job ends.
    """

    number: int
    params: Params
    source: str
    status: Status = "waiting"
    reason: str = ""
    job: Job | None = None
    target: int = 0
    epochs: dict[int, Event] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def last_epoch(self) -> int:
        return max(self.epochs, default=0)

    @property
    def last_rung(self) -> int:
        """The epoch of the highest rung reached, 0 for none."""
        return max(self.rungs, default=0)

    @property
    def best_rung(self) -> int:
        """The epoch of the rung with the highest score (the later one of equals), 0 for none."""
        return max(self.rungs, key=lambda epoch: (self.rungs[epoch], epoch), default=0)

    @property
    def score(self) -> float | None:
        """The best rung-end robust accuracy on validation, None before the first rung."""
        return self.rungs[self.best_rung] if self.rungs else None

    @property
    def state(self) -> str:
        """The status in words for people: a waiting trial is stopped early unless it is promoted later."""
        if self.status != "waiting":
            return self.status
        return "stopped" if self.rungs and self.target == self.last_rung else "interrupted"

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "diverged", "failed")


@dataclass
class History:
    """The record, folded: trials by number, in the order in which they were suggested."""

    last_epoch: int
    trials: dict[int, Trial] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    """Hashes of which images were trained and validated on."""
    model_inputs: dict[str, Any] = field(default_factory=dict)
    """Channels, classes and image size of the data."""
    versions: dict[str, str] = field(default_factory=dict)
    workers: int = 0
    fingerprint: str = ""
    seconds: float = 0.0
    """Wall-clock seconds of the sessions so far, up to the latest event."""
    _session_began: float = 0.0
    _seconds_before: float = 0.0

    def apply(self, event: Event) -> bool:
        """Fold one event in. False where it says nothing new (an epoch that ran twice counts once)."""
        handler = getattr(self, f"_on_{event['event']}")
        news: bool = handler(event) is not False
        self.seconds = self._seconds_before + event["time"] - self._session_began
        return news

    def _on_begin(self, event: Event) -> None:
        self._seconds_before, self._session_began = self.seconds, event["time"]
        self.versions, self.workers, self.fingerprint = event["versions"], event["workers"], event["fingerprint"]
        # Jobs of an earlier session died with it; halving hands those out again that are short of their rung.
        for trial in self.trials.values():
            if trial.job is not None:
                self._reached(trial)

    def _on_end(self, event: Event) -> None:
        """An end changes nothing: it is there to be read."""

    def _on_trial(self, event: Event) -> None:
        self.trials[event["trial"]] = Trial(event["trial"], event["params"], event["source"])

    def _on_job(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.job, trial.status = Job(trial.number, event["start"], event["end"]), "running"
        trial.target = event["end"]

    def _on_epoch(self, event: Event) -> bool:
        trial = self.trials[event["trial"]]
        if event["epoch"] in trial.epochs:
            return False
        trial.epochs[event["epoch"]] = event
        trial.seconds += event["seconds_attack"] + event["seconds_update"] + event["seconds_evaluation"]
        if event["is_rung"]:
            trial.rungs[event["epoch"]] = event["robust_correct_validation"] / event["total_validation"]
        return True

    def _on_job_end(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.reason = event["reason"]
        self.splits = event.get("splits", self.splits)
        self.model_inputs = event.get("model_inputs", self.model_inputs)
        if event["status"] == "reached":
            self._reached(trial)
        else:
            trial.job, trial.status = None, event["status"]

    def _reached(self, trial: Trial) -> None:
        trial.job = None
        trial.status = "completed" if trial.last_rung >= self.last_epoch else "waiting"

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.job is not None]

    def ranked(self) -> list[Trial]:
        """Trials with a score, best first: by score, then by the epoch that it was reached at, then the older one."""
        scored = [trial for trial in self.trials.values() if trial.rungs]
        return sorted(scored, key=lambda trial: (-(trial.score or 0.0), -trial.best_rung, trial.number))


class Listener(Protocol):
    """Somebody who is told each event after it is in the record: files, TensorBoard, the terminal."""

    def on_event(self, event: Event, history: History) -> None: ...

    def close(self) -> None: ...


class Record:
    """Appends events to record.jsonl, folds them into `history`, and tells the listeners."""

    def __init__(self, path: Path, history: History, listeners: Sequence[Listener] = ()) -> None:
        self.history = history
        self.listeners = list(listeners)
        _drop_half_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, event: Event) -> None:
        """Write one event, flushed to the disk, then make it take effect."""
        line = json.dumps(event, allow_nan=False) + "\n"
        # One write call: a signal cannot leave half a line.
        os.write(self._file, line.encode())
        os.fsync(self._file)
        if self.history.apply(event):
            for listener in self.listeners:
                listener.on_event(event, self.history)

    def close(self) -> None:
        os.close(self._file)
        for listener in self.listeners:
            listener.close()


def read_history(path: Path, last_epoch: int) -> History:
    """Fold a record file. A last line without its end, cut off by a kill, does not count."""
    history = History(last_epoch)
    # Split as bytes: a damaged line must not keep the others from being read.
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            history.apply(json.loads(line))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} is damaged ({error!r}); restore the file from a copy, or start a new study"
            ) from None
    return history


def _drop_half_line(path: Path) -> None:
    """Cut a last line without its end, so that the next event starts on a line of its own."""
    if not path.exists():
        return
    whole = path.read_bytes()
    if whole and not whole.endswith(b"\n"):
        os.truncate(path, whole.rfind(b"\n") + 1)
