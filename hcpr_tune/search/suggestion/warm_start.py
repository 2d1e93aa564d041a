"""Warm starts: the trials of an earlier study in the dimensions of a new one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hcpr_tune.common.paths import is_file, reading
from hcpr_tune.common.settings import dotted_names, get_dotted, show, to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.events.search import CarriedTrial, WarmStartEvent
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.record.record import read_history
from hcpr_tune.search.spec.dimensions import field_of
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.study import StudySpec, extended
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.training.recipe import Recipe

FIXED = ("model.", "method", "batch_size")
"""Parts of the recipe that must be equal if neither study searches them, since coefficients depend on them."""
COMPARED = ("images", "steps", "restarts", "targets", "relative_step_size", "seed")
"""Evaluation settings that scores depend on."""


def warm_start(folder: Path, study: StudySpec, time: float) -> WarmStartEvent:
    """The event that gives a new study the trials of the study in `folder`.

    A trial is carried over with its values in the new study's dimensions, including values that the earlier study held
    fixed, unless one lies outside its dimension. Rung scores are carried over if both studies train the same way up to
    that rung; others are not comparable. Raises `InputError` for a different task or measure.
    """
    if not all(is_file(folder / name, f"--warm-start {folder}") for name in ("study.toml", "record.jsonl")):
        raise InputError(f"--warm-start {folder}: there is no study; give a folder such as results/NAME")
    old = read_study(folder / "study.toml")
    with reading(f"--warm-start {folder}"):
        history = read_history(folder / "record.jsonl", old.recipe.epochs, old.goal)
    old = extended(old, history.extensions)
    check_same_measure("--warm-start", folder, old.recipe, study.recipe)
    check_same_training("--warm-start", folder, old, study)
    trials = [plain for trial in history.trials.values() if (plain := _carried(trial, old, study)) is not None]
    if not trials:
        raise InputError(
            f"--warm-start {folder}: none of its {len(history.trials)} trials lies inside this study's dimensions;"
            " widen them, or drop --warm-start"
        )
    return {"event": "warm_start", "time": time, "from": folder.name, "fingerprint": old.fingerprint, "trials": trials}


def check_same_measure(option: str, folder: Path, old: Recipe, new: Recipe) -> None:
    """Raises `InputError`, naming the `option` that gave the earlier study, for a different task or measure."""
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
                f"{option} {folder}: its scores cannot be compared, its {key} is {show(theirs[name])},"
                f" here it is {show(value)}; drop {option}, or set {key} to the same value"
            )


def check_same_training(option: str, folder: Path, old: StudySpec, new: StudySpec) -> None:
    """The same for settings that neither study searches and that coefficients depend on."""
    theirs, ours = to_plain(old.recipe), to_plain(new.recipe)
    searched = {field_of(name) for name in (*old.space, *new.space)}
    for name in dotted_names(Recipe):
        one, other = get_dotted(theirs, name), get_dotted(ours, name)
        if name.startswith(FIXED) and name not in searched and one != other:
            raise InputError(
                f"{option} {folder}: its {name} is {show(one)}, here it is {show(other)}, so its trials are not"
                f" comparable; drop {option}, or set {name} to the same value"
            )


def _means_the_same(rung: int, old: Recipe, new: Recipe) -> bool:
    """Whether both recipes train the same way up to this epoch: equal length, or an equal schedule up to the rung."""
    if old.lr_schedule != new.lr_schedule:
        return False
    if old.lr_schedule.mode == "restarted":
        return True
    if old.lr_schedule.mode == "annealed" and rung in new.rungs:
        return [one for one in old.rungs if one <= rung] == [one for one in new.rungs if one <= rung]
    return old.epochs == new.epochs


def _carried(trial: Trial, old: StudySpec, new: StudySpec) -> CarriedTrial | None:
    if trial.single_schedule:
        return None  # another training than that of the others
    params = params_of(with_params(old.recipe, trial.params), new.space)
    if not all(new.space[name].holds(value) for name, value in params.items()):
        return None
    scores = {
        str(rung): scores for rung, scores in trial.scores.items() if _means_the_same(rung, old.recipe, new.recipe)
    }
    if not scores and not trial.lost:
        return None
    return {"params": params, "scores": scores, "completed": trial.status == "completed", "lost": trial.lost}
