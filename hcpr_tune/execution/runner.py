"""Run a study: take its lease, keep its record, run its jobs on Ray Tune, and write its result files."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.files import sweep
from hcpr_tune.errors import Interrupted, MovedOn, StorageError
from hcpr_tune.execution.connection.capacity import Capacity, Share, check_own_ray, requested
from hcpr_tune.execution.connection.host import borrowed
from hcpr_tune.search.record.events.fields import DriverFacts
from hcpr_tune.search.record.events.search import BeginEvent, Request
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.record import Listener, Record
from hcpr_tune.search.record.results import ResultFiles, StoredStudy, StudyFolder
from hcpr_tune.search.record.segments import Segments
from hcpr_tune.search.spec.study import StudySpec, study_to_plain
from hcpr_tune.search.storage.bucket_sync import BucketSync
from hcpr_tune.search.storage.inbox import clear_stops
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.search.storage.object_store import storage_error
from hcpr_tune.version import VERSION

if TYPE_CHECKING:
    from hcpr_tune.search.scheduling.driver import Driver

NAMED_VERSIONS = ("torch", "ray", "optuna", "numpy", "scikit-learn")
MOST_PENDING = 10_000
"""Ray's limit on pending trials, out of the way: the searcher hands out no more jobs than there are workers."""

TUNE_SETTINGS = {
    # Ctrl-C must end the search at once; Tune's own handler would first wait for running epochs.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The driver writes the result files itself; Ray's copies would cost time and disk.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Of Ray's two reporters only the older one is silent at verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": str(MOST_PENDING),
    # Tune's own state is discarded; each snapshot of it would rewrite all jobs and take up to 5 % of the driver's time.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
}
"""Environment variables for Ray Tune."""


@contextmanager
def recording(
    study: StoredStudy, workers: int, requests: Sequence[Request] = (), patience: float = 0.0
) -> Iterator[Record[History]]:
    """One session of the study: holds its lease, and records the session's begin, the events `requests` and its end.

    Waits up to `patience` seconds for a driver that may be dead. Raises `InputError` if another process holds the
    lease, and `MovedOn` if another process has written to the record since `study` was read.
    """
    folder, spec, history = study
    with ExitStack() as stack:
        lease = Lease(folder.objects, folder.address, patience)
        stack.callback(lease.close)
        if folder.record_bytes() != history.bytes_read:
            raise MovedOn(f"{folder.address} was just searched by another process; start again")
        sweep(folder.root)
        clear_stops(folder.objects)
        segments = None if folder.bucket is None else Segments(folder.bucket, lease.check)
        record = stack.enter_context(Record(folder.record, history, segments=segments, leading=lease.check))
        record.append(_begin(spec, history, workers, requests, record.clock()))
        with ending(record):
            yield record


@contextmanager
def ending(record: Record[Any]) -> Iterator[None]:
    """Record why the block ended. Turns Ctrl-C into `Interrupted`."""
    reason = "failed"
    try:
        yield
        reason = "finished"
    except Interrupted:
        reason = "interrupted"
        raise
    except KeyboardInterrupt:
        reason = "interrupted"
        raise Interrupted("interrupted") from None
    except StorageError:
        reason = "storage"
        raise
    finally:
        # If the storage failed, the end event may not be written.
        with suppress(StorageError) if reason == "storage" else nullcontext():
            record.append({"event": "end", "time": record.clock(), "reason": reason})


def driver_facts(packages: Iterable[str]) -> DriverFacts:
    """The driver's host, process id and package versions."""
    versions = {name: version(name) for name in packages}
    return {
        "host": platform.node(),
        "process": os.getpid(),
        "versions": {"hcpr_tune": VERSION, "python": platform.python_version(), **versions},
    }


def _begin(spec: StudySpec, history: History, workers: int, requests: Sequence[Request], time: float) -> BeginEvent:
    losses: list[Request] = [{"event": "loss", "what": history.damage}] if history.damage else []
    facts = driver_facts(NAMED_VERSIONS)
    begin: BeginEvent = {
        "event": "begin",
        "time": time,
        "fingerprint": spec.fingerprint,
        "workers": workers,
        "host": facts["host"],
        "process": facts["process"],
        "versions": facts["versions"],
        "requests": [*losses, *requests],
    }
    if not history.study:
        begin["study"] = study_to_plain(spec)
    return begin


