"""The results folder: what the driver writes for people and programs, all of it rebuilt from the record."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hcpr_tune.files import copy_whole, write_json, write_whole
from hcpr_tune.proportions import Proportion
from hcpr_tune.search.record import Event, History, Trial
from hcpr_tune.search.space import with_params
from hcpr_tune.search.study import Study
from hcpr_tune.training.recipe import Recipe, recipe_to_toml


@dataclass(frozen=True)
class StudyFolder:
    """Where things lie in results/NAME."""

    root: Path

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

    def trial(self, number: int) -> Path:
        return self.root / "trials" / f"trial_{number:04d}"

    def checkpoint(self, number: int, epoch: int) -> Path:
        return self.checkpoints / f"trial_{number:04d}" / f"epoch_{epoch:04d}"


def rung_accuracies(trial: Trial) -> dict[str, Proportion] | None:
    """Robust and clean accuracy of the trial's best rung on validation; None before its first rung."""
    if not trial.rungs:
        return None
    epoch = trial.epochs[trial.best_rung]
    total = epoch["total_validation"]
    return {
        "robust_accuracy_validation": Proportion(epoch["robust_correct_validation"], total),
        "clean_accuracy_validation": Proportion(epoch["clean_correct_validation"], total),
    }


def trial_metrics(trial: Trial) -> dict[str, Any]:
    """What a trial reached, as plain values."""
    accuracies = rung_accuracies(trial) or {}
    return {
        "trial": trial.number,
        "source": trial.source,
        "status": trial.state,
        "reason": trial.reason,
        "epochs": trial.last_epoch,
        "epoch_of_score": trial.best_rung or None,
        **{name: proportion.to_plain() for name, proportion in accuracies.items()},
        "rungs": {str(epoch): score for epoch, score in sorted(trial.rungs.items())},
        "seconds": round(trial.seconds, 3),
        "params": trial.params,
    }


def trials_csv(study: Study, history: History) -> str:
    """One row per trial in the order of their numbers."""
    buffer = io.StringIO()
    accuracies = ("robust_accuracy_validation", "clean_accuracy_validation")
    columns = ["trial", "source", "status", "epochs", "epoch_of_score"]
    columns += [f"{name}{suffix}" for name in accuracies for suffix in ("", "_low", "_high")]
    columns += ["seconds", *study.space, "reason"]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for trial in history.trials.values():
        row = {name: value for name, value in trial_metrics(trial).items() if name in columns}
        for name, proportion in (rung_accuracies(trial) or {}).items():
            low, high = proportion.interval
            row |= {name: f"{proportion.share:.6f}", f"{name}_low": f"{low:.6f}", f"{name}_high": f"{high:.6f}"}
        writer.writerow(row | trial.params)
    return buffer.getvalue()


class ResultFiles:
    """A listener that keeps the trials' metrics, the table, the best model and the checkpoints as the record has them."""

    def __init__(self, folder: StudyFolder, study: Study, history: History) -> None:
        self._folder, self._study = folder, study
        self._best: tuple[int, int] | None = None
        for trial in history.trials.values():
            self._open_trial(trial)
        self._settle(history)

    def on_event(self, event: Event, history: History) -> None:
        if event["event"] == "trial":
            self._open_trial(history.trials[event["trial"]])
        elif event["event"] == "epoch":
            with self._metrics(event["trial"]).open("a", encoding="utf-8") as file:
                file.write(metrics_line(event))
        elif event["event"] in ("job_end", "end"):
            self._settle(history)

    def close(self) -> None:
        pass

    def _metrics(self, number: int) -> Path:
        return self._folder.trial(number) / "metrics.jsonl"

    def _open_trial(self, trial: Trial) -> None:
        """The trial's folder with its recipe and the metrics recorded so far."""
        self._folder.trial(trial.number).mkdir(parents=True, exist_ok=True)
        recipe = with_params(self._study.recipe, trial.params)
        write_whole(self._folder.trial(trial.number) / "recipe.toml", recipe_to_toml(recipe))
        write_whole(self._metrics(trial.number), "".join(metrics_line(trial.epochs[e]) for e in sorted(trial.epochs)))

    def _settle(self, history: History) -> None:
        write_whole(self._folder.table, trials_csv(self._study, history))
        self._export_best(history)
        drop_checkpoints(self._folder, self._study, history)

    def _export_best(self, history: History) -> None:
        ranked = history.ranked()
        if not ranked:
            return
        best = ranked[0]
        self._folder.best.mkdir(exist_ok=True)
        weights = self._folder.checkpoint(best.number, best.best_rung) / "model.safetensors"
        # Missing where somebody cleared the checkpoints of a study that is over: best/ has had its copy then.
        if (best.number, best.best_rung) != self._best and weights.is_file():
            copy_whole(weights, self._folder.best / "model.safetensors")
            self._best = best.number, best.best_rung
        write_whole(self._folder.best / "recipe.toml", recipe_to_toml(trained_recipe(self._study, best)))
        write_json(self._folder.best / "metrics.json", best_metrics(self._study, history))


