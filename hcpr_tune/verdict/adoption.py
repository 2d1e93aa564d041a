"""Trainings that the search has made, taken over by a verdict: its replicates, instead of training them once more."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hcpr_tune.common.settings import to_plain
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StoredStudy, StudyFolder, training_name
from hcpr_tune.verdict.driver import NOT_KEPT
from hcpr_tune.verdict.external_model import keep
from hcpr_tune.verdict.plan import Model, Plan
from hcpr_tune.verdict.state import State


def adopt(study: StoredStudy, own: StudyFolder, plan: Plan, record: Record[State]) -> None:
    """Record the search's trainings of the plan's models, and keep their weights in `own`, the verdict's folder.

    One whose weights are gone is left out, and so trained by the verdict. Raises `StorageError`.
    """
    for candidate in plan.candidates:
        replicates = {trial.seed: trial for trial in study.history.replicates_of(candidate.trial or 0)}
        for model in plan.models(candidate, plan.seeds):
            known, trial = record.history.models.get(model.id), replicates.get(model.seed)
            if trial is not None and (known is None or not known.finished) and _take_weights(study, own, model, trial):
                _tell(record, model, trial)


def _take_weights(study: StoredStudy, own: StudyFolder, model: Model, trial: Trial) -> bool:
    folder, spec, _ = study
    training = training_name(trial, trial.last_rung, spec.restarted)
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
        weights = Path(scratch) / "model.safetensors"
        if folder.checkpoint_store.copy_weights(training, trial.last_rung, weights):
            return False
        keep(own, model, trial.last_rung, weights)
    return True


def _tell(record: Record[State], model: Model, trial: Trial) -> None:
    """The events of the training, as if the verdict had trained it: the model, its last epoch, the job's end."""

    def write(what: str, **values: Any) -> None:
        event = {"event": what, "time": record.clock(), "model": model.id, **values}
        record.history.check(event)
        record.append(event)

    recipe = to_plain(model.recipe)
    write("model", candidate=model.candidate, seed=model.seed, recipe=recipe, weights=model.weights)
    job, skipped = f"train {model.id}", ("event", "time", "trial", *NOT_KEPT)
    epoch = {name: value for name, value in trial.at_rung(trial.last_rung).items() if name not in skipped}
    write("epoch", job=job, **epoch)
    write("job_end", job=job, kind="train", status="reached", reason="")