def run(
    study: StoredStudy,
    share: Share,
    listeners: Callable[[], Sequence[Listener]] = list,
    requests: Sequence[Request] = (),
    patience: float = 0.0,
    trainable: type | None = None,
) -> History:
    """Run the study on the connected Ray until it ends. Continues from its history, after the events `requests`.

    `listeners` is called once this process holds the lease, since listeners rewrite the study's files. `trainable`:
    the class that runs the jobs (default: `TrainJob`).
    Raises `Interrupted` on Ctrl-C, SIGTERM and `hcpr_tune stop`, `StorageError` if the storage can no longer be
    written, and `ClusterLost` if Ray is gone.
    """
    folder, spec, history = study
    with recording(study, share.workers, requests, patience) as record:
        try:
            record.listeners = [ResultFiles(StoredStudy(folder, spec, history)), *listeners()]
        except OSError as error:
            raise storage_error(f"{folder.root} cannot be written", error) from error
        if folder.bucket is not None:
            record.listeners.append(BucketSync(folder.root, folder.bucket, record.leading))
        _search(folder, spec, record, share, trainable)
    return history


def _search(
    folder: StudyFolder, spec: StudySpec, record: Record[History], share: Share, trainable: type | None
) -> None:
    from hcpr_tune.execution.search_jobs import search_driver
    from hcpr_tune.execution.trainable import TrainJob

    most = spec.settings.resources.workers
    driver = search_driver(spec, record, folder, Capacity(share, most).now, share.gpus_per_trial)
    run_on_ray(folder.root.name, driver, trainable or TrainJob, share, most)


def run_on_ray(name: str, driver: Driver[Any], trainable: type, share: Share, most: int = 0) -> None:
    """Run the jobs of `driver` on Ray Tune with `trainable`; asks an autoscaler for room for `most` at once.

    Raises `Interrupted` if a stop was requested, `StorageError` if the storage can no longer be written, and
    `ClusterLost` if Ray is gone.
    """
    with borrowed(TUNE_SETTINGS):
        # Job failures are in the record, so Ray's messages about them are redundant; what ends the search is raised.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        _fit(name, driver, trainable, share, most)


def _fit(name: str, driver: Driver[Any], trainable: type, share: Share, most: int) -> None:
    from ray import tune

    from hcpr_tune.execution.ray_tune import Ends, Halt, RayTuneAdapter

    searcher = RayTuneAdapter(driver)
    with (
        tempfile.TemporaryDirectory(prefix="hcpr_tune_ray_") as disposable,
        requested(share, most),
        _keys_stay_here(),
    ):
        tuner = tune.Tuner(
            _worker_class(trainable, share),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_job_name,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=disposable,
                verbose=0,
                stop=Ends(searcher),
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
            searcher.check()
        except Halt as halt:
            raise halt.cause from None
        except Exception:
            check_own_ray()  # if Ray itself has died, that is the cause
            raise


@contextmanager
def _keys_stay_here() -> Iterator[None]:
    """Tune would send the driver's S3 keys to its workers, through a log that all users of a machine can read.

    Workers use the keys of their own node.
    """
    from ray.tune.execution import class_cache

    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not _secret(name)}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before


def _secret(name: str) -> bool:
    return name.startswith("AWS_") or any(word in name for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))


def _worker_class(trainable: type, share: Share) -> type:
    """`trainable` with its resources. Keeps its name, so that Ray's dashboard does not show that of Tune's wrapper."""
    from ray import tune

    worker: type = tune.with_resources(trainable, {"CPU": share.cpus_per_trial, "GPU": share.gpus_per_trial})
    worker.__qualname__ = trainable.__name__
    return worker


def _job_name(trial: object) -> str:
    """The job's name in Ray's logs."""
    name: str = getattr(trial, "config", {}).get("name", "job")
    return name
