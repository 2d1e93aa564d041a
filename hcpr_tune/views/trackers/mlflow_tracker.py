"""A search in MLflow: a trial's run is a child of the study's run."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hcpr_tune.views.trackers.tracked import STUDY, Point, Run

EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
PREFIX = "hcpr_tune"
AT_ONCE = 500
"""Metrics per request; MLflow's limit is a thousand."""
STATUSES = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "finished": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "storage": "FAILED",
}
"""MLflow's status for how a trial or a session ended; KILLED for all others."""


class MlflowTracker:
    """Finds earlier runs by their tags, and adds only the steps that MLflow does not have."""

    def __init__(self, folder: Path, study: Run) -> None:
        self._entities, self._client = _connected()
        name = experiment_name()
        found = self._client.get_experiment_by_name(name)
        self._experiment: str = found.experiment_id if found else self._client.create_experiment(name)
        self._runs: dict[str, str] = {}
        self._ends: dict[str, tuple[str | None, str | None]] = {}
        self._steps: dict[str, int] = {}
        for run in self._earlier(study):
            tags = run.data.tags
            key = tags[f"{PREFIX}.run"]
            self._runs[key] = run.info.run_id
            self._ends[key] = tags.get(f"{PREFIX}.steps"), tags.get(f"{PREFIX}.state")

    def has(self, run: Run, steps: int, state: str) -> bool:
        return self._ends.get(run.key) == (str(steps), state)

    def open(self, run: Run, points: Sequence[Point]) -> None:
        if run.key in self._runs:
            self._client.update_run(self._runs[run.key], status="RUNNING")
        else:
            self._begin(run)
        if run.key not in self._steps:
            self._steps[run.key] = self._last_step(run)
        lacking = [point for point in points if point.step > self._steps[run.key]]
        metrics = [metric for point in lacking for metric in self._metrics(point)]
        for begin in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._runs[run.key], metrics=metrics[begin : begin + AT_ONCE])
        self._steps[run.key] = max([self._steps[run.key], *(point.step for point in lacking)])

    def add(self, run: Run, point: Point) -> None:
        if point.step > self._steps[run.key]:
            self._client.log_batch(self._runs[run.key], metrics=list(self._metrics(point)))
            self._steps[run.key] = point.step

    def end(self, run: Run, state: str, time: float) -> None:
        steps = str(self._steps[run.key])
        tags = [self._entities.RunTag(f"{PREFIX}.{name}", tag) for name, tag in (("state", state), ("steps", steps))]
        self._client.log_batch(self._runs[run.key], tags=tags)
        self._ends[run.key] = steps, state
        self._client.set_terminated(self._runs[run.key], STATUSES.get(state, "KILLED"), round(1000 * time))

    def close(self) -> None:
        pass

    def _earlier(self, study: Run) -> Iterator[Any]:
        """The study's runs of earlier sessions."""
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{PREFIX}.identity` = '{study.identity}'", page_token=token or None
            )
            yield from page
            token = page.token or None

    def _begin(self, run: Run) -> None:
        tags = {f"{PREFIX}.{name}": value for name, value in run.tags.items()}
        tags |= {f"{PREFIX}.identity": run.identity, f"{PREFIX}.run": run.key, "mlflow.source.name": PREFIX}
        if run.key != STUDY:
            tags["mlflow.parentRunId"] = self._runs[STUDY]
        began = round(1000 * run.began)
        made = self._client.create_run(self._experiment, start_time=began, tags=tags, run_name=run.name)
        self._runs[run.key] = made.info.run_id
        self._steps[run.key] = 0
        # MLflow has no @ in names.
        params = [self._entities.Param(name.replace("@", ":"), str(value)) for name, value in run.params.items()]
        self._client.log_batch(made.info.run_id, params=params)

    def _last_step(self, run: Run) -> int:
        """The last step in MLflow. One metric is enough, as the values of a point are written together."""
        known = self._client.get_metric_history(self._runs[run.key], run.always)
        return max((metric.step for metric in known), default=0)

    def _metrics(self, point: Point) -> Iterator[Any]:
        for name, value in point.values.items():
            yield self._entities.Metric(name, value, round(1000 * point.time), point.step)


def _connected() -> tuple[Any, Any]:
    """MLflow's entities, and its client, configured by MLflow's environment variables. Turns off telemetry and logs."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow = importlib.import_module("mlflow")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return importlib.import_module("mlflow.entities"), mlflow.MlflowClient()


def experiment_name() -> str:
    """The experiment that the runs belong to."""
    return os.environ.get(EXPERIMENT) or PREFIX
