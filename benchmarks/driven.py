"""The real driver on workers that do nothing: how many reports it takes per second, and the CPU time of each."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Plain, spread
from idle import idle_ray, idle_trainable
from made_up import made_up

from hcpr_tune.search.record.results import StoredStudy

SHORT = (("early_stopping.first_rung", 3), ("epochs", 27))
"""The default's rungs, 3, 9 and 27: jobs of 3, 6 and 18 epochs."""
LONG = (("early_stopping.first_rung", 100), ("epochs", 100))
"""A single rung, so that nearly all that comes in is reports between rungs."""


class Window:
    """A listener that measures for some seconds once all workers have reported, and then asks the search to stop."""

    def __init__(self, place: Any, workers: int, seconds: float) -> None:
        self._place, self._workers, self._seconds = place, workers, seconds
        self._seen: set[str] = set()
        self._began: tuple[float, float, float] | None = None
        self._counts = {"epoch": 0, "job": 0, "trial": 0}
        self.figures: Plain = {}

    def on_event(self, event: Plain, history: Any) -> None:
        if self.figures:
            return
        kind = event["event"]
        if kind == "epoch":
            self._seen.add(event["worker"])
        if self._began is None:
            if len(self._seen) == self._workers:
                self._began = clocks()
            return
        if kind in self._counts:
            self._counts[kind] += 1
        wall, process, thread = (now - then for now, then in zip(clocks(), self._began, strict=True))
        if wall >= self._seconds:
            self.figures = told(self._counts, wall, process, thread) | {"trials_recorded": len(history.trials)}
            self._stop()

    def _stop(self) -> None:
        from hcpr_tune.search.storage.inbox import STOP, post

        post(self._place, {"kind": STOP})

    def close(self) -> None:
        pass


def clocks() -> tuple[float, float, float]:
    """Wall clock, the process's CPU seconds, and those of the thread that leads the search."""
    return time.perf_counter(), time.process_time(), time.thread_time()


def told(counts: dict[str, int], wall: float, process: float, thread: float) -> Plain:
    reports = max(1, counts["epoch"])
    return {
        "reports": counts["epoch"],
        "jobs": counts["job"],
        "trials": counts["trial"],
        "reports_per_second": counts["epoch"] / wall,
        "loop_cpu_seconds_per_report": thread / reports,
        "process_cpu_seconds_per_report": process / reports,
        "loop_busy": thread / wall,
        "reports_per_second_of_a_core": reports / thread,
    }


def study_of(options: argparse.Namespace) -> Any:
    from hcpr_tune.search.spec.study_file import find_space, read_study

    overrides = [("budget.trials", 10**6), ("sampler.name", options.sampler), ("early_stopping.calibration", 1)]
    return read_study(find_space("default"), overrides + list(LONG if options.jobs == "long" else SHORT))


def drive(options: argparse.Namespace) -> Plain:
    """One search in this process."""
    from hcpr_tune.errors import Interrupted
    from hcpr_tune.execution import runner
    from hcpr_tune.execution.connection.capacity import Share
    from hcpr_tune.search.record.lines import sealed_row
    from hcpr_tune.search.record.record import read_history
    from hcpr_tune.search.storage.studies import check_new, create

    study, workers = study_of(options), options.workers
    with tempfile.TemporaryDirectory() as scratch:
        at = check_new(Path(scratch), "driven")
        stored = create(at, study)
        history = stored.history
        if options.recorded:
            at.record.write_bytes(sealed_row(made_up(study, options.recorded)))
            history = read_history(at.record, study.recipe.epochs, study.goal)
        gate = Path(scratch) / "gate"
        gate.mkdir()
        window = Window(at.objects, workers, options.seconds)
        trainable = idle_trainable(options.epoch_seconds, gate, workers)

        def listeners() -> list[Any]:
            return [window, *(views(at, study, history) if options.listeners else [])]

        def search() -> None:
            try:
                runner.run(stored, Share(workers, 1.0, 0.0), listeners, trainable=trainable)
            except Interrupted:
                return

        with idle_ray(workers):
            began = time.perf_counter()
            profiled(search, options.profile)
            seconds = time.perf_counter() - began
    return {"workers": workers, "listeners": options.listeners, "seconds_in_all": seconds, **window.figures}


def views(folder: Any, study: Any, history: Any) -> list[Any]:
    """What `hcpr_tune tune` has listen, with lines in place of the live view."""
    from rich.console import Console

    from hcpr_tune.execution.ray_metrics import RayMetrics
    from hcpr_tune.views.report.report_file import ReportFile
    from hcpr_tune.views.tensorboard.writer import TensorBoardView
    from hcpr_tune.views.terminal.event_log import PlainLines

    return [
        RayMetrics(StoredStudy(folder, study, history), 1.0),
        TensorBoardView(StoredStudy(folder, study, history)),
        PlainLines(study, Console(file=io.StringIO()), history),
        ReportFile(folder, study, "hcpr_tune"),
    ]


def profiled(action: Any, path: Path | None) -> None:
    """Do it, and leave what Python's profiler says of it in a file."""
    if path is None:
        action()
        return
    import cProfile

    profiler = cProfile.Profile()
    profiler.runcall(action)
    profiler.dump_stats(path)


def driver(options: argparse.Namespace) -> Plain:
    """Searches with so many workers, each in a process of its own, without and with the listeners of a real one."""
    found = []
    for workers in options.many:
        for listeners in (False, True):
            runs = [driven(options, workers, listeners) for _ in range(options.repeats)]
            numbers = {
                name: spread([run[name] for run in runs]) for name in runs[0] if name not in ("workers", "listeners")
            }
            found.append({"workers": workers, "listeners": listeners, **numbers})
    return {"jobs": options.jobs, "recorded": options.recorded, "sampler": options.sampler, "searches": found}


def driven(options: argparse.Namespace, workers: int, listeners: bool) -> Plain:
    script = Path(__file__).parent / "scale.py"
    command = [sys.executable, str(script), "drive", "--workers", str(workers), "--jobs", options.jobs]
    command += ["--seconds", str(options.seconds), "--recorded", str(options.recorded), "--sampler", options.sampler]
    command += ["--epoch-seconds", str(options.epoch_seconds), *(["--listeners"] if listeners else [])]
    with tempfile.TemporaryDirectory() as folder:
        # Not from what it prints: Ray's warnings come in between.
        subprocess.run([*command, "--figures", folder], check=True, stdout=subprocess.DEVNULL)
        figures: Plain = json.loads((Path(folder) / "drive.json").read_text(encoding="utf-8"))["drive"]
    return figures
