"""Replay of a recorded search in the simulation: does it make the same decisions, and does it take as long?"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.search import JobEndEvent, JobEvent, TrialEvent
from hcpr_tune.search.record.history import WORKER_DIED, Event, History, Job
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.costs import epoch_seconds
from hcpr_tune.simulation.curves.curves import Curve
from hcpr_tune.simulation.curves.recorded import OldStudy
from hcpr_tune.simulation.search import Trainings, search_simulation
from hcpr_tune.simulation.worker_pool import WorkerPool

OUTSIDE = ("enqueue", "kill", "workers")
"""Events from outside the search, in addition to those of the session's beginning."""
TOO_OFTEN = "its worker process died"
"""How the reason of a trial begins that failed because its workers died."""


class Departed(Exception):
    """The replay made a decision that is not in the record."""


@dataclass(frozen=True)
class Replay:
    """The result. `decisions`: the number in the record; `same`: how many of the first ones the replay made too."""

    decisions: int
    same: int
    departs: str
    """The first decision that differs, in words; empty if all are the same."""
    recorded_seconds: float
    replayed_seconds: float

    @property
    def off(self) -> float:
        """Relative difference of the replayed time from the recorded one."""
        return self.replayed_seconds / self.recorded_seconds - 1

    def to_plain(self) -> dict[str, Any]:
        return {
            "decisions": self.decisions,
            "same": self.same,
            "departs": self.departs,
            "recorded_seconds": round(self.recorded_seconds, 3),
            "replayed_seconds": round(self.replayed_seconds, 3),
            "off": round(self.off, 4),
        }


