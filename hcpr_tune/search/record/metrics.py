"""What is written and shown of trials: plain values, worked out from the history."""

from __future__ import annotations

import csv
import io
import json
from typing import TypedDict

from hcpr_tune.common.intervals import Proportion, ProportionPlain
from hcpr_tune.common.schema import ModelInputs
from hcpr_tune.search.record.answer import answer_of, mean_score
from hcpr_tune.search.record.events.fields import Epoched, Masking, accuracies
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.scheduling.rung_correlation import rung_correlations
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.study import StudySpec

ACCURACIES = ("robust_accuracy_validation", "clean_accuracy_validation")


class Accuracies(TypedDict, total=False):
    """Both accuracies on validation at a trial's best rung, with their intervals; missing before its first rung."""

    robust_accuracy_validation: ProportionPlain
    clean_accuracy_validation: ProportionPlain


class TrialMetrics(Accuracies):
    """A trial's results. `rungs`: robust accuracy by rung."""

    trial: int
    source: str
    replicate_of: int | None
    status: str
    reason: str
    epochs: int
    epoch_of_score: int | None
    rungs: dict[str, float]
    seconds: float
    params: Params


class MaskingAtEpoch(Masking):
    """The counts of the gradient masking check, and the epoch that they are of."""

    epoch: int


class RungRow(TypedDict):
    """How well a rung predicts the next rung and the end, and whether it stops trials."""

    epoch: int
    trials: int
    stops: bool
    with_next: dict[str, float | int | None]
    with_end: dict[str, float | int | None]


class Rungs(TypedDict):
    """rungs.json."""

    min_rank_correlation: float
    rungs: list[RungRow]


class Pairs(TypedDict, total=False):
    """Which class the attack turns into which, as in the rung's report."""

    attacked_pairs_validation: list[list[int]]
    class_totals_validation: list[int]


class AnswerPlain(TypedDict):
    """The chosen recipe and the published one on the same fresh seeds: mean robust accuracies, and their difference.

    `optimism_points`: by how much the search's own score of the recipe was higher.
    """

    trial: int
    seeds: list[int | None]
    robust_accuracy_validation: float
    published_robust_accuracy_validation: float | None
    gain_points: float | None
    gain_points_95: list[float] | None
    optimism_points: float | None


class BestMetrics(TrialMetrics, Pairs):
    """metrics.json of the best trial."""

    published: TrialMetrics
    answer: AnswerPlain | None
    objective: list[str]
    front: list[int]
    rungs_worth: Rungs
    masking_validation: MaskingAtEpoch | None
    chosen_from: int
    note: str
    study_fingerprint: str
    split_index_hashes: dict[str, str]
    model_inputs: ModelInputs | dict[str, object]
    device: str
    precision: str
    threads: int
    versions: dict[str, str]


def rung_accuracies(trial: Trial) -> dict[str, Proportion] | None:
    """Robust and clean validation accuracy at the trial's best rung; None before its first rung."""
    if not trial.rungs:
        return None
    epoch = trial.at_rung(trial.best_rung)
    total = epoch["total_validation"]
    return {
        "robust_accuracy_validation": Proportion(epoch["robust_correct_validation"], total),
        "clean_accuracy_validation": Proportion(epoch["clean_correct_validation"], total),
    }


def trial_metrics(trial: Trial) -> TrialMetrics:
    """A trial's results as plain values."""
    return {
        "trial": trial.number,
        "source": trial.source,
        "replicate_of": trial.replicate_of,
        "status": trial.state,
        "reason": trial.reason,
        "epochs": trial.last_epoch,
        "epoch_of_score": trial.best_rung or None,
        **_accuracies_plain(trial),
        "rungs": {str(epoch): score for epoch, score in sorted(trial.rungs.items())},
        "seconds": round(trial.seconds, 3),
        "params": trial.params,
    }


def _accuracies_plain(trial: Trial) -> Accuracies:
    found = rung_accuracies(trial)
    if found is None:
        return {}
    robust, clean = (proportion.to_plain() for proportion in found.values())
    return {"robust_accuracy_validation": robust, "clean_accuracy_validation": clean}


def trial_columns(study: StudySpec) -> list[str]:
    """The columns of the table of trials."""
    columns = ["trial", "source", "replicate_of", "status", "epochs", "epoch_of_score"]
    columns += [f"{name}{suffix}" for name in ACCURACIES for suffix in ("", "_low", "_high")]
    return [*columns, "seconds", *sorted(study.space), "reason"]


