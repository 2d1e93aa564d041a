"""Fields of events with their bounds, and the fields that events of a search and of a verdict share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict, get_args, get_type_hints

from hcpr_tune.common.schema import Number, Row, Table, table_of

Time = Annotated[float, Number(0, 1e11)]
"""Seconds since 1970, within the years that `datetime` can represent."""
Seconds = Annotated[float, Number(0, 1e10)]
Count = Annotated[int, Number(0, 10**12, integer=True)]
TrialNumber = Annotated[int, Number(0, 10**9, integer=True)]
Epoch = Annotated[int, Number(1, 10**9, integer=True)]
Workers = Annotated[int, Number(0, 10**6, integer=True)]
Seed = Annotated[int, Number(-(2**64), 2**64, integer=True)]
Class = Annotated[int, Number(0, 10**6, integer=True)]
Answer = Annotated[int, Number(-1, 10**6, integer=True)]
"""A predicted class, -1 for NaN logits."""
Images = Annotated[int, Number(1, 10**12, integer=True)]
Share = Annotated[float, Number(0, 1)]
Versions = dict[str, str]
Tables = Annotated[dict[str, Any], Table()]
"""The tables of a TOML file, which `search.spec` and `training.recipe` check."""


class Masking(TypedDict):
    """The gradient masking check: how many images survive each attack. Early records have no counts."""

    images: Count
    alarms: list[str]
    survive_margin_10: NotRequired[Count]
    survive_margin_50: NotRequired[Count]
    survive_cross_entropy_50: NotRequired[Count]
    without_gradient: NotRequired[Count]


class WholeMasking(TypedDict):
    """The same with all counts, which a verdict always has."""

    images: Count
    alarms: list[str]
    survive_margin_10: Count
    survive_margin_50: Count
    survive_cross_entropy_50: Count
    without_gradient: Count


class Epoched(TypedDict):
    """What each report of an epoch has, and what it has where the epoch was evaluated."""

    epoch: Epoch
    is_rung: bool
    seconds_attack: Seconds
    seconds_update: Seconds
    seconds_evaluation: Seconds
    robust_correct_validation: NotRequired[Count]
    clean_correct_validation: NotRequired[Count]
    total_validation: NotRequired[Images]
    attacked_pairs_validation: NotRequired[Annotated[list[list[int]], Row(Row(Number(-1, 10**12, integer=True), 3))]]
    """(true class, class under attack, number of images) where the two differ."""
    class_totals_validation: NotRequired[list[Count]]
    seconds_startup: NotRequired[Seconds]
    seconds_checkpoint: NotRequired[Seconds]
    worker: NotRequired[str | None]
    """IP address and process id."""
    recipe: NotRequired[str]
    picture_failed: NotRequired[str]


def accuracies(epoch: Epoched) -> dict[str, float]:
    """The validation accuracies of an epoch that was evaluated, by objective."""
    total = epoch["total_validation"]
    return {
        "robust_accuracy": epoch["robust_correct_validation"] / total,
        "clean_accuracy": epoch["clean_correct_validation"] / total,
    }


def trained_seconds(epoch: Epoched) -> float:
    """Seconds of attack, update and evaluation."""
    return epoch["seconds_attack"] + epoch["seconds_update"] + epoch["seconds_evaluation"]


class DriverFacts(TypedDict):
    """The process that runs a session."""

    host: str
    process: int
    versions: Versions


class Trained(TypedDict):
    """What a search records of each epoch in addition to what decisions use."""

    loss: float
    classification_loss: float
    consistency_loss: float
    lr: float
    pace: float
    consistency_factor: float
    attack_steps: Count
    images: Count
    device: str
    precision: NotRequired[str]


class MaybeTrained(TypedDict, total=False):
    """The same in a verdict, which decides without it. A type checker allows no shorter way to say so."""

    loss: float
    classification_loss: float
    consistency_loss: float
    lr: float
    pace: float
    consistency_factor: float
    attack_steps: Count
    images: Count
    device: str
    precision: str


Schema = Mapping[str, Table]
"""Kind of event -> its fields other than `event` and `time`, which every event has."""


def schema_of(union: object) -> Schema:
    """The schema of a union of event types, by the value of their field `event`."""
    found = {}
    for one in get_args(union):
        (kind,) = get_args(get_type_hints(one)["event"])
        found[kind] = table_of(one, leave_out=("event", "time"))
    return found
