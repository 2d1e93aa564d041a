"""What a default search costs on this machine: time, memory of all its processes, and the overhead of a job.

    python benchmarks/service.py [--repeats 3] > service.json

Prints JSON. Linux only (it reads /proc). Each repeat is a whole `python launch/tune.py --space default` in an empty
folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import spread

ROOT = Path(__file__).resolve().parent.parent


def processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


def proportional_set_size(pids: set[int]) -> int:
    """Bytes of memory of these processes, shared pages divided among those that share them."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def one_search(folder: Path) -> dict[str, Any]:
    """Run one default search and measure it; every process that appears meanwhile counts as its own."""
    before = processes()
    began, peak = time.perf_counter(), 0
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--space", "default", "--name", "measured", "--quiet"]
    search = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while search.poll() is None:
        peak = max(peak, proportional_set_size(processes() - before))
        time.sleep(5)  # reading the page tables stalls the processes that they belong to
    seconds = time.perf_counter() - began
    if search.returncode != 0:
        raise SystemExit(f"the search ended with exit code {search.returncode}")
    events = [json.loads(line) for line in (folder / "results/measured/record.jsonl").read_text().splitlines()]
    return {"seconds": seconds, "peak_pss_bytes": peak, **job_costs(events)}


def job_costs(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds per job from being handed out to its first report, less that epoch itself; new processes apart."""
    handed: dict[int, float] = {}
    seen: set[str] = set()
    costs: dict[str, list[float]] = {"new_process": [], "reused_process": []}
    checkpoint = evaluation = training = 0.0
    for event in events:
        if event["event"] == "job":
            handed[event["trial"]] = event["time"]
        if event["event"] != "epoch":
            continue
        spent = [event[f"seconds_{name}"] for name in ("attack", "update", "evaluation", "checkpoint")]
        training += spent[0] + spent[1]
        evaluation += spent[2]
        checkpoint += spent[3]
        if event["trial"] in handed:
            began = handed.pop(event["trial"])
            kind = "reused_process" if event["worker"] in seen else "new_process"
            costs[kind].append(event["time"] - began - sum(spent))
        seen.add(event["worker"])
    total = training + evaluation + checkpoint
    return {
        "trials": sum(event["event"] == "trial" for event in events),
        "epochs": sum(event["event"] == "epoch" for event in events),
        "job_start_seconds": {kind: spread(values) for kind, values in costs.items()},
        "evaluation_share": evaluation / total,
        "checkpoint_share": checkpoint / total,
    }


def help_seconds(repeats: int = 5) -> dict[str, float]:
    """`hcpr_tune --help` as a whole process."""
    values = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hcpr_tune", "--help"], check=True, stdout=subprocess.DEVNULL)
        values.append(time.perf_counter() - began)
    return spread(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    searches = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            searches.append(one_search(Path(folder)))
    print(
        json.dumps(
            {
                "machine": {
                    "cpus": os.cpu_count(),
                    "processor": platform.processor() or platform.machine(),
                    "python": platform.python_version(),
                },
                "help_seconds": help_seconds(),
                "seconds": spread([one["seconds"] for one in searches]),
                "peak_pss_gb": spread([one["peak_pss_bytes"] / 1e9 for one in searches]),
                "searches": searches,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
