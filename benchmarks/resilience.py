"""What it costs that nothing is lost, and how soon a search goes on. Each command prints JSON.

python benchmarks/resilience.py resume      # from --resume to the first running job, with 1,000 finished trials
python benchmarks/resilience.py memory      # of the driver, with 5,000 trials
python benchmarks/resilience.py keeping     # checkpoints and record in the default search's time
python benchmarks/resilience.py jobs        # 64 jobs at once that do nothing
python benchmarks/resilience.py stopping    # from SIGTERM to the exit, in the middle of an epoch of minutes
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Plain, machine, spread
from idle import idle_ray, idle_trainable
from made_up import made_up

ROOT = Path(__file__).parent.parent
TUNE = [sys.executable, str(ROOT / "launch" / "tune.py")]


def begun(folder: Path, trials: int) -> Path:
    """A study of the default space with so many trials, all ended or stopped; returns its record."""
    from hcpr_tune.search.record.lines import sealed_row
    from hcpr_tune.search.spec.study_file import find_space, read_study
    from hcpr_tune.search.storage.studies import check_new, create

    study = read_study(find_space("default"), [("budget.trials", trials), ("sampler.name", "random")])
    at = check_new(folder / "results", "begun")
    create(at, study)
    at.record.write_bytes(sealed_row(made_up(study, trials)))
    return at.record


def resumed(folder: Path, record: Path, *arguments: str) -> Plain:
    """Seconds from the process's start to its session's events, and its peak memory; the search is then stopped."""
    before = record.read_bytes().count(b"\n")
    began = time.time()
    process = subprocess.Popen(
        [*TUNE, "--resume", "begun", "--quiet", *arguments], cwd=folder, stdout=subprocess.DEVNULL
    )
    found: dict[str, float] = {}
    peak = 0
    while process.poll() is None and "epoch" not in found:
        time.sleep(0.02)
        peak = max(peak, peak_bytes(process.pid))
        for line in record.read_bytes().split(b"\n")[before:-1]:
            event = json.loads(line)
            found.setdefault(event["event"], event["time"] - began)
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        peak = max(peak, peak_bytes(process.pid))
        time.sleep(0.02)
    return {
        "begin_s": found["begin"],
        "first_job_s": found["job"],
        "first_report_s": found["epoch"],
        "peak_bytes": peak,
    }


def peak_bytes(pid: int) -> int:
    """The largest resident size that a process has had."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def resume(options: argparse.Namespace) -> Plain:
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            record = begun(Path(folder), options.trials or 1000)
            runs.append(resumed(Path(folder), record, "--trials", "+4"))
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def memory(options: argparse.Namespace) -> Plain:
    with tempfile.TemporaryDirectory() as folder:
        record = begun(Path(folder), options.trials or 5000)
        return resumed(Path(folder), record, "--trials", "+4")


def keeping(options: argparse.Namespace) -> Plain:
    """Share of checkpoints, and of the record's lines replayed on the same disk, in the workers' seconds."""
    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.lines import unsealed
    from hcpr_tune.search.record.record import Record

    shares = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*TUNE, "--name", "kept", "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            root = Path(folder) / "results" / "kept"
            events = [unsealed(line) for line in (root / "record.jsonl").read_bytes().splitlines()]
            total = json.loads((root / "ledger.json").read_text())["total"]
            again = Record(root / "again.jsonl", History(27))
            began = time.perf_counter()
            for event in events:
                again.append(event)
            seconds = time.perf_counter() - began
            again.close()
            shares.append(
                {
                    "checkpoints": total["checkpoint"] / total["held"],
                    "record": seconds / total["held"],
                    "events": len(events),
                }
            )
    return {name: spread([one[name] for one in shares]) for name in shares[0]}


def jobs(options: argparse.Namespace) -> Plain:
    """A whole search on 64 workers that only report.

    A job takes longer than it takes to start all processes on two cores: Ray Tune gives the process of a job that ends
    to one whose process is still starting, and drops that, so that with jobs of a second most never come up.
    """
    from hcpr_tune.execution import runner
    from hcpr_tune.execution.connection.capacity import Share
    from hcpr_tune.search.record.lines import unsealed
    from hcpr_tune.search.spec.study_file import find_space, read_study
    from hcpr_tune.search.storage.studies import check_new, create

    workers = options.workers
    with tempfile.TemporaryDirectory() as folder:
        overrides = [("budget.trials", 2 * workers), ("sampler.name", "random"), ("early_stopping.calibration", 1)]
        overrides += [("early_stopping.first_rung", 6), ("early_stopping.reduction_factor", 2), ("epochs", 12)]
        study = read_study(find_space("default"), overrides)
        at = check_new(Path(folder), "idle")
        with idle_ray(workers):
            began = time.time()
            history = runner.run(
                create(at, study), Share(workers, 1.0, 0.0), trainable=idle_trainable(options.epoch_seconds)
            )
            seconds = time.time() - began
        events = [unsealed(line) for line in at.record.read_bytes().splitlines()]
    running: set[int] = set()
    most = 0
    for event in events:
        if event["event"] == "job":
            running.add(event["trial"])
            most = max(most, len(running))
        elif event["event"] == "job_end":
            running.discard(event["trial"])
    epochs = [event for event in events if event["event"] == "epoch"]
    lost = sum(len(trial.epochs) != trial.last_epoch for trial in history.trials.values())
    return {
        "workers": workers,
        "trials": len(history.trials),
        "trials_that_lack_a_report": lost,
        "reports": len(epochs),
        "processes_that_reported": len({event["worker"] for event in epochs}),
        "most_jobs_at_once": most,
        "seconds": seconds,
        "seconds_until_all_have_reported": max(
            min(event["time"] for event in epochs if event["worker"] == worker)
            for worker in {event["worker"] for event in epochs}
        )
        - began,
    }


LONG_EPOCHS = ("--set", "attack.steps=1000", "--set", "batch_size=8")


def stopping(options: argparse.Namespace) -> Plain:
    seconds = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [*TUNE, "--name", "cut", "--quiet", *LONG_EPOCHS]
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            record = Path(folder) / "results" / "cut" / "record.jsonl"
            while not record.exists() or record.read_text().count('"event": "job"') < 2:
                time.sleep(0.05)
            time.sleep(10)  # until both train
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            process.wait()
            seconds.append(time.perf_counter() - began)
    return {"seconds": spread(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {"resume": resume, "memory": memory, "keeping": keeping, "jobs": jobs, "stopping": stopping}
    parser.add_argument("command", choices=known)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0, help="trials in the record (resume: 1000, memory: 5000)")
    parser.add_argument("--workers", type=int, default=64, help="of `jobs`")
    parser.add_argument("--epoch-seconds", type=float, default=20.0, help="of `jobs`: how long an epoch does nothing")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print(json.dumps({"machine": machine(), options.command: known[options.command](options)}, indent=1))


if __name__ == "__main__":
    main()
