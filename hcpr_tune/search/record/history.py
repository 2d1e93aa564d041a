"""`History`, the record folded event by event. Scheduling, tables and views are all derived from it."""

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
"""The status of a job whose process or node died; it is run again from its last checkpoint."""


@dataclass(frozen=True)
class Job:
    """The unit of work: train `trial` from the end of epoch `start` (0: from scratch) to the end of epoch `end`."""

    trial: int
    start: int
    end: int

    @property
    def name(self) -> str:
        return f"trial {self.trial}, epochs {self.start + 1} to {self.end}"


@dataclass
class Trial:
    """The recorded state of a trial.

    `waiting` trials have finished their job and are stopped unless they are promoted. `epochs` holds the first report
    of each epoch by its position in the work: if each rung is a separate training, the epochs of earlier trainings
    count too. `scores` are the validation accuracies by rung, `rungs` the robust accuracy alone; `target` is the last
    epoch of the latest job.
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
    """The epoch of its best rung (see `Goal.best_rung`), 0 for none."""
    began: float = 0.0
    """When it was suggested."""
    seconds: float = 0.0
    """Seconds of attack, update and evaluation."""
    worker_seconds: float = 0.0
    """Seconds that its jobs occupied a worker."""
    last_heartbeat: float = 0.0
    """Time of the latest event of its running job."""
    startup: float = 0.0
    """Seconds from starting a job to the beginning of its first epoch: process, imports, data and model."""
    fresh: bool = False
    """Whether its running job has reported nothing yet."""
    epoch_offset: int = 0
    """Epochs of its earlier trainings, if each rung is a separate training."""
    positions: dict[int, int] = field(default_factory=dict)
    """Rung -> position in `epochs` of its report."""
    kill_requested: bool = False
    """Whether a request asked to end it."""
    deaths: int = 0
    """How often a worker died with its current job."""
    failed_starts: int = 0
    """How often its current job was given to a worker that was already dead."""

    @property
    def last_epoch(self) -> int:
        """The latest epoch of the current training."""
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
        """The status for display: a waiting trial is stopped early unless it is promoted later."""
        if self.status != "waiting":
            return self.status
        return "stopped" if self.rungs and self.target == self.last_rung else "interrupted"

    @property
    def lost(self) -> bool:
        """Whether it diverged or failed."""
        return self.status in ("diverged", "failed")

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "diverged", "failed", "killed")


@dataclass(frozen=True)
class OldTrial:
    """A trial of an earlier study, in this study's dimensions."""

    params: Params
    scores: dict[int, dict[str, float]]
    completed: bool
    lost: bool


