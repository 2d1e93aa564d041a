"""A Slurm of shell scripts: job steps are local processes, so that real Ray nodes run, on one machine."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLUSTER = ROOT / "launch" / "cluster"
MARK = "HCPR_TUNE_TEST_MARK"
"""An environment variable that all processes of a test inherit, whatever session or group they move to."""

SRUN = """#!/usr/bin/env bash
set -euo pipefail
echo "srun $*" >>"$STUB_LOG"
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""

SCONTROL = """#!/usr/bin/env bash
set -euo pipefail
echo "scontrol $*" >>"$STUB_LOG"
case "$1 $2" in
    "show hostnames") tr , '\\n' <<<"$3" ;;
    "show job") echo "   JobState=$(cat "$STUB_STATE") Reason=None Dependency=(null)" ;;
esac
"""

SBATCH = """#!/usr/bin/env bash
set -euo pipefail
export SLURM_SUBMIT_DIR="$PWD" SLURM_CPUS_PER_TASK=1
while [[ "$1" == --* ]]; do shift; done
# Slurm runs a copy of the script from a folder of its own.
cp "$1" "$HOME/slurm_script.$SLURM_JOB_ID"
shift
exec bash "$HOME/slurm_script.$SLURM_JOB_ID" "$@"
"""

SEARCH = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
import ray

def interrupt(number, frame):
    sys.exit(130)

options = sys.argv
ray.init(address=options[options.index("--address") + 1], log_to_driver=False)
signal.signal(signal.SIGTERM, interrupt)
note = Path(os.environ["STUB_NOTE"])
while True:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    seen = {{"arguments": options[1:], "nodes": len(nodes), "cpus": sum(n["Resources"].get("CPU", 0) for n in nodes)}}
    note.with_suffix(".new").write_text(json.dumps(seen))
    note.with_suffix(".new").rename(note)
    if note.with_suffix(".end").exists():
        sys.exit(int(note.with_suffix(".end").read_text()))
    time.sleep(0.2)
"""
"""A substitute for the search: writes down what it sees of the cluster until a file or a signal ends it."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def eventually(condition: Callable[[], object], seconds: float = 60) -> object:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            assert found
            return found
        time.sleep(0.1)


class Sandbox:
    """A home, a PATH with the stubs, and the processes that were started in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.log, self.state, self.note = folder / "slurm.log", folder / "state", folder / "seen.json"
        binaries = folder / "bin"
        for path in (self.home, binaries):
            path.mkdir()
        for name, text in (
            ("srun", SRUN),
            ("scontrol", SCONTROL),
            ("sbatch", SBATCH),
            ("hcpr_tune", SEARCH.format(python=sys.executable)),
        ):
            (binaries / name).write_text(text)
            (binaries / name).chmod(0o755)
        self.log.touch()
        self.state.write_text("RUNNING")
        mark = f"{folder.name}-{os.getpid()}"
        self.mark = f"{MARK}={mark}".encode()
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "LANG": "C.UTF-8",
            "VENV": "",
            "STORAGE": "/shared/results",
            "NAME": "mine",
            "POLL": "0.5",
            "STUB_LOG": str(self.log),
            "STUB_STATE": str(self.state),
            "STUB_NOTE": str(self.note),
            MARK: mark,
        }
        self.output = folder / "output.log"
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str | Path, **environment: str | int) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env=self.environment | {name: str(value) for name, value in environment.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def alive(self) -> list[int]:
        """The ids of all living processes of this sandbox."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if self.mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def command_lines(self) -> bytes:
        """What `ps` would show of them."""
        lines = []
        for process in self.alive():
            try:
                lines.append(Path(f"/proc/{process}/cmdline").read_bytes().rstrip(b"\0"))
            except OSError:
                continue
        return b"\n".join(lines)

    def check_ended(self) -> None:
        """Nothing that was started is left."""
        deadline = time.monotonic() + 5
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.command_lines() == b""

    def job(self) -> dict[str, int]:
        """The number of a Slurm job whose ports nobody uses."""
        while True:
            number = random.randrange(1, 4000)
            if all(is_free(20000 + 3 * number + offset) for offset in range(3)):
                return {"SLURM_JOB_ID": number}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Whatever is left of its processes is ended, by its id, after the test."""
    box = Sandbox(tmp_path)
    yield box
    for process in box.alive():
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for started in box.started:
        started.wait()
