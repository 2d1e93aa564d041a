"""The images of a trial's rungs, kept in its folder, as checkpoints may be dropped and drawing takes time."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from hcpr_tune.common.drawing import png_size
from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.common.intervals import Proportion
from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.results import StudyFolder, kept_checkpoints, training_name
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.checkpoint_store import EXAMPLES
from hcpr_tune.views.tensorboard.pictures import confusion_png

AT_ONCE = 16
"""Concurrent requests to a bucket."""


def best_rung_at(history: History, trial: Trial, rung: int) -> int:
    """The epoch of the trial's best rung when it had reached `rung`."""
    return history.goal.best_rung({epoch: scores for epoch, scores in trial.scores.items() if epoch <= rung})


def shown_rungs(history: History, trial: Trial) -> list[int]:
    """The rungs that have images: those that were the trial's best when it reached them, including the first."""
    return [rung for rung in sorted(trial.rungs) if best_rung_at(history, trial, rung) == rung]


class TrialPictures:
    """Fetches the images that workers drew from checkpoints or the bucket, and draws those that the record determines.

    If the storage does not answer, an image is just left out.
    """

    def __init__(self, folder: StudyFolder, study: StudySpec) -> None:
        self._folder, self._study = folder, study

    def examples(self, trial: Trial, rung: int) -> bytes | None:
        """The image that the worker drew; None if it was not fetched."""
        path = self._folder.root / examples_key(trial.number, rung)
        return path.read_bytes() if path.exists() else None

    def confusion(self, history: History, trial: Trial, rung: int) -> bytes | None:
        """The confusion matrix under attack; None if the record does not have it."""
        path = self._folder.trial(trial.number) / f"attacked_classes_epoch_{rung:04d}.png"
        if path.exists():
            return path.read_bytes()
        event = trial.at_rung(rung)
        robust = Proportion(event["robust_correct_validation"], event["total_validation"])
        heading = (
            f"trial {trial.number}, epoch {rung}: {robust.count} of {robust.total} images stay correct under attack"
        )
        names = history.class_names
        png = confusion_png(event, names, f"{heading} ({100 * robust.share:.1f} %)")
        # There are no names before the first job has ended; the next session then draws it again.
        if png is not None and names:
            write_bytes_whole(path, png)
        return png

    def bring(self, trial: Trial, rung: int, copied: Collection[str] = ()) -> None:
        """Fetch the image of a rung that was just reported, or one that is among the `copied` files in the bucket."""
        number = trial.number
        key = examples_key(number, rung)
        training = training_name(trial, rung, self._study.restarted)
        try:
            if self._folder.bucket is not None and key in copied:
                png = self._folder.bucket.read(key)
            else:
                png = self._folder.checkpoint_store.read(training, rung, EXAMPLES)
        except StorageError:
            return
        if png is not None and png_size(png) is not None:
            self._folder.trial(number).mkdir(parents=True, exist_ok=True)
            write_bytes_whole(self._folder.root / key, png)

    def bring_missing(self, history: History) -> None:
        """Fetch all missing images in parallel: those of another machine's session, or of a killed one."""
        wanted = {
            (trial.number, rung)
            for trial in history.trials.values()
            for rung in shown_rungs(history, trial)
            if not (self._folder.root / examples_key(trial.number, rung)).exists()
        }
        copied: Collection[str] = ()
        if self._folder.bucket is not None and wanted:
            try:
                copied = set(self._folder.bucket.keys("trials"))
            except StorageError:
                return
            # Requesting every image that was ever drawn would take minutes.
            wanted &= kept_checkpoints(self._study, history) | {one for one in wanted if examples_key(*one) in copied}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: self.bring(history.trials[one[0]], one[1], copied), wanted))


def examples_key(number: int, rung: int) -> str:
    """The image's path in the study's folder, and in the bucket's copy of it."""
    return f"trials/trial_{number:04d}/examples_epoch_{rung:04d}.png"
