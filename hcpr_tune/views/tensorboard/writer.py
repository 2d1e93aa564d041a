"""The TensorBoard files of a search, written as events are recorded: a run per trial, and one for the study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hcpr_tune.common.drawing import legend
from hcpr_tune.search.record.events.fields import accuracies
from hcpr_tune.search.record.events.search import EpochEvent
from hcpr_tune.search.record.events.verdict import VerdictEpochEvent
from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.results import StoredStudy, recipe_of
from hcpr_tune.search.spec.study import study_to_toml
from hcpr_tune.training.recipe import recipe_to_toml
from hcpr_tune.views.tensorboard import hparams
from hcpr_tune.views.tensorboard.event_file import PREFIX, EventFile, emptied, image, scalars, text, write_alone
from hcpr_tune.views.tensorboard.trial_pictures import TrialPictures, best_rung_at

CURVES = {
    "loss": "loss/total",
    "classification_loss": "loss/accuracy",
    "consistency_loss": "loss/consistency",
    "lr": "schedule/lr",
    "pace": "schedule/pace",
    "consistency_factor": "schedule/consistency_factor",
    "attack_steps": "schedule/attack_steps",
    "seconds_attack": "seconds/attack",
    "seconds_update": "seconds/update",
    "seconds_evaluation": "seconds/evaluation",
}
"""The tag of each reported number."""
RATE = "images_per_second/training"
EXAMPLES, CONFUSION = "pictures/examples", "pictures/attacked_classes"
SAYS = {
    EXAMPLES: "The same validation images for every trial, before and after the attack that trials are evaluated with,"
    " and the difference, amplified. Below each its true class and the predicted one. Rungs that were the trial's best"
    " when it reached them.",
    CONFUSION: "Validation images by true class (row) and class under attack (column), the darker the larger the share"
    " of its row. Images on the diagonal are still correct. Rungs that were the trial's best when it reached them.",
}


def curve_values(event: EpochEvent | VerdictEpochEvent) -> dict[str, float]:
    """The curves' values at an epoch, by tag."""
    reported: Mapping[str, Any] = event
    values = {tag: float(reported[name]) for name, tag in CURVES.items()}
    if "total_validation" in event:
        shares = accuracies(event)
        values["accuracy_validation/robust"] = shares["robust_accuracy"]
        values["accuracy_validation/clean"] = shares["clean_accuracy"]
    training = event["seconds_attack"] + event["seconds_update"]
    if (images := event.get("images", 0)) and training > 0:
        values[RATE] = images / training
    return values


def best_values(trial: Trial, best: int) -> dict[str, float]:
    """The table's values for a trial whose best rung is `best`."""
    scores = trial.scores[best]
    return {
        hparams.BEST_ROBUST: scores["robust_accuracy"],
        hparams.BEST_CLEAN: scores["clean_accuracy"],
        hparams.BEST_EPOCH: best,
    }


class TensorBoardView:
    """A listener that writes each trial's curves, values, recipe and images to its folder, and a run for the study.

    The files are rebuilt from the record when a search is resumed, so that no step is missing or duplicated. A trial's
    file is closed with its job, so that the number of open files does not grow with the trials.
    """

    def __init__(self, stored: StoredStudy) -> None:
        folder, study, history = stored
        self._folder, self._study = folder, study
        self._pictures = TrialPictures(folder, study)
        self._open: dict[int, EventFile] = {}
        self._ends: dict[int, str] = {}
        """The final state in each trial's file."""
        self._emptied: list[Path] = []
        self._unnamed: set[int] = set()
        """The trials whose pictures have classes' numbers instead of their names."""
        self._write_study()
        self._pictures.bring_missing(history)
        for trial in history.trials.values():
            self._write_anew(history, trial)

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] == "trial":
            self._begin(history.trials[event["trial"]])
        elif event["event"] == "epoch":
            trial = history.trials[event["trial"]]
            if event["is_rung"]:
                self._pictures.bring(trial, event["epoch"])
            self._add(history, trial, trial.epoch_offset + event["epoch"])
        elif event["event"] == "job_end":
            self._end(history, history.trials[event["trial"]])
            self._name_classes(history)
        elif event["event"] == "end":
            # Close now, before the folder is synced to the bucket for the last time.
            self.close()

    def _write_study(self) -> None:
        values = [*hparams.experiment(self._study), *text("study", study_to_toml(self._study))]
        write_alone(self._folder.root / f"{PREFIX}study", values)

    def _write_anew(self, history: History, trial: Trial) -> None:
        """Rewrite a trial's file from the record."""
        self._close(trial.number)
        self._emptied += emptied(self._folder.trial(trial.number))
        self._open[trial.number] = EventFile(self._folder.trial(trial.number), anew=True)
        self._begin(trial)
        for step in sorted(trial.epochs):
            self._add(history, trial, step)
        self._write_end(trial)
        self._close(trial.number)

    def _begin(self, trial: Trial) -> None:
        recipe = recipe_to_toml(recipe_of(self._study, trial))
        values = [*hparams.session_start(self._study, trial), *text("recipe", recipe)]
        self._file(trial.number).write(trial.began, 0, values)

    def _add(self, history: History, trial: Trial, step: int) -> None:
        """Add an epoch at `step`: its number or, if each rung is a separate training, the epochs trained so far."""
        event = trial.epochs[step]
        values = scalars(curve_values(event))
        if event["is_rung"]:
            rung = event["epoch"]
            best = best_rung_at(history, trial, rung)
            values += scalars(best_values(trial, best))
            if best == rung:
                numbers = legend(history.class_names)
                more = f" Class {numbers}." if numbers else ""
                values += image(EXAMPLES, self._pictures.examples(trial, rung), SAYS[EXAMPLES] + more)
                values += image(CONFUSION, self._pictures.confusion(history, trial, rung), SAYS[CONFUSION] + more)
                if not history.class_names:
                    self._unnamed.add(trial.number)
        self._file(trial.number).write(event["time"], step, values)

    def _end(self, history: History, trial: Trial) -> None:
        if trial.number in self._ends and self._ends[trial.number] != trial.state and trial.lost:
            # It was stopped and then promoted. TensorBoard uses the first end in a file.
            self._write_anew(history, trial)
        elif trial.number not in self._ends:
            self._write_end(trial)
        self._close(trial.number)

    def _name_classes(self, history: History) -> None:
        """Draw again what had to be drawn before a job had ended, which is when the classes' names are known."""
        names = history.class_names
        if not names:
            return
        if names != [str(number) for number in range(len(names))]:
            for number in sorted(self._unnamed):
                self._write_anew(history, history.trials[number])
        self._unnamed.clear()

    def _write_end(self, trial: Trial) -> None:
        values = hparams.session_end(trial)
        if values:
            self._ends[trial.number] = trial.state
            self._file(trial.number).write(trial.last_heartbeat, max(trial.epochs, default=0), values)

    def _file(self, number: int) -> EventFile:
        if number not in self._open:
            self._open[number] = EventFile(self._folder.trial(number))
        return self._open[number]

    def _close(self, number: int) -> None:
        if number in self._open:
            self._open.pop(number).close()

    def close(self) -> None:
        for number in list(self._open):
            self._close(number)
        for path in self._emptied:
            path.unlink(missing_ok=True)
