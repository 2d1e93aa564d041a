"""What the record says: `History` is the record folded event by event. Everything else (what runs next, the tables, the views) comes from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from hcpr_tune.common.schema import Number, Wrong
from hcpr_tune.search.record.events import SEARCH, check_event
from hcpr_tune.search.record.events import Event as Event
from hcpr_tune.search.spec.objectives import OBJECTIVES, Goal
from hcpr_tune.search.spec.space import Params

Status = Literal["running", "waiting", "completed", "diverged", "failed", "killed"]
Source = str
"""Where a trial's values come from: one of those below, or the name of a sampler."""
PUBLISHED, FIRST_POINT, WARM_START, CALIBRATION, ENQUEUED, PRIOR = (
    "published",
    "first point",
    "warm start",
    "calibration",
    "enqueued",
    "prior",
)
WORKER_DIED = "worker died"
"""How a job ended whose process or node is gone; it is handed out again, from its last checkpoint."""


@dataclass(frozen=True)
class Job:
    """The unit of work: train `trial` from the end of epoch `start` to the end of epoch `end`; from scratch where `start` is 0."""

    trial: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"trial {self.trial}, epochs {self.start + 1} to {self.end}"


@dataclass
class Trial:
    """What the record says of one trial.

    `waiting` trials have reached the end of their job and are stopped unless they are promoted. `epochs` holds the first report of each
    epoch in the order of the work: where each rung is a training of its own, the epochs of the trainings before count too. `scores` are
    the accuracies on validation at each rung's epoch, `rungs` the robust one of them; `target` is where its latest job ends.
    """

    number: int
    params: Params
    source: Source
    status: Status = "waiting"
    reason: str = ""
    job: Job | None = None
    target: int = 0
    epochs: dict[int, Event] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    best_rung: int = 0
    """The epoch of the rung that it is judged by (see `Goal.best_rung`), 0 for none."""
    began: float = 0.0
    """When it was suggested."""
    seconds: float = 0.0
    """Of attack, update and evaluation."""
    worker_seconds: float = 0.0
    """Seconds that its jobs held a worker."""
    last_heartbeat: float = 0.0
    """When its running job was last heard of."""
    startup: float = 0.0
    """Seconds from handing a job out to the beginning of its first epoch: a process and its imports where it is new, data, model."""
    fresh: bool = False
    """Nothing was heard of its running job yet."""
    epoch_offset: int = 0
    """Epochs of its trainings before the present one, where each rung is a training of its own."""
    positions: dict[int, int] = field(default_factory=dict)
    """Rung -> position in `epochs` of its report."""
    kill_requested: bool = False
    """Somebody asked to end it."""
    deaths: int = 0
    """How often a worker died with its present job."""
    failed_starts: int = 0
    """How often its present job was handed to a worker that was dead already."""

    @property
    def last_epoch(self) -> int:
        """The latest epoch of the present training."""
        return max(self.epochs, default=0) - self.epoch_offset if self.epochs else 0

    @property
    def last_rung(self) -> int:
        """The epoch of the highest rung reached, 0 for none."""
        return max(self.rungs, default=0)

    @property
    def score(self) -> float | None:
        """The robust accuracy on validation at its best rung, None before the first rung."""
        return self.rungs[self.best_rung] if self.rungs else None

    def at_rung(self, rung: int) -> Event:
        """What was reported at a rung."""
        return self.epochs[self.positions[rung]]

    @property
    def state(self) -> str:
        """The status in words for people: a waiting trial is stopped early unless it is promoted later."""
        if self.status != "waiting":
            return self.status
        return "stopped" if self.rungs and self.target == self.last_rung else "interrupted"

    @property
    def lost(self) -> bool:
        """It came to a bad end of its own."""
        return self.status in ("diverged", "failed")

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "diverged", "failed", "killed")


