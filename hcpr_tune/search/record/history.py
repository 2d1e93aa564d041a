"""`History`, the record folded event by event. Scheduling, tables and views are all derived from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from hcpr_tune.common.schema import ModelInputs, Number, Wrong
from hcpr_tune.search.record.events import search as events
from hcpr_tune.search.record.events.check import search_event
from hcpr_tune.search.record.events.fields import Tables, Versions, accuracies, trained_seconds
from hcpr_tune.search.record.events.search import Event as Event
from hcpr_tune.search.record.events.search import TestAccess as TestAccess
from hcpr_tune.search.record.ranking import Ranking
from hcpr_tune.search.record.trial import CALIBRATION as CALIBRATION
from hcpr_tune.search.record.trial import ENQUEUED as ENQUEUED
from hcpr_tune.search.record.trial import FIRST_POINT as FIRST_POINT
from hcpr_tune.search.record.trial import PRIOR as PRIOR
from hcpr_tune.search.record.trial import PUBLISHED as PUBLISHED
from hcpr_tune.search.record.trial import REPLICATE as REPLICATE
from hcpr_tune.search.record.trial import WARM_START as WARM_START
from hcpr_tune.search.record.trial import WORKER_DIED as WORKER_DIED
from hcpr_tune.search.record.trial import Job as Job
from hcpr_tune.search.record.trial import OldTrial as OldTrial
from hcpr_tune.search.record.trial import Source as Source
from hcpr_tune.search.record.trial import Status as Status
from hcpr_tune.search.record.trial import Trial as Trial
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.objectives import Goal

Index = TypeVar("Index")


@dataclass
class History:
    """The folded record: trials by number, in the order in which they were suggested, and the state of the search."""

    last_epoch: int
    goal: Goal = field(default_factory=Goal)
    trials: dict[int, Trial] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    """Hashes of the indices of the training and validation images."""
    model_inputs: ModelInputs | None = None
    """Channels, classes and image size of the data, known once a job has ended."""
    choice: events.ChoiceEvent | None = None
    """The search's answer, once nothing is left to train; a further trial withdraws it."""
    versions: Versions = field(default_factory=dict)
    workers: int = 0
    fingerprint: str = ""
    seconds: float = 0.0
    """Wall-clock seconds of the sessions so far, up to the latest event."""
    worker_seconds: float = 0.0
    """Seconds that jobs occupied workers, up to the latest event of each."""
    worker_seconds_offered: float = 0.0
    """Seconds of all workers, busy or idle."""
    extensions: list[events.Budget] = field(default_factory=list)
    """New values of the budget since the study began, in order: trials, hours, worker_hours, epochs."""
    requests: set[str] = field(default_factory=set)
    """Names of the requests taken from the inbox."""
    queue: list[Params] = field(default_factory=list)
    """Enqueued points that have not started yet."""
    audited: set[int] = field(default_factory=set)
    """Trials that run to the last epoch to see what early stopping lost."""
    old_trials: list[OldTrial] = field(default_factory=list)
    """Trials of the study that this one was warm-started from."""
    study: Tables = field(default_factory=dict)
    """The study as it was begun, as the tables of its file."""
    losses: list[str] = field(default_factory=list)
    """Descriptions of what was damaged and had to be repeated."""
    test_accesses: list[TestAccess] = field(default_factory=list)
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
    replicates: list[Trial] = field(default_factory=list)
    """The trials that train another one's recipe again."""
    by_source: Counter[Source] = field(default_factory=Counter)
    """Number of trials by source."""
    scored: int = 0
    """Number of trials that have reached a rung."""
    scored_at: dict[int, list[int]] = field(default_factory=dict, repr=False)
    """Rung -> the trials with a score there, in the order in which they reached it."""
    scored_at_both: dict[tuple[int, int], list[int]] = field(default_factory=dict, repr=False)
    """(rung, later rung) -> the trials with a score at both, in the order in which they got the second one."""
    changed: list[int] = field(default_factory=list, repr=False, compare=False)
    """Trials whose status, rungs or promotion changed, in order; an index reads on from where it stopped."""
    _indexes: dict[type[object], object] = field(default_factory=dict, repr=False, compare=False)
    _ranking: Ranking | None = field(default=None, repr=False, compare=False)
    _points: set[tuple[Any, ...]] = field(default_factory=set, repr=False, compare=False)
    _session_began: float = 0.0
    _seconds_before: float = 0.0

    def check(self, plain: Mapping[str, object]) -> Event:
        """The event of a line. Raises `Wrong` if it is invalid or cannot follow what is recorded."""
        event = search_event(plain)
        known = len(self.trials)
        if event["event"] == "trial":
            Number(known, known, integer=True).check(event["trial"], "trial")
            if event["source"] == ENQUEUED and not self.queue:
                raise Wrong(f'source must not be "{ENQUEUED}" if nothing is enqueued')
        elif event["event"] == "test_access":
            following = len(self.test_accesses) + 1
            Number(following, following, integer=True).check(event["number"], "number")
        elif event["event"] == "test_numbers":
            Number(1, len(self.test_accesses), integer=True).check(event["number"], "number")
        for number in events.trials_of(event):
            if number not in self.trials:
                raise Wrong(f"trial must be one of the {known} that are recorded before it, got {number}")
        return event

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
        self._ranking = None
        return news

    def _on_begin(self, event: events.BeginEvent) -> None:
        self._seconds_before, self._session_began = self.seconds, event["time"]
        self.versions, self.workers, self.fingerprint = event["versions"], event["workers"], event["fingerprint"]
        if self.ended == "finished":  # perhaps after too many failures, which the user has fixed before resuming
            self.lost_at_once = []
        self.study, self.ended = self.study or event.get("study", {}), ""
        self._drop_jobs()
        # Requests that came with the session are in the same line, so that a kill cannot separate them.
        for request in event.get("requests", []):
            getattr(self, f"_on_{request['event']}")(request)

    def _on_end(self, event: events.EndEvent) -> None:
        self.ended = event["reason"]
        self._drop_jobs()

    def _drop_jobs(self) -> None:
        """Jobs end with their session; ASHA schedules those again that did not reach their rung."""
        for trial in list(self.running):
            self._reached(trial)

    def _on_workers(self, event: events.WorkersEvent) -> None:
        """Nodes joined or left."""
        self.workers = event["workers"]

    def _on_loss(self, event: events.LossEvent) -> None:
        self.losses.append(event["what"])

    def _on_extend(self, event: events.ExtendEvent) -> None:
        """A larger budget, or a new top rung, to which completed trials wait to be promoted."""
        self.extensions.append(event["budget"])
        if "epochs" in event["budget"]:
            self.last_epoch = int(event["budget"]["epochs"])
            for trial in self.trials.values():
                if trial.status == "completed":
                    self._reached(trial)

    def _on_warm_start(self, event: events.WarmStartEvent) -> None:
        for old in event["trials"]:
            scores = {int(rung): scores for rung, scores in old["scores"].items()}
            self.old_trials.append(OldTrial(old["params"], scores, old["completed"], old["lost"]))

    def _on_enqueue(self, event: events.EnqueueEvent) -> None:
        self.requests.add(event["request"])
        self.queue.append(event["params"])

    def _on_kill(self, event: events.KillEvent) -> bool:
        self.requests.add(event["request"])
        trial = self.trials[event["trial"]]
        if trial.ended:
            return False
        trial.kill_requested = True
        if trial.job is None:
            trial.status, trial.reason = "killed", "killed on request"
            self.changed.append(trial.number)
        return True

    def _on_test_access(self, event: events.TestAccessEvent) -> None:
        self.test_accesses.append({"time": event["time"], "number": event["number"], "command": event["command"]})

    def _on_test_numbers(self, event: events.TestNumbersEvent) -> None:
        self.test_accesses[event["number"] - 1]["numbers"] = event["numbers"]

    def _on_audit(self, event: events.AuditEvent) -> None:
        self.audited |= set(event["trials"])
        self.changed += sorted(self.audited)

    def _on_trial(self, event: events.TrialEvent) -> None:
        number, params, source = event["trial"], event["params"], event["source"]
        trial = self.trials[number] = Trial(
            number,
            params,
            source,
            single_schedule=event.get("single_schedule", False),
            replicate_of=event.get("replicate_of"),
            seed=event.get("seed"),
            began=event["time"],
        )
        self.choice = None
        if trial.replicate_of is not None:
            self.replicates.append(trial)
        self.changed.append(number)
        self.by_source[source] += 1
        self._points.add(_point(params))
        if source == ENQUEUED:
            self.queue.pop(0)

    def _on_choice(self, event: events.ChoiceEvent) -> None:
        self.choice = event

    def _on_job(self, event: events.JobEvent) -> None:
        trial = self.trials[event["trial"]]
        trial.job, trial.status = Job(trial.number, event["start"], event["end"]), "running"
        trial.target, trial.last_heartbeat, trial.fresh = event["end"], event["time"], True
        self.running_jobs[trial.number] = trial
        self.changed.append(trial.number)
        if event["start"] < trial.last_rung:
            trial.epoch_offset = sum(trial.rungs)

    def _on_epoch(self, event: events.EpochEvent) -> bool:
        trial = self.trials[event["trial"]]
        waited = self._hold(trial, event["time"])
        position = trial.epoch_offset + event["epoch"]
        if position in trial.epochs:
            # Trained again after a checkpoint was damaged.
            trial.startup += waited if trial.fresh else 0.0
            trial.fresh = False
            return False
        trial.epochs[position] = event
        trained = trained_seconds(event)
        trial.seconds += trained
        if trial.fresh:
            trial.startup += max(0.0, waited - trained - event.get("seconds_checkpoint", 0.0))
            trial.fresh = False
        if event["is_rung"]:
            scores = accuracies(event)
            self._at_rung(trial, event["epoch"])
            trial.scores[event["epoch"]], trial.rungs[event["epoch"]] = scores, scores["robust_accuracy"]
            trial.positions[event["epoch"]] = position
            trial.best_rung = self.goal.best_rung(trial.scores)
        return True

    def _at_rung(self, trial: Trial, rung: int) -> None:
        """Count a new score."""
        self.changed.append(trial.number)
        if rung in trial.rungs:
            self._indexes.clear()  # a second score at the same rung, which current searches never record
            return
        self.scored += not trial.rungs
        self.scored_at.setdefault(rung, []).append(trial.number)
        for other in trial.rungs:
            self.scored_at_both.setdefault((min(rung, other), max(rung, other)), []).append(trial.number)

    def _on_job_end(self, event: events.JobEndEvent) -> None:
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
        status = event["status"]
        if status == "reached" or status == "broken off" or status == WORKER_DIED:
            self._reached(trial)
        else:
            trial.job, trial.status = None, status
            self.running_jobs.pop(trial.number, None)
            self.changed.append(trial.number)
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
        self.changed.append(trial.number)

    def has_begun(self, params: Params) -> bool:
        """Whether some trial has these values."""
        return _point(params) in self._points

    @property
    def running(self) -> list[Trial]:
        return list(self.running_jobs.values())

    def index(self, kind: type[Index]) -> Index:
        """The history's index of this kind, made when it is first asked for and after a recorded score changed.

        An index belongs to the module that defines its class, and reads in `changed` what it has not seen yet.
        """
        found = self._indexes.get(kind)
        if not isinstance(found, kind):
            found = self._indexes[kind] = kind()
        return found

    @property
    def class_names(self) -> list[str]:
        """The names of the data's classes; empty until a job has ended, and for data without names."""
        return [] if self.model_inputs is None else self.model_inputs.get("class_names", [])

    @property
    def ranking(self) -> Ranking:
        """Which trials are best, worked out once for each state of the history."""
        if self._ranking is None:
            self._ranking = Ranking(self.goal, self.trials.values())
        return self._ranking

    def ranked(self) -> list[Trial]:
        """Trials with a score, best first."""
        return self.ranking.order

    @property
    def best_trial(self) -> Trial | None:
        """The trial whose model is kept in best/; None without any score.

        While the search goes on, the one with the best score (see `Ranking.best`). At its end the answer: the first
        replicate of the chosen recipe that did not collapse, whose seed had no part in finding it.
        """
        return self.ranking.best if self.choice is None else self.trials[self._answer]

    @property
    def _answer(self) -> int:
        assert self.choice is not None
        chosen = self.choice["trial"]
        again = (trial.number for trial in self.replicates_of(chosen) if not trial.collapsed)
        return chosen if chosen == 0 else next(again, chosen)

    @property
    def candidates(self) -> int:
        """Number of recipes with a score that the best one is chosen from."""
        return self.scored - sum(bool(trial.rungs) for trial in self.replicates)

    def replicates_of(self, number: int) -> list[Trial]:
        """The trials that trained a trial's recipe again to the last epoch, in the order of their numbers."""
        return [trial for trial in self.replicates if trial.replicate_of == number and self.last_epoch in trial.rungs]

    @property
    def best_trials(self) -> list[Trial]:
        """The Pareto front (see `Ranking.front`); with one objective the best trial."""
        return self.ranking.front if self.choice is None else [self.trials[self._answer]]


def _point(params: Params) -> tuple[Any, ...]:
    """A compact hashable key, equal for equal values."""
    return tuple(chain.from_iterable(sorted(params.items())))


BESIDE = ("test_access", "test_numbers")
"""Events written outside a session of the search, which do not advance its clock."""
