"""A search's own Ray: who can reach it, what it writes, and what becomes of the search when it dies. One search."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from hcpr_tune.execution.connection.local_ray import processes_of
from tests.cluster.test_faults import LONG_EPOCHS, follow
from tests.cluster.test_search import in_folder, record_of

pytestmark = pytest.mark.cluster

PLANTED = "planted-secret-4711"
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
LISTENING = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same as an address of IPv6, and ::1, as /proc writes them."""


def ray_folder(driver: int) -> Path:
    """Where the Ray of this driver lies: the lock that it holds open says so."""
    links = [file.readlink() for file in Path(f"/proc/{driver}/fd").iterdir()]
    (lock,) = [path for path in links if path.name == "driver" and path.parent.name.startswith("hcpr_tune-ray-")]
    return lock.parent


def listeners(processes: list[int]) -> set[str]:
    """The addresses at which they listen, as /proc writes them."""
    sockets = set()
    for process in processes:
        try:
            for file in Path(f"/proc/{process}/fd").iterdir():
                sockets.add(str(file.readlink()))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].partition(":")[0])
    return found


def holders_of(secret: str, *folders: Path) -> list[Path]:
    """The files that hold it."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at processes through /proc")
def test_only_its_user_reaches_it_no_secret_is_written_and_its_death_ends_the_search(background, tmp_path, monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, PLANTED)
    space = in_folder(tmp_path, LONG_EPOCHS) / "small.toml"
    driver = background("tune", "--space", space, "--name", "own", "--dashboard-host", "127.0.0.1")
    record = tmp_path / "results" / "own" / "record.jsonl"
    follow(record, lambda events: any(event["event"] == "job" for event in events), driver)
    root = ray_folder(driver.pid)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    until = time.monotonic() + 60
    workers: list[int] = []
    while not workers and time.monotonic() < until:
        workers = [one for one in processes_of(root) if b"TrainJob" in Path(f"/proc/{one}/cmdline").read_bytes()]
        time.sleep(0.2)
    assert workers, "the workers know the mark, and inherit the environment"
    assert f"AWS_SECRET_ACCESS_KEY={PLANTED}".encode() in Path(f"/proc/{workers[0]}/environ").read_bytes().split(b"\0")

    assert listeners([driver.pid, *processes_of(root)]) <= LOOPBACK
    assert holders_of(PLANTED, root, tmp_path) == []

    (raylet,) = [one for one in processes_of(root) if Path(f"/proc/{one}/exe").readlink().name == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 1
    assert "Ray's raylet on this machine has died" in err.splitlines()[-1]
    assert "tune --resume own" in err.splitlines()[-1]
    assert record_of(tmp_path, "own")[-1]["event"] == "end"
    assert not root.exists()
    assert processes_of(root) == []