@dataclass(frozen=True)
class OldTrial:
    """A trial of an earlier study, in the dimensions of this one."""

    params: Params
    scores: dict[int, dict[str, float]]
    completed: bool
    lost: bool


@dataclass
class History:
    """The record, folded: trials by number, in the order in which they were suggested."""

    last_epoch: int
    goal: Goal = field(default_factory=Goal)
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
    worker_seconds: float = 0.0
    """Seconds that workers were held by jobs, up to the latest event of each."""
    worker_seconds_offered: float = 0.0
    """Seconds of all workers, busy or idle."""
    extensions: list[dict[str, float]] = field(default_factory=list)
    """What the budget was set to since the study began, in order: trials, hours, worker_hours, epochs."""
    requests: set[str] = field(default_factory=set)
    """The names of the requests that were taken from the inbox."""
    queue: list[Params] = field(default_factory=list)
    """Points that were asked for and not yet begun."""
    audited: set[int] = field(default_factory=set)
    """Trials that run to the end to see what stopping them lost."""
    old_trials: list[OldTrial] = field(default_factory=list)
    """What an earlier study knew."""
    study: dict[str, Any] = field(default_factory=dict)
    """The study as it was begun, as the tables of its file."""
    losses: list[str] = field(default_factory=list)
    """What was damaged and had to be done again."""
    openings: list[Event] = field(default_factory=list)
    """When the test images were opened, by which command, and the numbers that it showed."""
    bytes_read: int = field(default=0, compare=False)
    """How long the record was when it was read."""
    damage: str = ""
    """What was wrong with the end of the record when it was read; no event."""
    lost_at_once: list[str] = field(default_factory=list)
    """Why trials were lost since the search last ended by itself, while none has reached a rung."""
    ended: str = ""
    """How the latest session ended; empty while it runs, and where its process died."""
    heard: float = field(default=0.0, compare=False)
    """When something was last recorded; 0 for never."""
    version: int = 0
    """Counts the events that were folded."""
    running_jobs: dict[int, Trial] = field(default_factory=dict)
    by_source: Counter[Source] = field(default_factory=Counter)
    """How many trials come from where."""
    scored: int = 0
    """How many trials have reached a rung."""
    scored_at: dict[int, list[int]] = field(default_factory=dict, repr=False)
    """Rung -> the trials with a score there, in the order in which they came to it."""
    scored_at_both: dict[tuple[int, int], list[int]] = field(default_factory=dict, repr=False)
    """(rung, later rung) -> the trials with a score at both, in the order in which they came to it."""
    derived: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What others worked out from this state; emptied by the next event."""
    lasting: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What others worked out and bring up to date themselves; emptied only by an event that changes what was taken for settled."""
    touched: set[int] = field(default_factory=set, repr=False, compare=False)
    """Trials whose status, rungs or promotion an event has changed since `promotions.Ladder`, which empties this, last looked."""
    _points: set[tuple[Any, ...]] = field(default_factory=set, repr=False, compare=False)
    _session_began: float = 0.0
    _seconds_before: float = 0.0

    def check(self, event: Event) -> None:
        """Raises `Wrong` where an event is none, or cannot follow what is recorded: then it must not be folded in."""
        check_event(event, SEARCH)
        kind = event["event"]
        for number in event["trials"] if kind == "audit" else [event["trial"]] if "trial" in event else []:
            known = len(self.trials)
            if kind == "trial":
                Number(known, known, integer=True).check(number, "trial")
            elif number not in self.trials:
                raise Wrong(f"trial must be one of the {known} that are recorded before it, got {number}")
        if kind == "trial" and event["source"] == ENQUEUED and not self.queue:
            raise Wrong(f'source must not be "{ENQUEUED}" where nothing is enqueued')
        if kind == "test_opened":
            Number(len(self.openings) + 1, len(self.openings) + 1, integer=True).check(event["number"], "number")
        elif kind == "test_seen":
            Number(1, len(self.openings), integer=True).check(event["number"], "number")

    def apply(self, event: Event) -> bool:
        """Fold one event in. False where it says nothing new (an epoch that ran twice counts once).

        Costs the same however many trials there are; only a beginning goes through those that run, and a new top rung through all.
        """
        handler = getattr(self, f"_on_{event['event']}")
        workers = self.workers
        news: bool = handler(event) is not False
        self.heard = event["time"]
        if event["event"] in BESIDE:
            self.version += 1
            return news
        # A clock that is set back must not take time away.
        now = max(self.seconds, self._seconds_before + event["time"] - self._session_began)
        self.worker_seconds_offered += max(0.0, now - self.seconds) * workers
        self.seconds = now
        self.version += 1
        self.derived.clear()
        return news

    def _on_begin(self, event: Event) -> None:
        self._seconds_before, self._session_began = self.seconds, event["time"]
        self.versions, self.workers, self.fingerprint = event["versions"], event["workers"], event["fingerprint"]
        if self.ended == "finished":  # given up, perhaps: whoever goes on has mended something
            self.lost_at_once = []
        self.study, self.ended = self.study or event.get("study", {}), ""
        self._drop_jobs()
        # What the session was begun with, in the same line: a kill cannot come in between.
        for request in event.get("requests", []):
            getattr(self, f"_on_{request['event']}")(request)

    def _on_end(self, event: Event) -> None:
        self.ended = event["reason"]
        self._drop_jobs()

    def _drop_jobs(self) -> None:
        """Jobs die with their session; halving hands those out again that are short of their rung."""
        for trial in list(self.running):
            self._reached(trial)

    def _on_workers(self, event: Event) -> None:
        """Nodes came or went."""
        self.workers = event["workers"]

    def _on_loss(self, event: Event) -> None:
        self.losses.append(event["what"])

    def _on_extend(self, event: Event) -> None:
        """More budget, or a new top rung: what was complete waits to be promoted to it."""
        self.extensions.append(event["budget"])
        if "epochs" in event["budget"]:
            self.last_epoch = int(event["budget"]["epochs"])
            for trial in self.trials.values():
                if trial.status == "completed":
                    self._reached(trial)

    def _on_warm_start(self, event: Event) -> None:
        for old in event["trials"]:
            scores = {int(rung): scores for rung, scores in old["scores"].items()}
            self.old_trials.append(OldTrial(old["params"], scores, old["completed"], old["lost"]))

    def _on_enqueue(self, event: Event) -> None:
        self.requests.add(event["request"])
        self.queue.append(event["params"])

    def _on_kill(self, event: Event) -> bool:
        self.requests.add(event["request"])
        trial = self.trials[event["trial"]]
        if trial.ended:
            return False
        trial.kill_requested = True
        if trial.job is None:
            trial.status, trial.reason = "killed", "killed on request"
            self.touched.add(trial.number)
        return True

    def _on_test_opened(self, event: Event) -> None:
        self.openings.append({name: event[name] for name in ("time", "number", "command")})

    def _on_test_seen(self, event: Event) -> None:
        self.openings[event["number"] - 1]["numbers"] = event["numbers"]

    def _on_audit(self, event: Event) -> None:
        self.audited |= set(event["trials"])
        self.touched |= self.audited

    def _on_trial(self, event: Event) -> None:
        number, params, source = event["trial"], event["params"], event["source"]
        self.trials[number] = Trial(number, params, source, began=event["time"])
        self.touched.add(number)
        self.by_source[source] += 1
        self._points.add(_point(params))
        if source == ENQUEUED:
            self.queue.pop(0)

    def _on_job(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.job, trial.status = Job(trial.number, event["start"], event["end"]), "running"
        trial.target, trial.last_heartbeat, trial.fresh = event["end"], event["time"], True
        self.running_jobs[trial.number] = trial
        self.touched.add(trial.number)
        if event["start"] < trial.last_rung:
            trial.epoch_offset = sum(trial.rungs)

    def _on_epoch(self, event: Event) -> bool:
        trial = self.trials[event["trial"]]
        waited = self._hold(trial, event["time"])
        position = trial.epoch_offset + event["epoch"]
        if position in trial.epochs:
            # One that was trained again, after its checkpoint was damaged.
            trial.startup += waited if trial.fresh else 0.0
            trial.fresh = False
            return False
        trial.epochs[position] = event
        trained = event["seconds_attack"] + event["seconds_update"] + event["seconds_evaluation"]
        trial.seconds += trained
        if trial.fresh:
            trial.startup += max(0.0, waited - trained - event.get("seconds_checkpoint", 0.0))
            trial.fresh = False
        if event["is_rung"]:
            total = event["total_validation"]
            scores = {name: event[COUNTS[name]] / total for name in OBJECTIVES}
            self._at_rung(trial, event["epoch"])
            trial.scores[event["epoch"]], trial.rungs[event["epoch"]] = scores, scores["robust_accuracy"]
            trial.positions[event["epoch"]] = position
            trial.best_rung = self.goal.best_rung(trial.scores)
        return True

    def _at_rung(self, trial: Trial, rung: int) -> None:
        """Count a score that comes now."""
        self.touched.add(trial.number)
        if rung in trial.rungs:
            self.lasting.clear()  # another score for the same rung, which no search of today records
            return
        self.scored += not trial.rungs
        self.scored_at.setdefault(rung, []).append(trial.number)
        for other in trial.rungs:
            self.scored_at_both.setdefault((min(rung, other), max(rung, other)), []).append(trial.number)

    def _on_job_end(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        self._hold(trial, event["time"])
        trial.reason = event["reason"]
        if event["status"] == WORKER_DIED:
            trial.deaths += not event["failed_start"]
            trial.failed_starts += event["failed_start"]
        else:
            trial.deaths = trial.failed_starts = 0
        self.splits = event.get("splits", self.splits)
        self.model_inputs = event.get("model_inputs", self.model_inputs)
        if event["status"] in ("reached", "broken off", WORKER_DIED):
            self._reached(trial)
        else:
            trial.job, trial.status = None, event["status"]
            self.running_jobs.pop(trial.number, None)
            self.touched.add(trial.number)
        if trial.lost and not self.scored:
            self.lost_at_once.append(trial.reason)

    def _hold(self, trial: Trial, time: float) -> float:
        """Account for the time since the job was last heard of, and return it."""
        if trial.job is None:
            return 0.0
        waited = max(0.0, time - trial.last_heartbeat)
        trial.worker_seconds += waited
        self.worker_seconds += waited
        trial.last_heartbeat = time
        return waited

    def _reached(self, trial: Trial) -> None:
        trial.job = None
        self.running_jobs.pop(trial.number, None)
        trial.status = "completed" if trial.last_rung >= self.last_epoch else "waiting"
        if trial.kill_requested and trial.status == "waiting":
            trial.status = "killed"
        self.touched.add(trial.number)

    def has_begun(self, params: Params) -> bool:
        """Whether a trial has these values."""
        return _point(params) in self._points

    @property
    def running(self) -> list[Trial]:
        return list(self.running_jobs.values())

    def ranked(self) -> list[Trial]:
        """Trials with a score, best first (see `Goal.order`)."""
        scored = [trial for trial in self.trials.values() if trial.rungs]
        return self.goal.order(scored, {trial.number: trial.best_rung for trial in scored})


def _point(params: Params) -> tuple[Any, ...]:
    """Equal for equal values, and no larger than it must be."""
    return tuple(chain.from_iterable(sorted(params.items())))


BESIDE = ("test_opened", "test_seen")
"""Events that no session of the search writes: its clock does not run for them."""
COUNTS = {"robust_accuracy": "robust_correct_validation", "clean_accuracy": "clean_correct_validation"}
"""Where an epoch's report has the count of an accuracy."""
