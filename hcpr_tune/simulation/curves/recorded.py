"""Learning curves from the records of earlier studies, resampled with their noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hcpr_tune.common.paths import reading
from hcpr_tune.common.seeds import derive_seed
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.fields import accuracies, trained_seconds
from hcpr_tune.search.record.history import Event, History, Trial
from hcpr_tune.search.record.lines import read_lines
from hcpr_tune.search.spec.dimensions import Params, Space
from hcpr_tune.search.spec.objectives import OBJECTIVES
from hcpr_tune.search.spec.points import coordinates, params_of, with_params
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.search.storage.studies import COPIES, reopen
from hcpr_tune.search.suggestion.warm_start import check_same_measure, check_same_training
from hcpr_tune.simulation.curves.curves import Curve, other_seed
from hcpr_tune.simulation.curves.resampling import FEWEST, Array, Redrawn, continued, noise_of


@dataclass(frozen=True)
class Measured:
    """One recorded trial in a new study's dimensions.

    Accuracies by epoch, the time of an epoch relative to the study's mean, and the epoch where it was lost (0: never).
    """

    params: Params
    robust: Mapping[int, float]
    clean: Mapping[int, float]
    relative_seconds: float
    lost_at: int


@dataclass(frozen=True)
class OldStudy:
    """An earlier study with its record."""

    folder: Path
    study: StudySpec
    history: History
    events: Sequence[Event]


def read_old(given: str | Path, option: str = "--from", storage: str | Path = COPIES) -> OldStudy:
    """Read a study, given by its name in `storage` or by its path.

    Raises `InputError` if there is no study, or no trial has reached a rung.
    """
    folder, study, history = reopen(storage, given, f"{option} ")
    if not any(trial.rungs for trial in history.trials.values()):
        raise InputError(f"{option} {folder.root}: none of its trials has reached a rung; give a study that has")
    with reading(f"{option} {folder.root}"):
        # `reopen` has checked them.
        events = cast(list[Event], read_lines(folder.record).events)
    return OldStudy(folder.root, study, history, events)


def check_comparable(old: OldStudy, study: StudySpec) -> None:
    """Raise `InputError` if the old study's scores are not comparable with this study's."""
    check_same_measure("--from", old.folder, old.study.recipe, study.recipe)
    check_same_training("--from", old.folder, old.study, study)
    theirs, ours = old.study.recipe, study.recipe
    if theirs.lr_schedule != ours.lr_schedule or (ours.lr_schedule.mode == "single" and theirs.epochs != ours.epochs):
        what = "lr_schedule" if theirs.lr_schedule != ours.lr_schedule else f"one schedule over {theirs.epochs} epochs"
        raise InputError(
            f"--from {old.folder}: its scores are of another training, since its {what} is not this study's; "
            "drop --from, or set lr_schedule.* and epochs as there"
        )


def measured(old: OldStudy, study: StudySpec) -> list[Measured]:
    """The old study's trials that lie inside the study's dimensions."""
    seconds = relative_seconds(old.history)
    found = []
    for number, trial in old.history.trials.items():
        if trial.single_schedule:
            continue  # another training than that of the others
        params = params_of(with_params(old.study.recipe, trial.params), study.space)
        if all(study.space[name].holds(value) for name, value in params.items()) and (trial.rungs or trial.lost):
            scores = _scores(trial, old.study.restarted)
            lost_at = trial.last_epoch + 1 if trial.lost else 0
            found.append(
                Measured(
                    params,
                    scores["robust_accuracy"],
                    scores["clean_accuracy"],
                    seconds.get(number, 1.0),
                    lost_at,
                )
            )
    return found


def relative_seconds(history: History) -> dict[int, float]:
    """The time of each trial's epochs relative to the mean over all trials of the same epochs.

    Epochs are compared one by one because some are evaluated and some have more attack steps.
    """
    spent: dict[int, list[float]] = {}
    for trial in history.trials.values():
        for event in trial.epochs.values():
            spent.setdefault(event["epoch"], []).append(trained_seconds(event))
    mean = {epoch: sum(values) / len(values) for epoch, values in spent.items()}
    return {
        number: sum(map(trained_seconds, trial.epochs.values()))
        / sum(mean[event["epoch"]] for event in trial.epochs.values())
        for number, trial in history.trials.items()
        if trial.epochs
    }


def _scores(trial: Trial, restarted: bool) -> dict[str, dict[int, float]]:
    """Objective -> accuracy by epoch, at every epoch that was scored; in mode `restarted`, only at the rungs."""
    if restarted:
        scores_at = trial.scores
    else:
        evaluated = (event for event in trial.epochs.values() if "total_validation" in event)
        scores_at = {event["epoch"]: accuracies(event) for event in evaluated}
    return {name: {epoch: scores[name] for epoch, scores in scores_at.items()} for name in OBJECTIVES}


@dataclass(frozen=True)
class RecordedCurves:
    """Curves of recorded trials: a new trial gets the curve of the recorded trial nearest to it in the search space.

    The curve is resampled, because only the measured accuracies of a trial are known, not the true ones. Both are
    assumed to be normally distributed over trials, with the measurement noise of `images` images. The true curve is
    drawn given the measured one and then measured anew: over many trials, means, spreads and correlations between
    epochs match the record. Trials that were stopped early are first continued like one of the trials with the most
    similar scores.
    """

    trials: Sequence[Measured]
    space: Space
    images: int
    words: str
    rungs: tuple[tuple[int, ...], ...]
    """The rungs of each study that the curves were recorded in."""

    guess = False
    knows_params = True

    def play(self, epochs: Sequence[int], trials: int, seed: int) -> RecordedPlay:
        draws = np.random.default_rng(derive_seed(seed, "recorded curves"))
        table = np.array(
            [
                [scores.get(epoch, np.nan) for scores in (trial.robust, trial.clean) for epoch in epochs]
                for trial in self.trials
            ]
        )
        self._check(epochs, table)
        count = len(epochs)
        full = continued(table[:, :count], table[:, count:], draws)
        curves = Redrawn.of(full, noise_of(full, self.images))
        points = np.array([coordinates(trial.params, self.space) for trial in self.trials])
        return RecordedPlay(tuple(epochs), self.images, self, curves, points, seed)

    def _check(self, epochs: Sequence[int], table: Array) -> None:
        known = sorted({epoch for trial in self.trials for epoch in trial.robust})
        for column, epoch in enumerate(epochs):
            scored = int(np.isfinite(table[:, column]).sum())
            if scored == 0:
                raise InputError(
                    f"{self.words} has no score at epoch {epoch}, where a rung is (it has {_listed(known)}); "
                    "choose rungs among these, or drop --from"
                )
            if scored < FEWEST:
                raise InputError(
                    f"{self.words} has only {scored} scored trial{'s' * (scored > 1)} at epoch {epoch}, "
                    f"where a rung is; at least {FEWEST} are needed to tell how trials differ there"
                )


def recorded_curves(old: Sequence[OldStudy], study: StudySpec) -> RecordedCurves:
    """The curves of several studies for the trials of another one. Raises `InputError` if they have none for it."""
    trials = [one for study_of in old for one in measured(study_of, study)]
    names = ", ".join(str(one.folder) for one in old)
    if not trials:
        raise InputError(
            f"--from {names}: none of its trials lies inside this study's dimensions; widen them, or drop --from"
        )
    images = min(
        event["total_validation"]
        for one in old
        for event in one.events
        if event["event"] == "epoch" and "total_validation" in event
    )
    return RecordedCurves(
        trials,
        study.space,
        images,
        f"{names} ({len(trials)} trials)",
        tuple(dict.fromkeys(one.study.rungs for one in old)),
    )


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(map(str, epochs[:12])) + (", ..." if len(epochs) > 12 else "")


@dataclass(frozen=True)
class RecordedPlay:
    """The curves of one repeat; each trial has its own draws, independent of the order of calls."""

    epochs: Sequence[int]
    images: int
    source: RecordedCurves
    curves: Redrawn
    points: Array
    seed: int

    def curve(self, trial: int, params: Params) -> Curve:
        away = self.points - np.array(coordinates(params, self.source.space))
        nearest = int((away**2).sum(axis=1).argmin())
        draws = np.random.default_rng((self.seed & (2**63 - 1), trial))
        seen, true = self.curves.draw(nearest, draws)
        count, one = len(self.epochs), self.source.trials[nearest]
        return Curve(
            seen[:count].tolist(),
            seen[count:].tolist(),
            true[:count].tolist(),
            true[count:].tolist(),
            one.lost_at,
            relative_seconds=one.relative_seconds,
        )

    def replicate(self, trial: int, of: int, params: Params) -> Curve:
        return other_seed(self.curve(of, params), self.images, derive_seed(self.seed, "replicate", trial))
