"""The events of a search's record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

from hcpr_tune.common.schema import ModelInputs, Number, Plain, Row, Table, Text
from hcpr_tune.search.record.events.fields import (
    Count,
    Epoch,
    Epoched,
    Masking,
    Schema,
    Share,
    Tables,
    Time,
    Trained,
    TrialNumber,
    Versions,
    Workers,
    schema_of,
)
from hcpr_tune.search.spec.dimensions import Params
from hcpr_tune.search.spec.objectives import OBJECTIVES

PointParams = Annotated[Params, Table(others=Plain())]
"""A point of the search space."""
JobStatus = Literal["reached", "broken off", "worker died", "diverged", "failed", "killed"]


class EndEvent(TypedDict):
    """A session ended."""

    event: Literal["end"]
    time: Time
    reason: str


class WorkersEvent(TypedDict):
    """Nodes joined or left: the number of trials that fit now."""

    event: Literal["workers"]
    time: Time
    workers: Workers


class LossEvent(TypedDict):
    """Something was damaged and had to be repeated."""

    event: Literal["loss"]
    time: NotRequired[Time]
    trial: NotRequired[TrialNumber]
    what: str


BUDGET = Table(
    known={
        "trials": Number(1, 10**9, integer=True),
        "epochs": Number(1, 10**9),
        "hours": Number(0, 10**7),
        "worker_hours": Number(0, 10**9),
    }
)
Budget = Annotated[dict[str, float], BUDGET]
"""New values of a budget."""


class ExtendEvent(TypedDict):
    """The budget was extended."""

    event: Literal["extend"]
    time: Time
    budget: Budget


Scores = Annotated[dict[str, float], Table(needed={name: Number(0, 1) for name in OBJECTIVES})]
"""Validation accuracies at a rung."""


class CarriedTrial(TypedDict):
    """A trial of an earlier study in this study's dimensions; `scores` by rung."""

    params: PointParams
    scores: dict[str, Scores]
    completed: bool
    lost: bool


EarlierStudy = TypedDict("EarlierStudy", {"from": NotRequired[str], "fingerprint": NotRequired[str]})


class WarmStartEvent(EarlierStudy):
    """The trials of an earlier study."""

    event: Literal["warm_start"]
    time: Time
    trials: list[CarriedTrial]


class EnqueueEvent(TypedDict):
    """A point to try next. `request`: the request's name in the inbox."""

    event: Literal["enqueue"]
    time: Time
    request: str
    params: PointParams


class KillEvent(TypedDict):
    """A trial to end."""

    event: Literal["kill"]
    time: Time
    request: str
    trial: TrialNumber


class TestAccessEvent(TypedDict):
    """An access to the test images begins."""

    event: Literal["test_access"]
    time: Time
    number: Count
    command: str


class TestNumbersEvent(TypedDict):
    """What an access to the test images showed: accuracies by name."""

    event: Literal["test_numbers"]
    time: Time
    number: Count
    numbers: dict[str, Share]


class AuditEvent(TypedDict):
    """Stopped trials that run to the last epoch."""

    event: Literal["audit"]
    time: Time
    trials: list[TrialNumber]


class TrialEvent(TypedDict):
    """A trial was suggested. The last three: see `record.trial.Trial`."""

    event: Literal["trial"]
    time: Time
    trial: TrialNumber
    params: PointParams
    source: str
    single_schedule: NotRequired[bool]
    replicate_of: NotRequired[TrialNumber]
    seed: NotRequired[Count]


class Estimate(TypedDict):
    """What a recipe is expected to score at the last epoch, on a fresh seed: posterior mean and standard deviation."""

    trial: TrialNumber
    mean: float
    deviation: float


class ChoiceEvent(TypedDict):
    """The search's answer: the trial whose recipe is expected to be the best, and those it was compared with."""

    event: Literal["choice"]
    time: Time
    trial: TrialNumber
    estimates: list[Estimate]


class JobEvent(TypedDict):
    """A worker begins a job: a trial from the end of epoch `start` to the end of epoch `end`."""

    event: Literal["job"]
    time: Time
    trial: TrialNumber
    start: Count
    end: Epoch


class EpochEvent(Epoched, Trained):
    """A worker's report of an epoch."""

    event: Literal["epoch"]
    time: Time
    trial: TrialNumber
    masking_validation: NotRequired[Masking]
    survived_validation: NotRequired[str]
    """A bit per image, the first one highest: whether it is classified correctly under attack."""
    survivors_validation: NotRequired[Annotated[list[list[float]], Row(Row(Number(0, 10**12), 2))]]
    """(radius as a multiple of epsilon, images that survive there), by rising radius."""


class JobEndEvent(TypedDict):
    """A job ended."""

    event: Literal["job_end"]
    time: Time
    trial: TrialNumber
    start: Count
    end: Epoch
    status: JobStatus
    reason: str
    failed_start: NotRequired[bool]
    traceback: NotRequired[str]
    splits: NotRequired[dict[str, str]]
    model_inputs: NotRequired[ModelInputs]


Request = LossEvent | ExtendEvent | WarmStartEvent | EnqueueEvent | KillEvent | AuditEvent
"""What the beginning of a session may include."""


class BeginEvent(TypedDict):
    """A session begins, with the events that were asked for when it was started."""

    event: Literal["begin"]
    time: Time
    versions: Versions
    workers: Workers
    fingerprint: str
    host: NotRequired[str]
    process: NotRequired[Count]
    study: NotRequired[Tables]
    requests: NotRequired[Annotated[list[Request], Row(Table(needed={"event": Text()}))]]


Event = (
    BeginEvent
    | EndEvent
    | WorkersEvent
    | LossEvent
    | ExtendEvent
    | WarmStartEvent
    | EnqueueEvent
    | KillEvent
    | TestAccessEvent
    | TestNumbersEvent
    | AuditEvent
    | TrialEvent
    | ChoiceEvent
    | JobEvent
    | EpochEvent
    | JobEndEvent
)
SEARCH: Schema = schema_of(Event)
"""The fields of each kind of event."""


def trials_of(event: Event) -> Sequence[int]:
    """The trials that must be recorded before an event."""
    if event["event"] == "audit":
        return event["trials"]
    if event["event"] == "loss":
        return [event["trial"]] if "trial" in event else []
    if event["event"] in ("kill", "job", "epoch", "job_end"):
        return [event["trial"]]
    if event["event"] == "choice":
        return [event["trial"], *(estimate["trial"] for estimate in event["estimates"])]
    if event["event"] == "trial":
        return [event["replicate_of"]] if "replicate_of" in event else []
    return []


class TestAccess(TypedDict):
    """An access to the test images: when, by which command, and what it showed (accuracies by name)."""

    time: float
    number: int
    command: str
    numbers: NotRequired[dict[str, float]]