def metrics_line(event: Event) -> str:
    """One epoch as a line of metrics.jsonl, with the shares next to the counts."""
    line = {name: value for name, value in event.items() if name != "event"}
    for kind in ("robust", "clean"):
        if f"{kind}_correct_validation" in event:
            line[f"{kind}_accuracy_validation"] = event[f"{kind}_correct_validation"] / event["total_validation"]
    return json.dumps(line) + "\n"


def masking_of(trial: Trial) -> dict[str, Any] | None:
    """What the masking alarm counted, with its epoch; None for a trial that did not come to its last one."""
    measured = [event for event in trial.epochs.values() if "masking_validation" in event]
    return {"epoch": measured[-1]["epoch"], **measured[-1]["masking_validation"]} if measured else None


def trained_recipe(study: Study, trial: Trial) -> Recipe:
    """The recipe as far as the trial was trained, so that training it again gives the same model and numbers."""
    stop_epoch = trial.last_rung if trial.last_rung < study.recipe.epochs else 0
    return replace(with_params(study.recipe, trial.params), stop_epoch=stop_epoch)


def best_metrics(study: Study, history: History) -> dict[str, Any]:
    """What is known of the best trial, beside the published recipe, and of the study that it comes from."""
    best, published = history.ranked()[0], history.trials[0]
    at_score = best.epochs[best.best_rung]
    pairs: dict[str, Any] = {
        name: at_score[name] for name in ("attacked_pairs_validation", "class_totals_validation") if name in at_score
    }
    return trial_metrics(best) | {
        "published": trial_metrics(published),
        **pairs,
        "masking_validation": masking_of(best),
        "chosen_from": sum(bool(trial.rungs) for trial in history.trials.values()),
        "note": "Accuracies are on the validation images that the trial was chosen by, and the published recipe is one of those"
        " that it was chosen from: the difference is optimistic.",
        "study_fingerprint": study.fingerprint,
        "split_index_hashes": history.splits,
        "model_inputs": history.model_inputs,
        "device": at_score["device"],
        "threads": study.recipe.threads,
        "versions": history.versions,
    }


def kept_checkpoints(study: Study, history: History) -> set[tuple[int, int]]:
    """The rung checkpoints (trial, epoch) that are still needed.

    The latest rung of every trial that runs or may be promoted, and the best rung of the study's best trials.
    """
    latest = {(trial.number, trial.last_rung) for trial in history.trials.values() if not trial.ended}
    best = {(trial.number, trial.best_rung) for trial in history.ranked()[: study.settings.keep_weights]}
    return latest | best


def drop_checkpoints(folder: StudyFolder, study: Study, history: History) -> None:
    """Delete the checkpoints that nothing needs any more. Those between rungs belong to the worker while a trial goes on."""
    kept = kept_checkpoints(study, history)
    for path in folder.checkpoints.glob("trial_*/epoch_*"):
        number, epoch = int(path.parent.name.removeprefix("trial_")), int(path.name.removeprefix("epoch_"))
        trial = history.trials.get(number)
        if trial is not None and (number, epoch) not in kept and (trial.ended or epoch in trial.rungs):
            shutil.rmtree(path, ignore_errors=True)
