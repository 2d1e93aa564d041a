"""A folder that no one else can enter, for a Ray of our own; what a killed driver leaves is ended, and nothing else."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection import local_ray
from hcpr_tune.execution.connection.local_ray import (
    LOCAL_ONLY,
    LONGEST_SOCKET,
    MARK,
    PREFIX,
    end_leftovers,
    private_folder,
    processes_of,
    starting,
)


@pytest.fixture
def places(monkeypatch, tmp_path):
    """A short folder in place of those that all users share."""
    with tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as short:
        monkeypatch.setattr(local_ray, "_parents", lambda: [Path(short)])
        yield Path(short)


def test_the_folder_is_of_this_user_alone_and_goes_at_the_end(places):
    with private_folder() as root:
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert root.parent == places
        assert end_leftovers() == 0, "its driver lives"
        assert root.is_dir()
    assert not root.exists()


@pytest.mark.parametrize("name", ["x" * 100, "open"])
def test_a_long_or_an_open_folder_for_temporary_files_is_not_used(name, tmp_path, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with private_folder() as root:
        assert root.parent in (Path("/tmp"), Path("/var/tmp"))
        socket = root / "r" / f"session_2026-01-31_23-59-59_999999_{2**22}" / "sockets" / "plasma_store"
        assert len(os.fsencode(socket)) <= LONGEST_SOCKET


def test_no_place_at_all_is_one_line(monkeypatch):
    monkeypatch.setattr(local_ray, "_parents", list)
    with (
        pytest.raises(InputError, match=r"Ray needs a folder for temporary files, .* of at most \d\d characters"),
        private_folder(),
    ):
        raise AssertionError


def test_what_ray_starts_has_room_for_sockets_and_files_and_this_process_its_environment(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    names = (MARK, LOCAL_ONLY, "TMPDIR")
    before = {name: os.environ.get(name) for name in names}
    try:
        with private_folder() as root, starting(root):
            assert os.environ["TMPDIR"] == str(root.parent) != str(folder)
            assert os.environ[MARK] == str(root)
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {name: os.environ.get(name) for name in names} == before
    assert (tmp_path / ".hcpr_tune" / "ray").readlink() == root / "r"


KILLED = """
import os, subprocess, sys
from pathlib import Path
from hcpr_tune.execution.connection import local_ray
local_ray._parents = lambda: [Path(sys.argv[1])]
with local_ray.private_folder() as root:
    child = subprocess.Popen(
        ["sleep", "60"],
        env=os.environ | {local_ray.MARK: str(root)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(root, child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_driver_left_is_ended_by_the_next_start_and_nothing_else(places):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(places)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    root, child = Path(done.stdout.split()[0]), int(done.stdout.split()[1])
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(places / f"{PREFIX}other")})
    try:
        assert processes_of(root) == [child]
        with private_folder():
            assert not root.exists()
        until = time.monotonic() + 10
        while Path(f"/proc/{child}/exe").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert processes_of(root) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_folder_that_is_just_being_made_and_a_link_are_left_alone(places, tmp_path):
    young, old = places / f"{PREFIX}young", places / f"{PREFIX}old"
    for path in (young, old):
        path.mkdir()
    os.utime(old, (0, 0))
    (places / f"{PREFIX}link").symlink_to(tmp_path)
    end_leftovers()
    assert young.is_dir()
    assert not old.exists()
    assert tmp_path.is_dir()
