"""The results folder: the files the driver writes for users and programs, all rebuilt from the record."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hcpr_tune.common.buckets.location import Location
from hcpr_tune.common.files import write_json, write_whole
from hcpr_tune.search.record.history import Event, History, Job, Trial
from hcpr_tune.search.record.ledger import ledger, plan_plain
from hcpr_tune.search.record.metrics import best_metrics, metrics_line, rungs_plain, trials_csv
from hcpr_tune.search.record.segments import SEGMENTS
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.checkpoint_store import BucketStore, CheckpointStore, FolderStore
from hcpr_tune.search.storage.object_store import FolderObjectStore, ObjectStore
from hcpr_tune.training.recipe import Recipe, recipe_to_toml

if TYPE_CHECKING:
    from hcpr_tune.common.buckets.bucket import Bucket


@dataclass(frozen=True)
class StudyFolder:
    """Paths in results/NAME, which is a local copy if the study is stored in a bucket."""

    root: Path
    bucket: Bucket | None = None

    @property
    def address(self) -> str:
        """The study's folder or URL, for messages."""
        return str(self.root) if self.bucket is None else self.bucket.url

    @property
    def location(self) -> Location:
        """The same, in parts."""
        return Location.parse(self.address)

    @property
    def objects(self) -> ObjectStore:
        """The store of the record, the lease and the requests."""
        return FolderObjectStore(self.root) if self.bucket is None else self.bucket

    @property
    def checkpoint_store(self) -> CheckpointStore:
        return FolderStore(self.checkpoints) if self.bucket is None else BucketStore(self.bucket.child("checkpoints"))

    @property
    def study(self) -> Path:
        return self.root / "study.toml"

    @property
    def record(self) -> Path:
        return self.root / "record.jsonl"

    @property
    def table(self) -> Path:
        return self.root / "trials.csv"

    @property
    def best(self) -> Path:
        return self.root / "best"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def rungs(self) -> Path:
        return self.root / "rungs.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.json"

    def record_bytes(self) -> int:
        """Current size of the record."""
        if self.bucket is not None:
            return sum(self.bucket.sizes(SEGMENTS).values())
        return self.record.stat().st_size if self.record.exists() else 0

    def trial(self, number: int) -> Path:
        return self.root / "trials" / f"trial_{number:04d}"


def training_name(trial: Trial, end: int, restarted: bool) -> str:
    """The name of a training's checkpoints: one per trial, or one per rung `end` if each is a separate training."""
    return f"trial_{trial.number:04d}" + (f"_to_{end:04d}" if restarted or trial.single_schedule else "")


class StoredStudy(NamedTuple):
    """A study where it is stored: its folder or bucket, what its file says, and what has been recorded so far."""

    folder: StudyFolder
    spec: StudySpec
    history: History

    @property
    def name(self) -> str:
        return self.folder.root.name


