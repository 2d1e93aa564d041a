"""What travels between a driver and its workers, as JSON: job orders one way, reports the other, checked on arrival."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from hcpr_tune.common.schema import Maybe, Number, Row, Shape, Table, Text, Truth, Wrong, check_model_inputs
from hcpr_tune.search.record.events.check import search_event, verdict_event

COUNT, EPOCH, TEXT = Number(0, integer=True), Number(1, integer=True), Text()
Plain = dict[str, Any]
"""A recipe or a model's inputs as plain values; their own modules check them."""


class Common(TypedDict):
    """What every order says. `name` and `values` go into the worker's log; `gpus`: the GPUs of a job, or a share."""

    study: str
    name: str
    values: str
    recipe: Plain
    gpus: float


class TrainOrder(Common):
    """Train the recipe from the end of epoch `start` to the end of epoch `end`.

    reported: the latest recorded epoch; checkpoints: a folder or a bucket's URL; checkpoint_every: in epochs.
    """

    kind: Literal["train"]
    start: int
    end: int
    reported: int
    checkpoints: str
    checkpoint_every: int


class Weights(TypedDict):
    """The weights of a training at a rung; epoch 0 for those of an external model."""

    training: str
    epoch: int


class Step(TypedDict):
    """The latest attack that an earlier attempt got through, and the predicted classes after it."""

    attack: str
    classes: list[int]


class AttackOrder(Common):
    """Attack a model on a chunk of a split, with the attacks of `cascade`. store: where its weights are."""

    kind: Literal["attack"]
    store: str
    weights: Weights
    split: str
    images: int
    chunk_size: int
    chunk: int
    cascade: str
    begun: Step | None


class Baseline(TypedDict):
    """The model that adversarial examples are transferred from."""

    recipe: Plain
    weights: Weights


class ChecksOrder(Common):
    """Check a model's robustness on the first chunk of validation: a transfer attack from `baseline`, if there is one,
    on the images that `survive`, and the gradient masking check if `with_masking`.
    """

    kind: Literal["checks"]
    store: str
    weights: Weights
    images: int
    chunk_size: int
    survive: list[bool]
    baseline: Baseline | None
    with_masking: bool


Order = TrainOrder | AttackOrder | ChecksOrder

_COMMON: dict[str, Shape] = {"study": TEXT, "name": TEXT, "values": TEXT, "recipe": Table(), "gpus": Number(0)}
_WEIGHTS = Table(needed={"training": TEXT, "epoch": COUNT})
_OF_MODEL: dict[str, Shape] = {
    **_COMMON,
    "store": TEXT,
    "weights": _WEIGHTS,
    "images": COUNT,
    "chunk_size": Number(1, integer=True),
}
_ORDERS = {
    "train": Table(
        needed={
            **_COMMON,
            "start": COUNT,
            "end": EPOCH,
            "reported": COUNT,
            "checkpoints": TEXT,
            "checkpoint_every": Number(1, integer=True),
        }
    ),
    "attack": Table(
        needed={
            **_OF_MODEL,
            "split": Text(("validation", "test")),
            "chunk": COUNT,
            "cascade": TEXT,
            "begun": Maybe(Table(needed={"attack": TEXT, "classes": Row(Number(-1, integer=True))})),
        }
    ),
    "checks": Table(
        needed={
            **_OF_MODEL,
            "survive": Row(Truth()),
            "baseline": Maybe(Table(needed={"recipe": Table(), "weights": _WEIGHTS})),
            "with_masking": Truth(),
        }
    ),
}


def read_order(text: str) -> Order:
    """An order on its worker. Raises `Wrong`, naming the field, for one that this version does not understand."""
    order = json.loads(text)
    if not isinstance(order, dict):
        raise Wrong("the job's order must be a table")
    Text(tuple(_ORDERS)).check(order.get("kind"), "the order's kind")
    _ORDERS[order["kind"]].check(order, "order")
    return cast(Order, order)


class Masking(TypedDict):
    """The counts of the gradient masking check, and its alarms in words."""

    images: int
    alarms: list[str]
    survive_margin_10: NotRequired[int]
    survive_margin_50: NotRequired[int]
    survive_cross_entropy_50: NotRequired[int]
    without_gradient: NotRequired[int]


