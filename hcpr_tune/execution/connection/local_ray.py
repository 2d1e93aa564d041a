"""A Ray on this machine: in a folder only this user can enter, on loopback only, cleaned up after its driver."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.host import restore

PREFIX = "hcpr_tune-ray-"
LOCK, INSIDE = "driver", "r"
"""In a Ray's folder: the file that its driver keeps locked, and the folder that Ray itself uses."""
MARK = "HCPR_TUNE_RAY_FOLDER"
"""An environment variable that marks all processes of a Ray, even those that change their name or group."""
LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket. Linux takes 108; macOS takes 103, but its /tmp is short."""
BELOW = "/xxxxxxxx/r/session_2026-01-31_23-59-59_999999_1234567/sockets/plasma_store"
"""What follows the folder's prefix in the longest socket path."""
YOUNG_SECONDS = 600.0
"""A folder without a lock that is younger than this is still being created."""
MOST_FILES = 65536
LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If 0, Ray uses loopback for everything, as on macOS and Windows. Passing a loopback address instead has no effect:
Ray replaces it.
"""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for one Ray while the block runs. Cleans up after killed drivers first. Raises `InputError`."""
    end_leftovers()
    root, lock = _made()
    try:
        yield root
    finally:
        _end(root)
        os.close(lock)


@contextmanager
def starting(root: Path) -> Iterator[Path]:
    """Yields the folder for Ray's temporary files. A Ray started in the block uses loopback only and is marked.

    Ray makes that folder accessible to all users (mode 0777), and workers run code from it, so it is inside a folder
    that only this user can enter.
    """
    from ray._private import ray_constants

    settings = {MARK: str(root), LOCAL_ONLY: "0"}
    if not _fits(Path(tempfile.gettempdir()).absolute()):
        settings["TMPDIR"] = str(root.parent)  # the dashboard's processes and the trials create sockets there
    before, known = {name: os.environ.get(name) for name in settings}, ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(settings)
    _more_files()
    ray_constants.ENABLE_RAY_CLUSTER = False  # in case ray was imported before
    try:
        yield root / INSIDE
        _show(root / INSIDE)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        for name, value in before.items():
            restore(name, value)


def _more_files() -> None:
    """Raise the limit on open files as far as allowed, up to what Ray asks for: its processes are all connected."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _show(temporary: Path) -> None:
    """Link ~/.hcpr_tune/ray to the latest Ray's folder, for Prometheus. Skipped if the home is not writable."""
    with contextlib.suppress(OSError, RuntimeError):
        link = Path.home() / ".hcpr_tune" / "ray"
        link.parent.mkdir(mode=0o700, exist_ok=True)
        draft = link.with_name(f".ray.{os.getpid()}")
        draft.symlink_to(temporary)
        draft.replace(link)


def end_leftovers() -> int:
    """Kill the processes that this user's killed drivers left behind, and delete their folders.

    Returns the number of processes.
    """
    ended = 0
    for parent in _parents():
        for root in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                ended += _end_leftover(root)
    return ended


def _end_leftover(root: Path) -> int:
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return 0
    try:
        lock = os.open(root / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - found.st_mtime > YOUNG_SECONDS:
            _end(root)
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _end(root)
    except BlockingIOError:  # its driver is alive
        return 0
    finally:
        os.close(lock)


def _made() -> tuple[Path, int]:
    """A new folder, and its lock, held. The system releases the lock however the process ends."""
    parents = _parents()
    for parent in parents:
        try:
            root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            reason = f"{parent}: {error.strerror}"
            if error.errno == errno.ENOSPC:
                break
            continue
        return root, lock
    tried = reason if parents else "none of them is short enough and safe from other users"
    raise InputError(
        f"Ray needs a folder for temporary files, and there is none in TMPDIR, /tmp or /var/tmp ({tried}); make space,"
        f" or set TMPDIR to another folder, of at most {LONGEST_SOCKET - len(BELOW) - len(PREFIX) - 1} characters"
    )


def _parents() -> list[Path]:
    """Candidate parent folders: short enough for socket paths, and where other users cannot replace the folder."""
    with contextlib.suppress(OSError):
        tempfile.gettempdir()
    named = [Path(text) for text in (tempfile.tempdir, "/tmp", "/var/tmp") if text]  # mkdtemp's names cannot be guessed
    return [folder.absolute() for folder in dict.fromkeys(named) if _fits(folder.absolute())]


def _fits(folder: Path) -> bool:
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    replaceable = mode & 0o022 and not mode & stat.S_ISVTX
    return (
        stat.S_ISDIR(mode) and not replaceable and len(os.fsencode(folder)) + 1 + len(PREFIX + BELOW) <= LONGEST_SOCKET
    )


def _end(root: Path) -> int:
    """Kill the processes that belong to the folder, and delete it."""
    ended = end_processes(root)
    shutil.rmtree(root, ignore_errors=True)
    return ended


def end_processes(root: Path) -> int:
    """Kill the processes of the Ray in `root`; returns their number."""
    left = processes_of(root)
    for process in left:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    until = time.monotonic() + 5.0
    while any(Path(f"/proc/{process}/exe").exists() for process in left) and time.monotonic() < until:
        time.sleep(0.02)
    return len(left)


def processes_of(root: Path) -> list[int]:
    """The ids of this user's processes that belong to the Ray in `root`, except this one. Empty without /proc."""
    found, mark = [], f"{MARK}={root}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != os.getpid() and path.stat().st_uid == os.getuid():
                found += [int(path.name)] * (mark in (path / "environ").read_bytes().split(b"\0"))
    return found
