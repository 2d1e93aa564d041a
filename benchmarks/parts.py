"""What single parts of the service cost as a study grows, each measured by itself; the commands of `scale.py`."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Plain, spread
from idle import idle_ray
from made_up import made_up, made_up_epoch

from hcpr_tune.search.record.results import StoredStudy

ASK_SECONDS = 60.0
"""A sampler is asked at no larger number of trials once all asks at one number take longer than this."""
BOARD_SECONDS = 240.0


def study_of(trials: int, *overrides: tuple[str, Any]) -> Any:
    from hcpr_tune.search.spec.study_file import find_space, read_study

    return read_study(find_space("default"), [("budget.trials", trials), *overrides])


def seconds_of(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# What Ray Tune's loop costs


def waiting(options: argparse.Namespace) -> Plain:
    """CPU seconds of a turn of Ray Tune's loop that takes one answer in while so many others are waited for.

    In its own class for that, so that its listing and shuffling of what is waited for count as well. The calls that are
    waited for lie in the queue of one process: for the loop they are what running epochs of other workers are.
    """
    import ray
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.air.execution.resources import FixedResourceManager

    class Stuck:
        def hold(self) -> None:
            time.sleep(3600)

    class Quick:
        def answer(self) -> int:
            return 1

    found = []
    with idle_ray(2):
        stuck, quick = ray.remote(Stuck).remote(), ray.remote(Quick).remote()
        ray.get(quick.answer.remote())
        manager, held = RayActorManager(FixedResourceManager({"CPU": 2})), 0
        for many in options.many:
            while held < many:
                manager._actor_task_events.track_future(stuck.hold.remote(), lambda result: None, lambda error: None)
                held += 1
            found.append({"waited_for": many, "cpu_seconds": spread(turns(manager, quick))})
    return {"turns": found}


def turns(manager: Any, quick: Any, count: int = 40) -> list[float]:
    spent = []
    for _ in range(count):
        future = quick.answer.remote()
        manager._actor_task_events.track_future(future, lambda result: None)
        began = time.thread_time()
        while future in manager._actor_task_events._tracked_futures:
            manager.next(timeout=0.1)
        spent.append(time.thread_time() - began)
    return spent


# The record


def record(options: argparse.Namespace) -> Plain:
    """Seconds of an event, from sealing to taking effect: written and flushed here, and written into a bucket too."""
    from hcpr_tune.common.buckets.bucket import Bucket
    from hcpr_tune.search.record.segments import Segments

    plain = {"folder": appended(None), "without_flush": appended(None, flush=False)}
    with s3() as bucket:
        plain["bucket"] = appended(Segments(Bucket(bucket)))
    return {name: spread(values) for name, values in plain.items()} | {"bytes": line_bytes()}


def appended(segments: Any, count: int = 1000, flush: bool = True) -> list[float]:
    """Epochs between rungs, which are most of what a search records."""
    import numpy as np

    from hcpr_tune.search.record import record as module
    from hcpr_tune.search.record.history import History

    draws = np.random.default_rng(0)
    real = os.fsync
    with tempfile.TemporaryDirectory(dir=".") as folder:
        history = History(10**9)
        one = module.Record(Path(folder) / "record.jsonl", history, segments=segments)
        one.append({"event": "trial", "time": time.time(), "trial": 0, "params": {}, "source": "random"})
        one.append({"event": "job", "time": time.time(), "trial": 0, "start": 0, "end": 10**9})
        spent = []
        try:
            os.fsync = os.fsync if flush else lambda file: None
            for epoch in range(1, count + 1):
                event = {"event": "epoch", "time": time.time(), "trial": 0, **made_up_epoch(epoch, False, draws)}
                spent.append(seconds_of(lambda event=event: one.append(event)))
        finally:
            os.fsync = real
        one.close()
    return spent


def line_bytes() -> int:
    import numpy as np

    from hcpr_tune.search.record.lines import sealed

    event = {"event": "epoch", "time": time.time(), "trial": 1000, "worker": "10.0.0.1:12345", "recipe": "0" * 16}
    return len(sealed(event | made_up_epoch(10, False, np.random.default_rng(0))))


@contextmanager
def s3() -> Iterator[str]:
    """The URL of an empty bucket on a real S3 server on loopback, in a process of its own."""
    from tests.s3 import S3Server

    server = S3Server()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield f"s3://{server.new_bucket()}/scale"
    finally:
        server.end()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


# Suggestions


def ask(options: argparse.Namespace) -> Plain:
    """Seconds of a suggestion by trials recorded, without the first, which alone gives Optuna all trials."""
    found = []
    for sampler in options.samplers.split(","):
        for trials in options.many:
            began = time.perf_counter()
            try:
                values = suggestions(sampler, trials)
            except RecursionError as error:  # Optuna's NSGA-II goes back through its generations by recursion
                found.append({"sampler": sampler, "trials": trials, "failed": str(error)})
                break
            found.append({"sampler": sampler, "trials": trials, "seconds": spread(values)})
            if time.perf_counter() - began > ASK_SECONDS or max(values) > ASK_SECONDS / 10:
                break
    return {"suggestions": found}


def suggestions(sampler: str, trials: int, count: int = 5) -> list[float]:
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.suggestion.sampler import Suggester

    study = study_of(trials + 1000, ("sampler.name", sampler))
    history = History(study.recipe.epochs, study.goal)
    for event in made_up(study, trials):
        history.apply(event)
    suggester = Suggester(study)
    suggester.suggest(trials, history)
    spent = []
    for number in range(trials, trials + count):
        # A report in between, as in a search: what is derived from the record is worked out anew.
        history.apply({"event": "epoch", "time": float(trials), "trial": 0, **made_up_epoch(1, False, _draws())})
        spent.append(seconds_of(lambda number=number: suggester.suggest(number, history)))
        history.apply(
            {
                "event": "trial",
                "time": float(trials),
                "trial": number,
                "params": suggester.suggest(number, history)[0],
                "source": sampler,
            }
        )
    return spent


def _draws() -> Any:
    import numpy as np

    return np.random.default_rng(0)


# Views


def views(options: argparse.Namespace) -> Plain:
    """Seconds per event of each view in the last trials of a large study, bytes on disk, time until TensorBoard."""
    with idle_ray(1):
        return {"studies": [viewed(trials, options) for trials in options.many]}


def viewed(trials: int, options: argparse.Namespace, last: int = 30) -> Plain:
    from hcpr_tune.execution.ray_metrics import RayMetrics
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.results import ResultFiles, StudyFolder
    from hcpr_tune.views.report.report import write_report
    from hcpr_tune.views.tensorboard.writer import TensorBoardView

    study = study_of(trials)
    events = list(made_up(study, trials))
    late = next(number for number, event in enumerate(events) if event.get("trial", 0) == trials - last)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = StudyFolder(Path(scratch) / "seen")
        folder.root.mkdir()
        history = History(study.recipe.epochs, study.goal)
        made: dict[str, Callable[[], Any]] = {
            "results": lambda: ResultFiles(StoredStudy(folder, study, history)),
            "tensorboard": lambda: TensorBoardView(StoredStudy(folder, study, history)),
            "ray_metrics": lambda: RayMetrics(StoredStudy(folder, study, history), 1.0),
        }
        for event in events[:late]:
            history.apply(event)
        anew, listeners = {}, {}
        for name, make in made.items():
            began = time.perf_counter()
            listeners[name] = make()
            anew[name] = time.perf_counter() - began
        spent: dict[str, list[float]] = {name: [] for name in made}
        for event in events[late:]:
            history.apply(event)
            for name, listener in listeners.items():
                spent[name].append(seconds_of(lambda one=listener, event=event: one.on_event(event, history)))
        for listener in listeners.values():
            listener.close()
        files = [path for path in (folder.root / "trials").rglob("*") if path.is_file()]
        report = seconds_of(lambda: write_report(StoredStudy(folder, study, history), program="hcpr_tune"))
        return {
            "trials": trials,
            "seconds_an_event": {
                name: spread(values) | {"mean": sum(values) / len(values)} for name, values in spent.items()
            },
            "seconds_to_write_anew": anew,
            "files_a_trial": len(files) / trials,
            "bytes_a_trial": sum(path.stat().st_size for path in files) / trials,
            "report_seconds": report,
            "report_bytes": (folder.root / "report.html").stat().st_size,
            "tensorboard": shown(folder.root, trials),
        }


def shown(root: Path, runs: int) -> Plain:
    """Seconds until a fresh TensorBoard lists the runs of all trials; how many it has listed if that takes too long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "tensorboard"), "--logdir", str(root), "--port", str(port)]
    began, listed = time.perf_counter(), 0
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while listed < runs and time.perf_counter() - began < BOARD_SECONDS:
            time.sleep(0.2)
            listed = max(listed, runs_of(port))
        return {"runs": listed, "of": runs, "seconds": time.perf_counter() - began}
    finally:
        server.terminate()
        server.wait()


