"""`head.sh` and `worker.sh`: a cluster of two nodes on one machine, from the first token to the last process."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.launch.conftest import CLUSTER, eventually, free_port, is_free

pytestmark = pytest.mark.cluster

NODES = (
    "import ray; ray.init(address={address!r}, log_to_driver=False);"
    " print('cpus', ray.cluster_resources().get('CPU', 0))"
)


def ports() -> dict[str, int]:
    names = ("NODE_MANAGER", "OBJECT_MANAGER", "RUNTIME_ENV", "AGENT_GRPC", "AGENT_HTTP", "METRICS")
    return {f"{name}_PORT": free_port() for name in names}


def answer(port: int, token: str) -> int:
    """What the dashboard answers to a request with this token, or without one."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/jobs/")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_two_nodes_meet_by_a_token_and_end_when_told(sandbox):
    gcs, dashboard = free_port(), free_port()
    address = f"127.0.0.1:{gcs}"
    of_head = ports() | {"GCS_PORT": gcs, "DASHBOARD_PORT": dashboard, "CLIENT_PORT": free_port(), "NUM_CPUS": 1}
    head = sandbox.start(CLUSTER / "head.sh", **of_head, WORKER_PORTS="21000-21049")
    eventually(lambda: not is_free(gcs))

    token = sandbox.home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    assert len(secret) == 64
    # A node without the token is told so, before Ray starts.
    stranger = sandbox.start(CLUSTER / "worker.sh", address, RAY_AUTH_TOKEN_PATH=sandbox.home / "none")
    assert stranger.wait(timeout=20) == 2

    # Sockets lie there, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    of_worker = ports() | {"NUM_CPUS": 2, "TEMP_ROOT": folder}
    worker = sandbox.start(CLUSTER / "worker.sh", address, **of_worker, WORKER_PORTS="21050-21099")

    def look() -> str:
        return subprocess.run(
            [sys.executable, "-c", NODES.format(address=address)],
            env=sandbox.environment | {"RAY_AUTH_MODE": "token"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    eventually(lambda: "cpus 3" in look())
    # Ray opens its own folder to all users, so the one around it is closed.
    (private,) = folder.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "r").is_dir()
    # Ray takes 20 s to refuse a node with another token; its dashboard is quicker.
    assert [answer(dashboard, known) for known in (secret, "0" * 64, "")] == [200, 403, 401]
    # The dashboard is on the loopback and nowhere else.
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [where for where in listening if where.endswith(f":{dashboard:04X}")] == [f"0100007F:{dashboard:04X}"]
    assert secret.encode() not in sandbox.command_lines()

    for process in (worker, head):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0
    sandbox.check_ended()
    assert list(folder.iterdir()) == []
    folder.rmdir()
    output = sandbox.output.read_text()
    assert secret not in output
    assert f"launch/cluster/worker.sh {subprocess.getoutput('hostname')}:{gcs}" in output
    assert "no token in" in output


def test_what_is_wrong_is_said_before_ray_starts(sandbox):
    (sandbox.home / ".ray").mkdir()
    (sandbox.home / ".ray" / "auth_token").write_text("0" * 64)
    nobody = free_port()
    for command, message in (
        (("head.sh", "--port=1"), "takes no arguments"),
        (("worker.sh",), "takes the address of the head"),
        (("worker.sh", f"127.0.0.1:{nobody}"), f"nothing answers at 127.0.0.1:{nobody}"),
    ):
        assert sandbox.start(CLUSTER / command[0], *command[1:]).wait(timeout=20) == 2
        assert message in sandbox.output.read_text()
