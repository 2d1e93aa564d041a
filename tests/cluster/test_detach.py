"""A search that a cluster runs by itself, with a token: handed over, looked at, stopped, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cluster.test_faults import epochs_in, follow
from tests.cluster.test_search import in_folder, launched
from tests.conftest import SMALL_SPACE

pytestmark = pytest.mark.cluster

TOKEN = "c0ffee00" * 8


def free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    for one in opened:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


@pytest.fixture
def head(tmp_path, monkeypatch) -> Iterator[tuple[str, str]]:
    """The addresses of a one-node cluster and of its dashboard; ended by its process group."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    port, dashboard, agent = free_ports(3)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--port={port}", "--num-cpus=2", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


def asked(url: str, token: str) -> int:
    """The status that the dashboard answers with, 0 where it does not yet."""
    request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def hcpr_tune(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hcpr_tune", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_detached_search_runs_on_and_is_found_again(head, tmp_path):
    address, dashboard = head
    while asked(dashboard, TOKEN) != 200:
        time.sleep(0.2)
    assert asked(dashboard, "") == 401
    assert asked(dashboard, "0" * 64) in (401, 403)
    space = SMALL_SPACE.replace("epochs = 4", "epochs = 400").replace("first_rung = 1", "first_rung = 200")
    storage = str(tmp_path / "shared")
    command = ("--space", str(in_folder(tmp_path, space) / "small.toml"), "--name", "away", "--storage", storage)
    started = launched(tmp_path, *command, "--address", address, "--detach", "--trials", "2")
    assert started.returncode == 0, started.stdout + started.stderr
    assert f"tune stop away --storage {storage}" in started.stdout
    record = tmp_path / "shared" / "away" / "record.jsonl"
    follow(record, lambda events: len(epochs_in(events)) >= 3)
    status = hcpr_tune(tmp_path, "status", "away", "--storage", storage)
    assert "state        running, led by process " in status.stdout
    assert "2 of 2 trials: 2 running" in status.stdout
    again = launched(tmp_path, "--resume", "away", "--storage", storage)
    assert again.returncode == 2
    assert "is being searched by process " in again.stderr
    logs = hcpr_tune(tmp_path, "logs", "away", "--storage", storage)
    assert logs.returncode == 0, logs.stderr
    assert f"study        {storage}/away" in logs.stdout
    assert TOKEN not in logs.stdout
    command = [sys.executable, "-m", "hcpr_tune", "logs", "-f", "away", "--storage", storage]
    followed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert followed.stdout is not None
    assert followed.stdout.readline()
    stopped = hcpr_tune(tmp_path, "stop", "away", "--storage", storage)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert (
        "state        not running (interrupted)" in hcpr_tune(tmp_path, "status", "away", "--storage", storage).stdout
    )
    assert followed.communicate(timeout=60)[0]
    assert followed.returncode == 0
    events = [event["event"] for event in record_events(record)]
    assert events.count("begin") == 2
    assert events[:3] == ["begin", "end", "begin"]
    nothing = hcpr_tune(tmp_path, "stop", "away", "--storage", storage)
    assert nothing.returncode == 2
    assert "is not being searched" in nothing.stderr


def record_events(record):
    return follow(record, lambda events: True)


def test_detaching_needs_a_cluster(tmp_path):
    done = launched(in_folder(tmp_path), "--space", "small.toml", "--detach")
    assert done.returncode == 2
    assert "--detach goes with --address HOST:PORT" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("dashboard", "words"),
    [
        ("http://10.1.2.3:8265", "if you trust that, add --address 10.1.2.3:8265"),
        ("evil.module://x", "if you trust that, add --address"),
        ("http://127.0.0.1:9@elsewhere:1", "if you trust that, add --address"),
        ("http://127.0.0.1:9", "does not take jobs"),
    ],
)
def test_logs_ask_nobody_whom_only_a_file_names(tmp_path, small_study, dashboard, words):
    """The token would go there, and Ray imports a module that a strange scheme names."""
    from hcpr_tune.search.storage.studies import check_new, create

    folder = check_new(tmp_path / "results", "here")
    create(folder, small_study)
    folder.objects.write("job.json", json.dumps({"dashboard": dashboard, "job": "raysubmit_x"}).encode())
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "module.py").write_text("open('ran', 'w')")
    done = hcpr_tune(tmp_path, "logs", "here")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()
