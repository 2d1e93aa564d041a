"""TensorBoard's view of a search, written by the driver as soon as something is recorded: a run per trial, and one for the study."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.spec.space import with_params
from hcpr_tune.search.spec.study import Study, study_to_toml
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
"""Tag of each reported number."""
RATE = "images_per_second/training"
EXAMPLES, CONFUSION = "pictures/examples", "pictures/attacked_classes"
SAYS = {
    EXAMPLES: "The same validation images for every trial, before and after the attack that trials are judged by, and what changed,"
    " amplified. Below each its true class and what the model takes it for. Rungs that were the trial's best when it reached them.",
    CONFUSION: "Validation images by true class (row) and class under attack (column), the darker the larger the share of its row."
    " The diagonal stayed right. Rungs that were the trial's best when it reached them.",
}


def curve_values(event: Event) -> dict[str, float]:
    """What an epoch adds to the curves, by tag."""
    values = {tag: float(event[name]) for name, tag in CURVES.items()}
    for kind in ("robust", "clean"):
        if f"{kind}_correct_validation" in event:
            values[f"accuracy_validation/{kind}"] = event[f"{kind}_correct_validation"] / event["total_validation"]
    training = event["seconds_attack"] + event["seconds_update"]
    if event.get("images") and training > 0:
        values[RATE] = event["images"] / training
    return values


def best_values(trial: Trial, best: int) -> dict[str, float]:
    """What the table of trials says of a trial that is judged by the rung `best`."""
    scores = trial.scores[best]
    return {
        hparams.BEST_ROBUST: scores["robust_accuracy"],
        hparams.BEST_CLEAN: scores["clean_accuracy"],
        hparams.BEST_EPOCH: best,
    }


class TensorBoardView:
    """A listener: the run `trials/trial_0003` in a trial's folder with curves, values, recipe and pictures; the study's own in its folder.

    The files are rebuilt from the record when a search is resumed, so that no step is missing or doubled. A trial's file is closed with
    its job, so that open files do not grow with the number of trials.
    """

    def __init__(self, folder: StudyFolder, study: Study, history: History) -> None:
        self._folder, self._study = folder, study
        self._pictures = TrialPictures(folder, study)
        self._open: dict[int, EventFile] = {}
        self._ends: dict[int, str] = {}
        """The state that a trial's file ends with."""
        self._emptied: list[Path] = []
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
                self._pictures.bring(trial.number, event["epoch"])
            self._add(history, trial, trial.epoch_offset + event["epoch"])
        elif event["event"] == "job_end":
            self._end(history, history.trials[event["trial"]])
        elif event["event"] == "end":
            # Before a bucket's copy of the folder is brought up to date for the last time.
            self.close()

    def _write_study(self) -> None:
        values = [*hparams.experiment(self._study), *text("study", study_to_toml(self._study))]
        write_alone(self._folder.root / f"{PREFIX}study", values)

    def _write_anew(self, history: History, trial: Trial) -> None:
        """A trial's file from the record."""
        self._close(trial.number)
        self._emptied += emptied(self._folder.trial(trial.number))
        self._open[trial.number] = EventFile(self._folder.trial(trial.number), anew=True)
        self._begin(trial)
        for step in sorted(trial.epochs):
            self._add(history, trial, step)
        self._write_end(trial)
        self._close(trial.number)

    def _begin(self, trial: Trial) -> None:
        recipe = recipe_to_toml(with_params(self._study.recipe, trial.params))
        values = [*hparams.session_start(self._study, trial), *text("recipe", recipe)]
        self._file(trial.number).write(trial.began, 0, values)

    def _add(self, history: History, trial: Trial, step: int) -> None:
        """An epoch at `step`: its number, or where each rung is a training of its own, the number of epochs trained so far."""
        event = trial.epochs[step]
        values = scalars(curve_values(event))
        if event["is_rung"]:
            rung = event["epoch"]
            best = best_rung_at(history, trial, rung)
            values += scalars(best_values(trial, best))
            if best == rung:
                values += image(EXAMPLES, self._pictures.examples(trial, rung), SAYS[EXAMPLES])
                values += image(CONFUSION, self._pictures.confusion(history, trial, rung), SAYS[CONFUSION])
        self._file(trial.number).write(event["time"], step, values)

    def _end(self, history: History, trial: Trial) -> None:
        if trial.number in self._ends and self._ends[trial.number] != trial.state and trial.lost:
            # It was stopped and then promoted. TensorBoard goes by the first end in a file.
            self._write_anew(history, trial)
        elif trial.number not in self._ends:
            self._write_end(trial)
        self._close(trial.number)

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