class ResultFiles:
    """A listener that keeps the trials' metrics, the table, the best model and the checkpoints up to date."""

    def __init__(self, stored: StoredStudy) -> None:
        folder, study, history = stored
        self._folder, self._study = folder, study
        self._best: tuple[int, int] | None = None
        self._weights_wrong = ""
        self._settled = self._settling = 0.0
        for trial in history.trials.values():
            self._open_trial(trial)
        self._settle(history)

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] == "trial":
            self._open_trial(history.trials[event["trial"]])
        elif event["event"] == "epoch":
            with self._metrics(event["trial"]).open("a", encoding="utf-8") as file:
                file.write(metrics_line(event))
        elif event["event"] == "end" or (event["event"] == "job_end" and self._due()):
            self._settle(history)

    def close(self) -> None:
        pass

    def _metrics(self, number: int) -> Path:
        return self._folder.trial(number) / "metrics.jsonl"

    def _open_trial(self, trial: Trial) -> None:
        """The trial's folder with its recipe and the metrics recorded so far."""
        self._folder.trial(trial.number).mkdir(parents=True, exist_ok=True)
        recipe = recipe_of(self._study, trial)
        _bring_up_to_date(self._folder.trial(trial.number) / "recipe.toml", recipe_to_toml(recipe))
        metrics = "".join(metrics_line(trial.epochs[epoch]) for epoch in sorted(trial.epochs))
        _bring_up_to_date(self._metrics(trial.number), metrics)

    def _due(self) -> bool:
        """Rewriting everything takes longer as the study grows; limit it to a twentieth of the driver's time."""
        return time.monotonic() - self._settled >= 20 * self._settling

    def _settle(self, history: History) -> None:
        began = time.monotonic()
        write_whole(self._folder.table, trials_csv(self._study, history))
        write_json(self._folder.rungs, rungs_plain(self._study, history))
        account = ledger(history, self._study.asha_config) | {"plan": plan_plain(self._study, history)}
        write_json(self._folder.ledger, account)
        self._export_best(history)
        drop_checkpoints(self._folder.checkpoint_store, self._study, history)
        self._settled = time.monotonic()
        self._settling = self._settled - began

    def _export_best(self, history: History) -> None:
        best = history.best_trial
        if best is None:
            return
        self._folder.best.mkdir(exist_ok=True)
        if (best.number, best.best_rung) != self._best:
            self._weights_wrong = self._export_weights(best)
            self._best = best.number, best.best_rung
        write_whole(self._folder.best / "recipe.toml", recipe_to_toml(trained_recipe(self._study, best)))
        wrong = {"weights_missing": self._weights_wrong} if self._weights_wrong else {}
        write_json(self._folder.best / "metrics.json", best_metrics(self._study, history) | wrong)

    def _export_weights(self, best: Trial) -> str:
        """Copy the weights of the best rung to best/, and return what is wrong with them, if anything.

        In that case there are no weights in best/, since any others would not fit the recipe.
        """
        target = self._folder.best / "model.safetensors"
        training = training_name(best, best.best_rung, self._study.restarted)
        wrong = self._folder.checkpoint_store.copy_weights(training, best.best_rung, target)
        if wrong and self._holds(best):
            return ""  # the checkpoints were deleted after the study ended
        if wrong:
            target.unlink(missing_ok=True)
        return wrong

    def _holds(self, best: Trial) -> bool:
        """Whether best/ already has this trial's weights, from an earlier session."""
        try:
            metrics = json.loads((self._folder.best / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        if not isinstance(metrics, dict):
            return False
        there = (self._folder.best / "model.safetensors").is_file()
        return there and (metrics.get("trial"), metrics.get("epoch_of_score")) == (best.number, best.best_rung)


def _bring_up_to_date(path: Path, text: str) -> None:
    """Write a file unless it has this text already, which spares a resumed search thousands of writes."""
    try:
        if path.read_bytes() == text.encode("utf-8"):
            return
    except FileNotFoundError:
        pass
    write_whole(path, text)


def trained_recipe(study: StudySpec, trial: Trial) -> Recipe:
    """The recipe up to the epoch the trial was trained to, so that retraining it gives the same model and numbers.

    If each rung is a separate training, it is that of the trial's best rung.
    """
    return _stopped_at(study, trial, trial.best_rung if study.restarted else trial.last_rung)


def recipe_of_job(study: StudySpec, trial: Trial, job: Job) -> Recipe:
    """The recipe that a worker trains for a job; if each rung is a separate training, it ends with the job."""
    return _stopped_at(study, trial, job.end if study.restarted else study.recipe.epochs)


def _stopped_at(study: StudySpec, trial: Trial, epoch: int) -> Recipe:
    recipe = recipe_of(study, trial)
    if trial.single_schedule:
        return replace(
            recipe, epochs=epoch
        )  # an earlier end, from before the search was extended, was a whole training
    return replace(recipe, stop_epoch=epoch if epoch < study.recipe.epochs else 0)


def recipe_of(study: StudySpec, trial: Trial) -> Recipe:
    """The recipe of a trial, trained to the last epoch."""
    recipe = with_params(study.single_schedule if trial.single_schedule else study.recipe, trial.params)
    return recipe if trial.seed is None else replace(recipe, seed=trial.seed)


def kept_checkpoints(study: StudySpec, history: History) -> set[tuple[int, int]]:
    """The rung checkpoints (trial, epoch) that are still needed.

    These are the latest rung of every trial that runs or may be promoted, and the best rung of the study's best trials.
    """
    going_on = [trial for trial in history.trials.values() if not trial.ended and not study.restarted]
    latest = {(trial.number, trial.last_rung) for trial in going_on}
    return latest | best_checkpoints(study, history)


def best_checkpoints(study: StudySpec, history: History) -> set[tuple[int, int]]:
    """The best rung (trial, epoch) of the study's best trials, and the replicates of the answer and its baseline.

    Before there is an answer, those of all finalists.
    """
    best = {(trial.number, trial.best_rung) for trial in history.ranked()[: study.settings.keep_weights]}
    answers = None if history.choice is None else (0, history.choice["trial"])
    return best | {
        (trial.number, trial.last_rung)
        for trial in history.replicates
        if trial.rungs and (answers is None or trial.replicate_of in answers)
    }


def most_checkpoints(study: StudySpec, history: History, workers: int) -> int:
    """The most checkpoints a study has at once.

    One for each trial that may be promoted and each of the best, and for each running trial two more and one being
    written.
    """
    trials = max(study.settings.budget.trials, len(history.trials) + len(history.queue))
    waiting = 0 if study.restarted or len(study.rungs) == 1 else trials
    return waiting + study.settings.keep_weights + study.asha_config.replicates + 3 * workers


def drop_checkpoints(store: CheckpointStore, study: StudySpec, history: History) -> None:
    """Delete checkpoints that are no longer needed. Those between rungs belong to the worker while a trial runs."""
    kept = {
        (training_name(history.trials[number], rung, study.restarted), rung)
        for number, rung in kept_checkpoints(study, history)
    }
    for training, epoch, _ in store.listed():
        trial = history.trials.get(int(training.split("_")[1]))
        if trial is None or (training, epoch) in kept:
            continue
        at_rung = epoch in trial.rungs and training == training_name(trial, epoch, study.restarted)
        # A trial that was stopped at a rung would be resumed from that rung only.
        if trial.ended or at_rung or trial.state == "stopped":
            store.drop(training, epoch)