def runs_of(port: int) -> int:
    """How many runs with curves a TensorBoard knows."""
    import json

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/timeseries/tags", timeout=60) as answer:
            return len(json.load(answer)["scalars"]["runTagInfo"])
    except (OSError, ValueError, KeyError):
        return 0


# Checkpoints


MODELS: dict[str, list[tuple[str, Any]]] = {"default": [], "resnet18": [("model.name", "resnet18")]}


def checkpoints(options: argparse.Namespace) -> Plain:
    """Bytes and seconds of checkpoints between rungs and at rungs, in a folder and in a bucket."""
    found: Plain = {}
    with s3() as bucket:
        for name, overrides in MODELS.items():
            found[name] = kept(overrides, f"{bucket}/{name}", options.repeats)
            size = found[name]["bytes"]
            found[name]["bytes_per_second"] = {str(workers): size * workers / 60.0 for workers in (100, 1000, 10000)}
    return found


def kept(overrides: list[tuple[str, Any]], url: str, repeats: int) -> Plain:
    from hcpr_tune.common.buckets.bucket import Bucket
    from hcpr_tune.search.storage.checkpoint_store import Scratch
    from hcpr_tune.training import checkpoints as module
    from hcpr_tune.training.loop import initial_state, train
    from hcpr_tune.training.session import DataShelf, identity

    recipe = study_of(1, ("attack.steps", 1), *overrides).recipe
    data = DataShelf(on_gpu=False).get(recipe.task)
    state = initial_state(recipe, data)
    next(iter(train(recipe, data, state)))  # with the momentum that a state has after an epoch
    reports = [{"epoch": 1, "recipe": identity(recipe)}]
    spent: dict[str, list[float]] = {name: [] for name in ("write", "write_rung", "read", "upload", "fetch")}
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        for number in range(repeats):
            root, away = Path(scratch) / str(number), Bucket(f"{url}/{number}")
            spent["write_rung"].append(seconds_of(lambda at=root: module.save(at / "rung", state, reports, True)))
            spent["write"].append(seconds_of(lambda at=root: module.save(at / "here", state, reports, False)))
            spent["read"].append(
                seconds_of(lambda at=root: module.load_latest(at / "here", 1, state, identity(recipe)))
            )
            spent["upload"].append(seconds_of(Scratch(root / "here", away).push))
            spent["fetch"].append(seconds_of(lambda at=root, away=away: Scratch(at / "back", away).fetch(1)))
        sizes = {
            name: sum(path.stat().st_size for path in (root / name).rglob("*") if path.is_file())
            for name in ("here", "rung")
        }
    return {
        "bytes": sizes["here"],
        "bytes_of_a_rung": sizes["rung"],
        "seconds": {name: spread(values) for name, values in spent.items()},
    }
