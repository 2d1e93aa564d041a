"""`head.sh` and `worker.sh`: a cluster of two nodes on one machine, from the first token to the last process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.launch.conftest import CLUSTER, Sandbox, eventually, free_port
from tests.s3 import s3_server

__all__ = ["s3_server"]

pytestmark = pytest.mark.cluster

WRONG_ENDPOINT = "http://127.0.0.1:1"
SEARCH = """
import sys
from pathlib import Path
from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.capacity import Share
from hcpr_tune.execution.connection.cluster import connected
from hcpr_tune.execution.probing import check_storage
from hcpr_tune.search.record.results import StudyFolder

with connected(sys.argv[1]) as cluster:
    print("cpus", sum(node.get("CPU", 0) for node in cluster.nodes))
    for bucket in (None, Bucket(sys.argv[2])):
        try:
            check_storage(StudyFolder(Path(sys.argv[3]) / "results" / "one", bucket), Share(3, 1.0, 0.0))
            print("all nodes use", bucket and bucket.url)
        except InputError as error:
            print(error)
"""
"""What a search does before it begins: it joins, and has each node use the storage."""


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


def test_two_nodes_meet_by_a_token_and_end_when_told(sandbox, s3_server):
    gcs, dashboard = free_port(), free_port()
    address = f"127.0.0.1:{gcs}"
    of_head = ports() | {"GCS_PORT": gcs, "DASHBOARD_PORT": dashboard, "CLIENT_PORT": free_port(), "NUM_CPUS": 1}
    head = sandbox.start(CLUSTER / "head.sh", **of_head, **s3_server.environment, WORKER_PORTS="21000-21049")
    eventually(lambda: "log  " in sandbox.output.read_text())
    # What comes next is said last and alone, once it is true; Ray's own advice is for somebody else.
    first, *steps = sandbox.output.read_text().splitlines()
    assert first.startswith("starting Ray's head")
    assert [step.split("  ")[0] for step in steps if not step.startswith(" ")] == [
        *("token", "open", "each worker", "search, here", "nodes", "dashboard", "log")
    ]
    assert (
        f"hcpr_tune tune --space default --name NAME --continue --storage SHARED --address {host()}:{gcs}" in steps[5]
    )

    token = sandbox.home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    assert len(secret) == 64
    # A node without the token is told so, before Ray starts.
    stranger = sandbox.start(CLUSTER / "worker.sh", address, RAY_AUTH_TOKEN_PATH=sandbox.home / "none")
    assert stranger.wait(timeout=20) == 2
    wrong = sandbox.home / "wrong"
    wrong.write_text("0" * 64)
    stranger = sandbox.start(CLUSTER / "worker.sh", address, RAY_AUTH_TOKEN_PATH=wrong)
    assert stranger.wait(timeout=20) == 2
    assert f"the cluster at {address} does not take the token in {wrong}" in sandbox.output.read_text().splitlines()[-1]
    # Nobody starts a second head on the port of the first.
    assert sandbox.start(CLUSTER / "head.sh", **of_head).wait(timeout=20) == 2
    assert f"port {gcs} of this machine is in use" in sandbox.output.read_text().splitlines()[-1]

    # Sockets lie there, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    of_worker = (
        ports() | s3_server.environment | {"AWS_ENDPOINT_URL": WRONG_ENDPOINT, "NUM_CPUS": 2, "TEMP_ROOT": folder}
    )
    worker = sandbox.start(CLUSTER / "worker.sh", address, **of_worker, WORKER_PORTS="21050-21099")

    (joined,) = eventually(lambda: re.findall(r"^joined .*$", sandbox.output.read_text(), flags=re.MULTILINE))
    assert re.fullmatch(rf"joined +{address} as [0-9.]+ with 2 CPUs and 0 GPUs", joined)
    # A search finds the token's file, and needs no variable. Only the worker has another endpoint.
    begun = subprocess.run(
        [sys.executable, "-c", SEARCH, address, f"s3://{s3_server.new_bucket()}/one", str(sandbox.home)],
        env=sandbox.environment | s3_server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert begun.stderr == ""
    cpus, shared, endpoint = begun.stdout.splitlines()
    assert (cpus, shared) == ("cpus 3.0", "all nodes use None")
    assert re.match(rf"node {host()} \([0-9.]+\) cannot use the storage: s3://", endpoint)
    assert f"(asked {WRONG_ENDPOINT}, the endpoint in AWS_ENDPOINT_URL); the store cannot be reached" in endpoint
    assert f"where the search is started it is {s3_server.url}, the endpoint in AWS_ENDPOINT_URL" in endpoint
    status = sandbox.start(CLUSTER / "status.sh", address)
    assert status.wait(timeout=60) == 0
    eventually(lambda: "/3.0 CPU" in sandbox.output.read_text())
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
    assert f"launch/cluster/worker.sh {host()}:{gcs}" in output
    assert "no token in" in output
    assert "Ray runtime started" not in output
    assert "ray stop" not in output


def host() -> str:
    return subprocess.getoutput("hostname")


def stub_of_ray(sandbox: Sandbox, text: str) -> None:
    path = sandbox.home.parent / "bin" / "ray"
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def test_a_ray_that_fails_is_told_in_one_line_with_its_log(sandbox, tmp_path):
    stub_of_ray(sandbox, "echo chatter; echo 'ConnectionError: the port is taken'; echo 'more chatter'; exit 3")
    head = sandbox.start(CLUSTER / "head.sh", GCS_PORT=free_port(), TEMP_ROOT=tmp_path)
    assert head.wait(timeout=20) == 3
    told = sandbox.output.read_text().splitlines()[-1]
    assert told.startswith("head.sh: Ray has ended (code 3): ConnectionError: the port is taken; its log: ")
    assert "chatter" in Path(told.rpartition(" ")[2]).read_text()
    assert "chatter" not in sandbox.output.read_text()


def test_a_worker_whose_head_is_gone_says_so(sandbox, tmp_path):
    # In place of a head that takes the token: a port that is closed once Ray is there.
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        (sandbox.home / "token").write_text("0" * 64)
        (sandbox.home.parent / "bin" / "python3").write_text("#!/usr/bin/env bash\n")
        (sandbox.home.parent / "bin" / "python3").chmod(0o755)
        stub_of_ray(sandbox, f"echo Ray runtime started; while [[ ! -e {tmp_path}/end ]]; do sleep 0.1; done; exit 1")
        worker = sandbox.start(
            CLUSTER / "worker.sh", address, TEMP_ROOT=tmp_path, RAY_AUTH_TOKEN_PATH=sandbox.home / "token"
        )
        eventually(lambda: f"joined        {address} as " in sandbox.output.read_text())
    (tmp_path / "end").touch()
    assert worker.wait(timeout=20) == 1
    assert f"worker.sh: the head at {address} does not answer any more" in sandbox.output.read_text()


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
