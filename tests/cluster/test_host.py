"""A program that calls us is left as it was, also one that is connected to Ray and calls from a thread of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SMALL_SPACE

pytestmark = pytest.mark.cluster

HOST = """
import json, logging, os, signal, threading
import ray, sklearn, torch  # scikit-learn's import sets two environment variables of OpenMP

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
NAMES = ("ray", "ray.tune", "ray.data", "")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

def state():
    return {
        "environment": dict(os.environ),
        "levels": {name: logging.getLogger(name).level for name in NAMES},
        "signals": {str(number): str(signal.getsignal(number)) for number in SIGNALS},
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "address": ray.get_runtime_context().gcs_address,
    }

@ray.remote
def seven():
    return 7

import hcpr_tune
assert ray.get(seven.remote()) == 7
before, found = state(), []

def work():
    found.append(hcpr_tune.tune("small.toml", name="guest", trials=2))

thread = threading.Thread(target=work)
thread.start()
thread.join()
assert ray.is_initialized() and ray.get(seven.remote()) == 7
after = state()
try:
    hcpr_tune.tune("small.toml", name="elsewhere", address="10.0.0.1:6379")
    refused = ""
except hcpr_tune.errors.InputError as error:
    refused = str(error)
print(json.dumps({"before": before, "after": after, "trials": len(found[0].trials), "refused": refused}))
"""


def test_a_program_that_is_connected_to_ray_is_left_as_it_was(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    (tmp_path / "host.py").write_text(HOST, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "host.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["trials"] == 2
    before, after = told["before"], told["after"]
    changed = {
        name
        for name in before["environment"] | after["environment"]
        if before["environment"].get(name) != after["environment"].get(name)
    }
    assert changed == set()
    assert after == before
    assert "connected to Ray already" in told["refused"]
    assert not (tmp_path / "results" / "elsewhere").exists()