def trial_row(trial: Trial) -> dict[str, object]:
    """One trial's row by column; missing values are left out."""
    row = {name: value for name, value in trial_metrics(trial).items() if name not in (*ACCURACIES, "rungs", "params")}
    for name, proportion in (rung_accuracies(trial) or {}).items():
        low, high = proportion.interval
        row |= {name: proportion.share, f"{name}_low": low, f"{name}_high": high}
    return row | trial.params


FORMULAS = ("=", "+", "-", "@", "\t", "\n")
"""Prefixes that make a spreadsheet evaluate a text."""


def guarded(value: object) -> object:
    """A cell for spreadsheets: a text that would be a formula gets a leading apostrophe, and line ends become newlines.

    Numbers are left as they are.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULAS) else text


def trials_csv(study: StudySpec, history: History) -> str:
    """One row per trial, in the order of their numbers."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, trial_columns(study), lineterminator="\n")
    writer.writeheader()
    for trial in history.trials.values():
        row = {name: guarded(value) for name, value in trial_row(trial).items()}
        row |= {name: f"{value:.6f}" for name, value in row.items() if name.startswith(ACCURACIES)}
        writer.writerow(row)
    return buffer.getvalue()


def metrics_row(epoch: Epoched) -> dict[str, object]:
    """One epoch as it was reported, with accuracies in addition to the counts."""
    row = {name: value for name, value in epoch.items() if name != "event"}
    if "total_validation" in epoch:
        row |= {f"{name}_validation": share for name, share in accuracies(epoch).items()}
    return row


def metrics_line(event: Epoched) -> str:
    """One epoch as a line of metrics.jsonl."""
    return json.dumps(metrics_row(event)) + "\n"


def masking_of(trial: Trial) -> MaskingAtEpoch | None:
    """The counts of the gradient masking check, with their epoch; None for a trial that has not been checked."""
    measured = [event for event in trial.epochs.values() if "masking_validation" in event]
    return {"epoch": measured[-1]["epoch"], **measured[-1]["masking_validation"]} if measured else None


def masking_alarms(trial: Trial) -> list[str]:
    """Why the trial's numbers may be too good: signs of masked gradients."""
    masking = masking_of(trial)
    return [] if masking is None else masking["alarms"]


def rungs_plain(study: StudySpec, history: History) -> Rungs:
    """The rank correlation of each rung, and whether the rung stops trials."""
    least = study.settings.early_stopping.min_rank_correlation
    return {
        "min_rank_correlation": least,
        "rungs": [
            {
                "epoch": rung,
                "trials": sum(rung in trial.rungs for trial in history.trials.values()),
                "stops": rung_correlation.halves(least),
                "with_next": rung_correlation.next.to_plain(),
                "with_end": rung_correlation.end.to_plain(),
            }
            for rung, rung_correlation in rung_correlations(history, study.rungs).items()
        ],
    }


def answer_plain(history: History) -> AnswerPlain | None:
    """The answer on fresh seeds; None before a search has chosen, and without replicates."""
    found = answer_of(history)
    if found is None:
        return None
    difference = found.difference
    return {
        "trial": found.chosen.number,
        "seeds": [trial.seed for trial in found.replicates],
        "robust_accuracy_validation": found.score,
        "published_robust_accuracy_validation": mean_score(found.published) if found.published else None,
        "gain_points": found.gain,
        "gain_points_95": None if difference is None else [100 * difference.low, 100 * difference.high],
        "optimism_points": found.optimism,
    }


def best_metrics(study: StudySpec, history: History) -> BestMetrics:
    """The metrics of the best trial and of the published recipe, and the study that they come from."""
    best, published = history.best_trial, history.trials[0]
    assert best is not None
    at_score = best.at_rung(best.best_rung)
    pairs: Pairs = {}
    if "attacked_pairs_validation" in at_score:
        pairs["attacked_pairs_validation"] = at_score["attacked_pairs_validation"]
    if "class_totals_validation" in at_score:
        pairs["class_totals_validation"] = at_score["class_totals_validation"]
    return {
        **trial_metrics(best),
        "published": trial_metrics(published),
        "objective": list(study.settings.objective),
        "front": [trial.number for trial in history.best_trials],
        "rungs_worth": rungs_plain(study, history),
        **pairs,
        "masking_validation": masking_of(best),
        "answer": answer_plain(history),
        "chosen_from": history.candidates,
        "note": "Accuracies are on the validation images that the trial was chosen by, and so optimistic. Those of"
        " `answer` are on seeds that had no part in finding the recipe.",
        "study_fingerprint": study.fingerprint,
        "split_index_hashes": history.splits,
        "model_inputs": history.model_inputs or {},
        "device": at_score["device"],
        "precision": at_score.get("precision", ""),
        "threads": study.recipe.threads,
        "versions": history.versions,
    }