class RecordedTiming:
    """Recorded times of epochs, deaths and answers of the driver; a job that is not in the record raises `Departed`."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._asked = deque(driver_waits(events))
        self._usual = median(self._asked) if self._asked else 0.0
        self._epochs: dict[Job, deque[dict[int, tuple[float, float]]]] = defaultdict(deque)
        self._deaths: dict[Job, deque[float]] = defaultdict(deque)
        self._running: dict[int, tuple[Job, float, float]] = {}
        for event in events:
            self._read(event)
        self._now: dict[Job, dict[int, tuple[float, float]]] = {}

    def _read(self, event: Event) -> None:
        if event["event"] == "job":
            trial = event["trial"]
            job = Job(trial, event["start"], event["end"])
            self._running[trial] = job, event["time"], event["time"]
            self._epochs[job].append({})
            self._deaths[job].append(math.inf)
        elif event["event"] in ("epoch", "job_end") and event["trial"] in self._running:
            trial = event["trial"]
            job, began, heard = self._running[trial]
            epochs = self._epochs[job][-1]
            if event["event"] == "epoch":
                epochs[event["epoch"]] = event["time"] - heard, epoch_seconds(event)
                self._running[trial] = job, began, event["time"]
            elif died(event):
                self._deaths[job][-1] = event["time"] - began
            elif event["status"] in ("diverged", "failed"):
                epochs[max(epochs, default=job.start) + 1] = event["time"] - heard, 0.0
            elif epochs:
                # The driver's own work between the last report and the end of the job.
                waited, trained = epochs[max(epochs)]
                epochs[max(epochs)] = waited + event["time"] - heard, trained

    def asking(self) -> float:
        return self._asked.popleft() if self._asked else self._usual

    def handing_out(self) -> float:
        return 0.0

    def answering(self) -> float:
        return 0.0

    def death(self, work: Job) -> float:
        return self._deaths[work].popleft()

    def epoch(
        self, work: Job, epoch: int, curve: Curve, speed: float, begins: bool, fresh: bool
    ) -> tuple[float, float]:
        if begins:
            if not self._epochs[work]:
                raise Departed(f"{work.name}, which was not trained then")
            self._now[work] = self._epochs[work].popleft()
        # A process that dies before its report never sends it.
        return self._now[work].get(epoch, (math.inf, 0.0))


def died(event: JobEndEvent) -> bool:
    """Whether a job ended because its worker died."""
    too_often = event["status"] == "failed" and event["reason"].startswith(TOO_OFTEN)
    return event["status"] == WORKER_DIED or too_often


def driver_waits(events: Sequence[Event]) -> list[float]:
    """For each job handed out: the seconds since there was both a free worker and new information."""
    first = events[0]
    latest = first["time"]
    free = deque([latest] * (first["workers"] if first["event"] == "begin" else 1))
    waits: list[float] = []
    for event in events[1:]:
        if event["event"] == "job":
            since = free.popleft() if free else latest
            waits.append(max(0.0, event["time"] - max(since, latest)))
        elif event["event"] == "job_end":
            free.append(event["time"])
        if event["event"] != "trial":
            latest = event["time"]
    return waits


@dataclass(frozen=True)
class AsRecorded:
    """Each trial has its recorded curve."""

    history: History
    epochs: Sequence[int]
    images: int

    def curve(self, trial: int, params: Params) -> Curve:
        known = self.history.trials.get(trial)
        if known is None or known.params != params:
            raise Departed(f"trial {trial} with other values")
        robust, clean = (
            [known.scores.get(epoch, {}).get(name, math.nan) for epoch in self.epochs]
            for name in ("robust_accuracy", "clean_accuracy")
        )
        lost = known.lost and not known.reason.startswith(TOO_OFTEN)
        lost_as = known.status, known.reason
        return Curve(robust, clean, robust, clean, known.last_epoch + 1 if lost else 0, lost_as)

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        return self.curve(trial, params)


def replay(old: OldStudy) -> Replay:
    """Replay a search. Raises `InputError` unless it ran in one session from start to end."""
    sessions = sum(event["event"] == "begin" for event in old.events)
    if sessions != 1:
        raise InputError(
            f"--replay {old.folder}: it was searched in {sessions} sessions, "
            "and the gaps between them cannot be simulated; give a search that ran in one session"
        )
    if old.events[0]["event"] != "begin":
        raise InputError(
            f"--replay {old.folder}: its record does not begin with a session; give a search that ran in one session"
        )
    if old.events[-1]["event"] != "end":
        raise InputError(
            f"--replay {old.folder}: its record has no end: the search is running or was killed; "
            "give a search that ran to its end"
        )
    began = old.events[0]["time"]
    events = [cast(Event, {**event, "time": event["time"] - began}) for event in old.events]
    evaluated = (event for event in events if event["event"] == "epoch" and "total_validation" in event)
    most = max(event["workers"] for event in events if event["event"] in ("begin", "workers"))
    played: list[Event] = []
    play = AsRecorded(old.history, old.study.rungs, next(evaluated)["total_validation"])
    simulation = search_simulation(
        Trainings(old.study, play, RecordedTiming(events)),
        WorkerPool(most),
        Suggester(old.study),
        outside=[event for event in events if event["event"] in OUTSIDE],
        begin=events[0],
        listener=lambda event: played.append(cast(Event, event)),
    )
    try:
        simulation.run()
        departed = ""
    except Departed as departure:
        departed = str(departure)
    return _compared(events, played, old.history, simulation.state, departed)


def _compared(
    events: Sequence[Event], played: Sequence[Event], recorded: History, replayed: History, departed: str
) -> Replay:
    theirs, ours = _decisions(events), _decisions(played)
    same = 0
    while same < min(len(theirs), len(ours)) and theirs[same] == ours[same]:
        same += 1
    departs = ""
    if same < max(len(theirs), len(ours)):
        ours_now = departed or (str(ours[same]) if same < len(ours) else "the end")
        theirs_now = theirs[same] if same < len(theirs) else "the end"
        departs = f"decision {same + 1}: the record has {theirs_now}, the replay {ours_now}"
    # The driver's work after the last job (tables, the report) is not simulated.
    ends = [event["time"] for event in events if event["event"] in ("job_end", "end")]
    closing = ends[-1] - ends[-2] if len(ends) > 1 and events[-1]["event"] == "end" else 0.0
    return Replay(len(theirs), same, departs, recorded.seconds, replayed.seconds + closing)


def _decisions(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    return [_decision(event) for event in events if event["event"] in ("trial", "job")]


def _decision(event: TrialEvent | JobEvent) -> tuple[Any, ...]:
    if event["event"] == "trial":
        return "trial", event["trial"], event["source"], tuple(sorted(event["params"].items()))
    return "job", event["trial"], event["start"], event["end"]
