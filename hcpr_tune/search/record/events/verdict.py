"""The events of a verdict's record."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from hcpr_tune.common.schema import ModelInputs, Number
from hcpr_tune.search.record.events.fields import (
    Answer,
    Class,
    Count,
    Epoched,
    MaybeTrained,
    Schema,
    Seed,
    Tables,
    Time,
    Versions,
    WholeMasking,
    Workers,
    schema_of,
)
from hcpr_tune.search.record.events.search import EndEvent, WorkersEvent


class VerdictBeginEvent(TypedDict):
    """A session begins."""

    event: Literal["begin"]
    time: Time
    format: Count
    workers: Workers
    versions: Versions
    host: NotRequired[str]
    process: NotRequired[Count]


class ModelEvent(TypedDict):
    """A model that is trained or given. `weights`: the hash of an external model's file."""

    event: Literal["model"]
    time: Time
    model: str
    candidate: str
    seed: Seed
    recipe: Tables
    weights: str


class VerdictJobEvent(TypedDict):
    """A worker begins a job."""

    event: Literal["job"]
    time: Time
    job: str


class OfJob(TypedDict):
    """The model and the job that an event is about."""

    model: str
    job: str


class VerdictEpochEvent(OfJob, Epoched, MaybeTrained):
    """A worker's report of an epoch."""

    event: Literal["epoch"]
    time: Time
    masking_validation: NotRequired[WholeMasking | None]


class StepEvent(OfJob):
    """The classes that one attack gives the images of a chunk."""

    event: Literal["step"]
    time: Time
    scope: str
    chunk: Count
    attack: str
    labels: list[Class]
    classes: list[Answer]
    warnings: list[str]
    total: Count
    of_classes: Annotated[int, Number(1, 10**6, integer=True)]


class ChecksEvent(OfJob):
    """How many images a transfer attack from the baseline breaks, and the check for masked gradients."""

    event: Literal["checks"]
    time: Time
    baseline: str
    broken: Count
    images: Count
    masking: NotRequired[WholeMasking | None]


class VerdictJobEndEvent(OfJob):
    """A job ended."""

    event: Literal["job_end"]
    time: Time
    kind: str
    status: str
    reason: str
    traceback: NotRequired[str]
    model_inputs: NotRequired[ModelInputs]


class VerdictTestAccessEvent(TypedDict):
    """An access to the test images begins."""

    event: Literal["test_access"]
    time: Time
    number: Count
    command: str
    models: list[str]
    scope: str


class TestAccessEndEvent(TypedDict):
    """Everything that the latest access was for has been attacked."""

    event: Literal["test_access_end"]
    time: Time


VerdictEvent = (
    VerdictBeginEvent
    | EndEvent
    | WorkersEvent
    | ModelEvent
    | VerdictJobEvent
    | VerdictEpochEvent
    | StepEvent
    | ChecksEvent
    | VerdictJobEndEvent
    | VerdictTestAccessEvent
    | TestAccessEndEvent
)
VERDICT: Schema = schema_of(VerdictEvent)
"""The fields of each kind of event."""