@dataclass
class History:
    """The folded record: trials by number, in the order in which they were suggested, and the state of the search."""

    last_epoch: int
    goal: Goal = field(default_factory=Goal)
    trials: dict[int, Trial] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    """Hashes of the indices of the training and validation images."""
    model_inputs: dict[str, Any] = field(default_factory=dict)
    """Channels, classes and image size of the data."""
    versions: dict[str, str] = field(default_factory=dict)
    workers: int = 0
    fingerprint: str = ""
    seconds: float = 0.0
    """Wall-clock seconds of the sessions so far, up to the latest event."""
    worker_seconds: float = 0.0
    """Seconds that jobs occupied workers, up to the latest event of each."""
    worker_seconds_offered: float = 0.0
    """Seconds of all workers, busy or idle."""
    extensions: list[dict[str, float]] = field(default_factory=list)
    """New values of the budget since the study began, in order: trials, hours, worker_hours, epochs."""
    requests: set[str] = field(default_factory=set)
    """Names of the requests taken from the inbox."""
    queue: list[Params] = field(default_factory=list)
    """Enqueued points that have not started yet."""
    audited: set[int] = field(default_factory=set)
    """Trials that run to the last epoch to see what early stopping lost."""
    old_trials: list[OldTrial] = field(default_factory=list)
    """Trials of the study that this one was warm-started from."""
    study: dict[str, Any] = field(default_factory=dict)
    """The study as it was begun, as the tables of its file."""
    losses: list[str] = field(default_factory=list)
    """Descriptions of what was damaged and had to be repeated."""
    test_accesses: list[Event] = field(default_factory=list)
    """Accesses to the test images: when, by which command, and the numbers it showed."""
    bytes_read: int = field(default=0, compare=False)
    """Size of the record when it was read."""
    damage: str = ""
    """Damage to the end of the record when it was read; not an event."""
    lost_at_once: list[str] = field(default_factory=list)
    """Reasons of the trials lost since the search last finished, as long as no trial has reached a rung."""
    ended: str = ""
    """How the latest session ended; empty while it runs, or if its process died."""
    heard: float = field(default=0.0, compare=False)
    """Time of the latest event; 0 for none."""
    version: int = 0
    """Number of events folded."""
    running_jobs: dict[int, Trial] = field(default_factory=dict)
    by_source: Counter[Source] = field(default_factory=Counter)
    """Number of trials by source."""
    scored: int = 0
    """Number of trials that have reached a rung."""
    scored_at: dict[int, list[int]] = field(default_factory=dict, repr=False)
    """Rung -> the trials with a score there, in the order in which they reached it."""
    scored_at_both: dict[tuple[int, int], list[int]] = field(default_factory=dict, repr=False)
    """(rung, later rung) -> the trials with a score at both, in the order in which they got the second one."""
    derived: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """A cache for other modules, cleared by each event."""
    lasting: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """A cache that other modules update incrementally, cleared only if an event changes an existing score."""
    touched: set[int] = field(default_factory=set, repr=False, compare=False)
    """Trials whose status, rungs or promotion changed since this was last emptied, by `RungSystem`."""
    _points: set[tuple[Any, ...]] = field(default_factory=set, repr=False, compare=False)
    _session_began: float = 0.0
    _seconds_before: float = 0.0

    def check(self, event: Event) -> None:
        """Raises `Wrong` if an event is invalid or cannot follow what is recorded; it must then not be folded in."""
        check_event(event, SEARCH)
        kind = event["event"]
        for number in event["trials"] if kind == "audit" else [event["trial"]] if "trial" in event else []:
            known = len(self.trials)
            if kind == "trial":
                Number(known, known, integer=True).check(number, "trial")
            elif number not in self.trials:
                raise Wrong(f"trial must be one of the {known} that are recorded before it, got {number}")
        if kind == "trial" and event["source"] == ENQUEUED and not self.queue:
            raise Wrong(f'source must not be "{ENQUEUED}" if nothing is enqueued')
        if kind == "test_access":
            following = len(self.test_accesses) + 1
            Number(following, following, integer=True).check(event["number"], "number")
        elif kind == "test_numbers":
            Number(1, len(self.test_accesses), integer=True).check(event["number"], "number")

    def apply(self, event: Event) -> bool:
        """Fold in one event. Returns False if it is not news (an epoch that ran twice counts once).

        Takes constant time, except that the start of a session visits the running trials and a new top rung all trials.
        """
        handler = getattr(self, f"_on_{event['event']}")
        workers = self.workers
        news: bool = handler(event) is not False
        self.heard = event["time"]
        if event["event"] in BESIDE:
            self.version += 1
            return news
        # Time must not decrease if the clock is set back.
        now = max(self.seconds, self._seconds_before + event["time"] - self._session_began)
        self.worker_seconds_offered += max(0.0, now - self.seconds) * workers
        self.seconds = now
        self.version += 1
        self.derived.clear()
        return news

    def _on_begin(self, event: Event) -> None:
        self._seconds_before, self._session_began = self.seconds, event["time"]
        self.versions, self.workers, self.fingerprint = event["versions"], event["workers"], event["fingerprint"]
        if self.ended == "finished":  # perhaps after too many failures, which the user has fixed before resuming
            self.lost_at_once = []
        self.study, self.ended = self.study or event.get("study", {}), ""
        self._drop_jobs()
        # Requests that came with the session are in the same line, so that a kill cannot separate them.
        for request in event.get("requests", []):
            getattr(self, f"_on_{request['event']}")(request)

    def _on_end(self, event: Event) -> None:
        self.ended = event["reason"]
        self._drop_jobs()

    def _drop_jobs(self) -> None:
        """Jobs end with their session; ASHA schedules those again that did not reach their rung."""
        for trial in list(self.running):
            self._reached(trial)

    def _on_workers(self, event: Event) -> None:
        """Nodes joined or left."""
        self.workers = event["workers"]

    def _on_loss(self, event: Event) -> None:
        self.losses.append(event["what"])

    def _on_extend(self, event: Event) -> None:
        """A larger budget, or a new top rung, to which completed trials wait to be promoted."""
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

    def _on_test_access(self, event: Event) -> None:
        self.test_accesses.append({name: event[name] for name in ("time", "number", "command")})

    def _on_test_numbers(self, event: Event) -> None:
        self.test_accesses[event["number"] - 1]["numbers"] = event["numbers"]

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
            # Trained again after a checkpoint was damaged.
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
        """Count a new score."""
        self.touched.add(trial.number)
        if rung in trial.rungs:
            self.lasting.clear()  # a second score at the same rung, which current searches never record
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
        """Account for the time since the latest event of the job, and return it."""
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
        """Whether some trial has these values."""
        return _point(params) in self._points

    @property
    def running(self) -> list[Trial]:
        return list(self.running_jobs.values())

    def ranked(self) -> list[Trial]:
        """Trials with a score, best first (see `Goal.order`)."""
        scored = [trial for trial in self.trials.values() if trial.rungs]
        return self.goal.order(scored, {trial.number: trial.best_rung for trial in scored})


def _point(params: Params) -> tuple[Any, ...]:
    """A compact hashable key, equal for equal values."""
    return tuple(chain.from_iterable(sorted(params.items())))


BESIDE = ("test_access", "test_numbers")
"""Events written outside a session of the search, which do not advance its clock."""
COUNTS = {"robust_accuracy": "robust_correct_validation", "clean_accuracy": "clean_correct_validation"}
"""Field of an epoch's report that has the count of an accuracy."""
