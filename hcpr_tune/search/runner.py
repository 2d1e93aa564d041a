"""Run a study: a new folder or a resumed one, the record, Ray Tune, and what is left at the end."""

from __future__ import annotations

import os
import platform
import random
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import hcpr_tune
from hcpr_tune.errors import InputError, Interrupted
from hcpr_tune.search.halving import always_promoted
from hcpr_tune.search.record import Event, History, Listener, Record, is_led, read_history
from hcpr_tune.search.results import ResultFiles, StudyFolder
from hcpr_tune.search.study import Study, extended, read_study, study_to_toml
from hcpr_tune.seeds import derive_seed
from hcpr_tune.settings import show

MAX_WORKER_DEATHS = 3
NAMED_VERSIONS = ("torch", "ray", "optuna", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Share:
    """What Ray gives the study: so many trials at once, each with so many CPUs and GPUs."""

    workers: int
    cpus_per_trial: float
    gpus_per_trial: float


def check_new(storage: Path, name: str) -> StudyFolder:
    """The folder of a new study, not yet made. Raises `InputError` where the name is taken or the storage cannot be written."""
    _check_name(name)
    folder = StudyFolder(storage / name)
    if folder.root.exists():
        raise InputError(
            f"--name {show(name)} is taken: {folder.root} exists; go on with it by --resume {name}, or choose another --name"
        )
    existing = next(path for path in (storage, *storage.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"--storage {storage} cannot be written: {existing} is no folder that you may write to; choose another --storage"
        )
    return folder


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"a study's name must be 1 to 100 letters, digits, dots, dashes or underscores, got {show(name)}; choose another --name"
        )


def create(folder: StudyFolder, study: Study) -> History:
    """Make the folder of a new study and write the resolved study into it."""
    try:
        folder.root.mkdir(parents=True)
        folder.study.write_text(study_to_toml(study), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--storage {folder.root.parent} cannot be written: {error}; choose another --storage"
        ) from None
    return History(study.recipe.epochs, study.goal)


def reopen(storage: Path, name: str, option: str = "--resume ") -> tuple[StudyFolder, Study, History]:
    """A study that was begun before: its folder, itself with what it was extended by, and its record. Raises `InputError` where there is none."""
    _check_name(name)
    folder = StudyFolder(storage / name)
    if not folder.study.is_file():
        known = sorted(path.parent.name for path in storage.glob("*/study.toml"))
        raise InputError(
            f"{option}{show(name)}: there is no study in {folder.root}; known there: {', '.join(known) or 'none'}"
        )
    if option == "--resume " and is_led(folder.record):
        raise InputError(
            f"{option}{show(name)}: {folder.root} is being searched by another process; wait for its end, or stop it by Ctrl-C"
        )
    study = read_study(folder.study)
    history = History(study.recipe.epochs, study.goal)
    if folder.record.exists():
        history = read_history(folder.record, study.recipe.epochs, study.goal)
    if history.fingerprint not in ("", study.fingerprint):
        raise InputError(
            f"{option}{show(name)}: {folder.study} was changed since the study began; undo the change, or begin a new study with it by --space"
        )
    return folder, extended(study, history.extensions), history


def audit_event(study: Study, history: History, count: int) -> Event:
    """A random sample of the trials that were stopped early, drawn from the study's seed, which then run to the end. Raises `InputError`."""
    stopped = sorted(
        trial.number
        for trial in history.trials.values()
        if trial.state == "stopped" and not always_promoted(trial, history)
    )
    if count > len(stopped):
        raise InputError(
            f"--audit must be at most the {len(stopped)} trials that were stopped early, got {count}; lower it"
        )
    drawn = random.Random(derive_seed(study.settings.seed, "audit", len(history.audited)))
    return {"event": "audit", "time": time.time(), "trials": sorted(drawn.sample(stopped, count))}


def run(
    folder: StudyFolder,
    study: Study,
    history: History,
    share: Share,
    listeners: Sequence[Listener],
    requests: Sequence[Event] = (),
) -> History:
    """Run the study to its end on the connected Ray, from where `history` is, the events `requests` first.

    Raises `Interrupted` on Ctrl-C or SIGTERM.
    """
    record = Record(folder.record, history)
    begin = {
        "event": "begin",
        "time": time.time(),
        "fingerprint": study.fingerprint,
        "workers": share.workers,
        "versions": {
            "hcpr_tune": hcpr_tune.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in NAMED_VERSIONS},
        },
    }
    for event in (begin, *requests):
        record.append(event | {"time": time.time()})
    record.listeners = [ResultFiles(folder, study, history), *listeners]
    reason = "failed"
    try:
        _run_on_ray(folder, study, record, share)
        reason = "finished"
    except KeyboardInterrupt:
        reason = "interrupted"
        raise Interrupted("interrupted") from None
    finally:
        record.append({"event": "end", "time": time.time(), "reason": reason})
        record.close()
    return history


def _run_on_ray(folder: StudyFolder, study: Study, record: Record, share: Share) -> None:
    # Ctrl-C must reach `run` at once; Tune's own handler would first wait for running epochs.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # The driver writes what people look at; Ray's copies would cost time and disk.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Of Ray's two reporters only the older one is silent at verbose=0.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    from ray import tune

    from hcpr_tune.search.searcher import JobSearcher
    from hcpr_tune.search.trainable import TrainJob

    searcher = JobSearcher(study, record, folder, on_gpu=share.gpus_per_trial > 0)
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_ray_") as disposable:
        tuner = tune.Tuner(
            tune.with_resources(TrainJob, {"CPU": share.cpus_per_trial, "GPU": share.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=share.workers,
                reuse_actors=True,
                trial_name_creator=_job_name,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=folder.root.name,
                storage_path=disposable,
                verbose=0,
                stop=searcher.should_stop,
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()


def _job_name(trial: object) -> str:
    """The job's name as Ray's dashboard and logs show it."""
    name: str = getattr(trial, "config", {}).get("name", "job")
    return name
