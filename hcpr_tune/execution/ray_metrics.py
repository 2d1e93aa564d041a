"""Metrics of a search, for Prometheus and Grafana.

Ray exports them, with the prefix `ray_`, at the metrics port of the node where the search runs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hcpr_tune.common.text import named
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.ledger import PARTS, trial_seconds
from hcpr_tune.search.record.results import StoredStudy
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.summary import gain_points

STATES = ("running", "stopped", "interrupted", "completed", "diverged", "failed", "killed")
PACE_SECONDS = 60.0
REFRESH_SECONDS = 1.0
"""Ray exports every few seconds, and drops a gauge that is not set again within about 20 s; epochs may take longer."""


@dataclass(frozen=True)
class Metric:
    """A metric that Ray exports: a counter if `total`, else a gauge. `tag`: a tag in addition to the study."""

    says: str
    total: bool = False
    tag: str = ""


BEST, GAIN = "hcpr_tune_best_robust_accuracy", "hcpr_tune_gain_points"
TRIALS, WORKERS = "hcpr_tune_trials", "hcpr_tune_workers"
PACE, EPOCHS = "hcpr_tune_epochs_per_second", "hcpr_tune_epochs_total"
WORKER_SECONDS, GPU_SECONDS = "hcpr_tune_worker_seconds_total", "hcpr_tune_gpu_seconds_total"
METRICS = {
    BEST: Metric("Robust accuracy on validation of the best trial, a share"),
    GAIN: Metric("Gain of the best trial over the published recipe, in points of robust accuracy on validation"),
    TRIALS: Metric("Trials by state", tag="state"),
    WORKERS: Metric("Trials that the cluster has room for at once"),
    PACE: Metric("Epochs of all trials per second, over the last minute, or longer if epochs take long"),
    EPOCHS: Metric("Epochs trained, including earlier sessions", total=True),
    WORKER_SECONDS: Metric("Worker seconds by purpose", total=True, tag="purpose"),
    GPU_SECONDS: Metric("Seconds that trials held workers, times the GPUs per trial", total=True),
}

Values = dict[tuple[str, str], float]
"""(metric, value of its tag or "") -> value."""


class Tally:
    """The state behind the metrics, updated event by event: the cost of an event does not grow with the study."""

    def __init__(self, study: StudySpec, history: History, gpus_per_trial: float) -> None:
        self._study, self._gpus = study, gpus_per_trial
        self._states: dict[int, str] = {}
        self._seconds: dict[int, dict[str, float]] = {}
        self._running: dict[int, float] = {}
        """The last heartbeat of each running job."""
        self._offered, self._workers = 0.0, 0
        self._epochs: deque[float] = deque()
        self._best: Values = {}
        self._best_is_old, self._best_time, self._best_seconds = False, 0.0, 0.0
        self._take(history, history.trials)
        self._trained = sum(len(trial.epochs) for trial in history.trials.values())
        self.update_best(history)

    def add(self, event: Event, history: History) -> None:
        """Take in an event that the history already has."""
        number = event.get("trial")
        # An event without a trial may have changed any trial.
        self._take(history, [number] if number in history.trials else history.trials)
        if event["event"] == "epoch":
            self._trained += 1
            self._epochs.append(event["time"])
            fewest = 2 * max(1, history.workers) + 1
            while len(self._epochs) > fewest and self._epochs[0] < event["time"] - PACE_SECONDS:
                self._epochs.popleft()
            self._best_is_old = self._best_is_old or event["is_rung"]
        elif event["event"] == "end":
            self._epochs.clear()
        if self._best_is_old and (
            event["event"] == "end" or time.monotonic() - self._best_time >= 20 * self._best_seconds
        ):
            self.update_best(history)

    def _take(self, history: History, numbers: Iterable[int]) -> None:
        """Update the state of these trials, and the workers."""
        for number in numbers:
            trial = history.trials[number]
            self._states[number], self._seconds[number] = trial.state, trial_seconds(trial)
            self._running.pop(number, None)
            if number in history.running_jobs:
                self._running[number] = trial.last_heartbeat
        self._offered, self._workers = history.worker_seconds_offered, history.workers

    def update_best(self, history: History) -> None:
        """Find the best trial, which only a rung changes.

        This takes longer as the study grows; `add` keeps it to a twentieth of the driver's time.
        """
        began = time.monotonic()
        best, gain = history.best_trial, gain_points(history)
        known = {BEST: None if best is None else best.score, GAIN: gain}
        self._best = {(name, ""): value for name, value in known.items() if value is not None}
        self._best_is_old, self._best_time = False, time.monotonic()
        self._best_seconds = self._best_time - began

    def latest_epochs(self) -> Sequence[float]:
        """End times of the latest epochs, from which the pace is computed."""
        return tuple(self._epochs)

    def values(self, now: float) -> Values:
        """All values at the time `now`, except for the pace. The cost grows with the number of trials."""
        states = Counter(self._states.values())
        seconds = {part: sum(one[part] for one in self._seconds.values()) for part in (*PARTS, "other", "held")}
        held = seconds.pop("held")
        # A running job's time is booked with its next heartbeat; until then it does not count as idle.
        unbooked = sum(max(0.0, now - seen) for seen in self._running.values())
        seconds["idle"] = max(0.0, self._offered - held - unbooked)
        return {
            **self._best,
            **{(TRIALS, state): float(states[state]) for state in STATES},
            (WORKERS, ""): float(self._workers),
            (EPOCHS, ""): float(self._trained),
            **{(WORKER_SECONDS, purpose): spent for purpose, spent in seconds.items()},
            (GPU_SECONDS, ""): self._gpus * held,
        }


def pace(epochs: Sequence[float], now: float) -> float:
    """Epochs per second since the first one of these times."""
    return (len(epochs) - 1) / (now - epochs[0]) if len(epochs) > 1 and now > epochs[0] else 0.0


class RayMetrics:
    """A listener that exports the values through Ray. On an error the search goes on without, and `trouble` says why.

    A separate thread exports them periodically, so that the search does not wait for sums over all trials, and the
    pace falls when no epochs end.
    """

    def __init__(self, stored: StoredStudy, gpus_per_trial: float) -> None:
        folder, study, history = stored
        self.trouble = ""
        self._tally = Tally(study, history, gpus_per_trial)
        self._heard = time.time()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        try:
            self._ray = Exported(folder.root.name)
            self._tell(self._heard)
            self._thread.start()
        except Exception as error:
            self._give_up(error)

    def on_event(self, event: Event, history: History) -> None:
        if self.trouble:
            return
        try:
            with self._lock:
                self._tally.add(event, history)
                self._heard = event["time"]
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Export the last values."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self, now: float) -> None:
        """Export the values as of the latest event, and the pace as of `now`."""
        with self._lock:
            values, epochs = self._tally.values(self._heard), self._tally.latest_epochs()
        self._ray.add(values)
        self._ray.set(values | {(PACE, ""): pace(epochs, now)})

    def _keep(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(REFRESH_SECONDS)
            try:
                self._tell(time.time())
            except Exception as error:
                self._give_up(error)
                return

    def _give_up(self, error: Exception) -> None:
        self.trouble = f"metrics for Ray stopped: {named(error)}"


class Exported:
    """The metric objects of Ray, tagged with the study's name."""

    added: ClassVar[dict[tuple[str, ...], float]] = {}
    """What this process has added to each counter: Ray's counters live as long as the connection, across searches."""

    def __init__(self, study: str) -> None:
        import ray
        from ray.util import metrics

        self._study = study
        self._process: str = ray.get_runtime_context().get_worker_id()
        self._metrics: dict[str, Any] = {
            name: (metrics.Counter if one.total else metrics.Gauge)(name, one.says, _tags(one))
            for name, one in METRICS.items()
        }

    def set(self, values: Values) -> None:
        """Set the gauges."""
        for (name, part), value in values.items():
            if not METRICS[name].total:
                self._metrics[name].set(value, self._tagged(name, part))

    def add(self, values: Values) -> None:
        """Increase the counters by what they have grown."""
        for (name, part), value in values.items():
            if METRICS[name].total:
                key = (self._process, self._study, name, part)
                more = value - self.added.get(key, 0.0)
                if more > 0:
                    self._metrics[name].inc(more, self._tagged(name, part))
                    self.added[key] = value

    def _tagged(self, name: str, part: str) -> dict[str, str]:
        return dict(zip(_tags(METRICS[name]), (self._study, part), strict=False))


def _tags(metric: Metric) -> tuple[str, ...]:
    return ("study", metric.tag) if metric.tag else ("study",)