class EpochReport(TypedDict):
    """A trained epoch: `training.loop.Epoch` with accuracies as counts. Those not required are not simulated."""

    epoch: int
    is_rung: bool
    seconds_attack: float
    seconds_update: float
    seconds_evaluation: float
    loss: NotRequired[float]
    classification_loss: NotRequired[float]
    consistency_loss: NotRequired[float]
    lr: NotRequired[float]
    pace: NotRequired[float]
    consistency_factor: NotRequired[float]
    attack_steps: NotRequired[int]
    images: NotRequired[int]
    device: NotRequired[str]
    precision: NotRequired[str]
    robust_correct_validation: NotRequired[int | float]
    clean_correct_validation: NotRequired[int | float]
    total_validation: NotRequired[int]
    attacked_pairs_validation: NotRequired[list[list[int]]]
    class_totals_validation: NotRequired[list[int]]
    masking_validation: NotRequired[Masking]
    survived_validation: NotRequired[str]
    survivors_validation: NotRequired[list[list[float]]]
    seconds_startup: NotRequired[float]
    seconds_checkpoint: NotRequired[float]
    worker: NotRequired[str]
    recipe: NotRequired[str]
    picture_failed: NotRequired[str]


class AttackReport(TypedDict):
    """A chunk after one attack of its cascade: `classes` has the label of each image that survives."""

    attack: str
    classes: list[int]
    warnings: list[str]
    labels: list[int]
    total: int
    of_classes: int
    worker: NotRequired[str]


class ChecksReport(TypedDict):
    """How many of the images that APGD had not broken the transfer attack broke, and the masking check if it ran."""

    broken: int
    images: int
    masking: Masking | None


EndStatus = Literal["reached", "diverged", "failed", "unwritable", "weights damaged"]
REACHED: EndStatus = "reached"
DIVERGED: EndStatus = "diverged"
FAILED: EndStatus = "failed"
UNWRITABLE: EndStatus = "unwritable"
"""A checkpoint could not be stored: an error of the storage, not of the trial."""
DAMAGED: EndStatus = "weights damaged"
"""The weights to attack are damaged: their model is trained again."""


class JobEnd(TypedDict):
    """How a job ended. `damaged`: which weights are, with status `DAMAGED`."""

    status: EndStatus
    reason: str
    traceback: NotRequired[str]
    splits: NotRequired[dict[str, str]]
    model_inputs: NotRequired[Plain]
    damaged: NotRequired[Weights]


class Report(TypedDict, total=False):
    """What a worker says: what it has just done, and `end` with the last report of a job.

    losses: checkpoints that were found damaged, in words.
    """

    epoch: EpochReport
    attack: AttackReport
    checks: ChecksReport
    losses: list[str]
    end: JobEnd


_END = Table(
    needed={"status": Text((REACHED, DIVERGED, FAILED, UNWRITABLE, DAMAGED)), "reason": TEXT},
    known={"traceback": TEXT, "splits": Table(others=TEXT), "model_inputs": Table(), "damaged": _WEIGHTS},
)
_REPORT = Table(
    known={"epoch": Table(), "attack": Table(), "checks": Table(), "losses": Row(TEXT), "end": _END},
)


def read_report(text: str) -> Report:
    """A worker's report on the driver. Raises `Wrong`, naming the field, for one that no record would take."""
    report: dict[str, Any] = json.loads(text)
    _REPORT.check(report, "report")
    if "epoch" in report:
        search_event({"event": "epoch", "time": 0, "trial": 0, **report["epoch"]})
    if "attack" in report:
        verdict_event({"event": "step", "time": 0, "model": "", "job": "", "scope": "", "chunk": 0} | report["attack"])
    if "checks" in report:
        verdict_event({"event": "checks", "time": 0, "model": "", "job": "", "baseline": "", **report["checks"]})
    end = report.get("end", {})
    if "model_inputs" in end:
        check_model_inputs(end["model_inputs"], "model_inputs")
    if end.get("status") == DAMAGED:
        _WEIGHTS.check(end.get("damaged"), "damaged")
    return cast(Report, report)


def failed(reason: str, traceback: str = "") -> Report:
    """The report of a job that failed."""
    end: JobEnd = {"status": FAILED, "reason": reason}
    if traceback:
        end["traceback"] = traceback
    return {"end": end}


def refused(error: Wrong) -> Report:
    """What a driver records in place of a report that its record would not take: that the job failed."""
    return failed(f"its worker's report cannot be recorded: {error}")


def job_result(end: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a job's end that records have."""
    return {name: end[name] for name in ("status", "reason", "traceback", "splits", "model_inputs") if name in end}
