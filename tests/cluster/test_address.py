"""A search on a Ray cluster that somebody else started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.training.test_folders import write_images

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a one-node cluster on free ports; its processes are ended by their group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=1",
    ]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    with (tmp_path_factory.mktemp("ray") / "ray.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    yield f"127.0.0.1:{port}", environment
    os.killpg(head.pid, signal.SIGKILL)
    try:
        head.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def until_it_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        while probe.connect_ex((host, int(port))):
            time.sleep(0.2)


def searched(cluster, space_file, name, *arguments):
    """A search on the cluster."""
    address, environment = cluster
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--space", str(space_file), "--address", address]
    return subprocess.run(
        [*command, "--trials", "2", "--name", name, *arguments],
        cwd=space_file.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_a_search_joins_a_running_cluster(cluster, space_file):
    address, environment = cluster
    deadline = time.monotonic() + 60
    while True:
        done = searched(cluster, space_file, "joined")
        # Until the head answers, the search refuses the address and writes nothing.
        if done.returncode != 2 or time.monotonic() > deadline:
            break
        assert not (space_file.parent / "results").exists()
        until_it_listens(address)
    assert done.returncode == 0, done.stderr
    assert (space_file.parent / "results" / "joined" / "best" / "model.safetensors").exists()
    code = (
        "import sys, ray; from hcpr_tune.execution.connection.cluster import connected\n"
        "def where():\n  import hcpr_tune; return hcpr_tune.__file__\n"
        "with connected(sys.argv[1]): print(ray.get(ray.remote(where).remote()))"
    )
    shipped = subprocess.run(
        [sys.executable, "-c", code, address],
        cwd=space_file.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "py_modules_files" in shipped.stdout, "a worker runs other code than the driver's"


def test_a_worker_compares_the_parts_of_a_folder_before_the_study_is_begun(cluster, space_file):
    photos = space_file.parent / "photos"
    write_images(photos / "train", size=(8, 8))
    write_images(photos / "test", size=(8, 8), mode="L", count=2)
    deadline = time.monotonic() + 60
    words = "test has gray images of 8x8, the training part colour images of 8x8"
    while True:
        done = searched(cluster, space_file, "photos", "--set", f"task.dataset='folder:{photos}'")
        assert done.returncode == 2, done.stderr
        if words in done.stderr or time.monotonic() > deadline:
            break
    assert words in done.stderr
    assert not (space_file.parent / "results" / "photos").exists()
