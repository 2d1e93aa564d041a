"""`benchmarks/gpu.py` runs where there is no GPU: it must not fail for its own faults when there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_gpu_check_runs_on_a_cpu():
    sections = "env,parity,epoch,graph,repeat,faults"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--device", "cpu", "--sections", sections]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [line for line in lines if "error" in line]
    assert {line["section"] for line in lines} == {*sections.split(","), "end"}
    parity = [line for line in lines if line["section"] == "parity"]
    assert len(parity) == 10
    assert all(line["ok"] for line in parity)
    assert all(line["gone_on"]["equal_bits"] for line in lines if "gone_on" in line)
