"""Learning from an earlier study: its trials in the dimensions of a new one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.search.record import Event, Trial, read_history
from hcpr_tune.search.space import params_of, with_params
from hcpr_tune.search.study import Study, extend, read_study
from hcpr_tune.settings import show, to_plain
from hcpr_tune.training.recipe import Recipe

COMPARED = ("images", "steps", "restarts", "relative_step_size", "seed")
"""Settings of the evaluation that a score depends on."""


def warm_start(folder: Path, study: Study, time: float) -> Event:
    """The event that tells a new study what the study in `folder` found.

    A trial comes over with its values of the new study's dimensions, those that the earlier study held fixed included, unless one lies
    outside. Its rung scores come with their epochs; where the two studies tie the learning rate to the rungs in different ways, only those at full
    length, because the others do not mean the same. Raises `InputError` for another task or another measure.
    """
    if not (folder / "study.toml").is_file() or not (folder / "record.jsonl").is_file():
        raise InputError(f"--warm-start {folder}: there is no study; give a folder such as results/NAME")
    old = read_study(folder / "study.toml")
    history = read_history(folder / "record.jsonl", old.recipe.epochs, old.goal)
    old = extend(old, history.extended) if history.extended else old
    _check_same_measure(folder, old.recipe, study.recipe)
    trials = [plain for trial in history.trials.values() if (plain := _carried(trial, old, study)) is not None]
    if not trials:
        raise InputError(
            f"--warm-start {folder}: none of its {len(history.trials)} trials lies inside this study's dimensions; widen them, or drop it"
        )
    return {"event": "warm_start", "time": time, "from": folder.name, "fingerprint": old.fingerprint, "trials": trials}


def _check_same_measure(folder: Path, old: Recipe, new: Recipe) -> None:
    theirs, ours = to_plain(replace(old.task, root="")), to_plain(replace(new.task, root=""))
    for name in COMPARED:
        theirs[f"evaluation.{name}"], ours[f"evaluation.{name}"] = (
            getattr(old.evaluation, name),
            getattr(new.evaluation, name),
        )
    for name, value in ours.items():
        if theirs[name] != value:
            key = name if "." in name else f"task.{name}"
            raise InputError(
                f"--warm-start {folder}: its scores cannot be compared, its {key} is {show(theirs[name])}, here it is {show(value)}; drop --warm-start, or set that"
            )


def _carried(trial: Trial, old: Study, new: Study) -> dict[str, Any] | None:
    params = params_of(with_params(old.recipe, trial.params), new.space)
    if not all(new.space[name].holds(value) for name, value in params.items()):
        return None
    same_rungs = old.recipe.lr_schedule.mode == new.recipe.lr_schedule.mode
    scores = {
        str(rung): scores
        for rung, scores in trial.scores.items()
        if same_rungs or rung == old.recipe.epochs == new.recipe.epochs
    }
    if not scores and not trial.lost:
        return None
    return {"params": params, "scores": scores, "completed": trial.status == "completed", "lost": trial.lost}
