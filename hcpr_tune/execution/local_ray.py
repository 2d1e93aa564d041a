"""A Ray of our own on this machine: a folder that nobody else can enter, on loopback alone, and nothing of it left when its driver is gone."""

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

PREFIX = "hcpr_tune-ray-"
LOCK, INSIDE = "driver", "r"
"""In a Ray's folder: what its driver holds locked while it lives, and what Ray itself is given."""
MARK = "HCPR_TUNE_RAY_FOLDER"
"""The environment variable by which the processes of a Ray are known, whatever name and group they have taken."""
LONGEST_SOCKET = 107
"""Bytes in the name of a Unix socket; a byte less than Linux takes, and for macOS still 4 too many, whose /tmp is short."""
BELOW = "/xxxxxxxx/r/session_2026-01-31_23-59-59_999999_1234567/sockets/plasma_store"
"""What stands after the folder's prefix in the longest name of a socket."""
YOUNG_SECONDS = 600.0
"""A folder that has no lock yet is being made, unless it is older."""
MOST_FILES = 65536
LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Off, Ray uses loopback for everything, as it does by itself on macOS and Windows; an address of the loopback that it is given it replaces."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for one Ray, for as long as the block lasts; what an earlier driver of ours left is ended first. Raises `InputError`."""
    end_leftovers()
    root, lock = _made()
    try:
        yield root
    finally:
        _end(root)
        os.close(lock)


@contextmanager
def starting(root: Path) -> Iterator[Path]:
    """What Ray is to take for its temporary files, for as long as the block lasts, in which it is started: on loopback alone, its processes marked.

    Ray opens that folder to all users of the machine (mode 0777), and workers run code from it: so it lies inside of one that only this user can enter.
    """
    from ray._private import ray_constants

    settings = {MARK: str(root), LOCAL_ONLY: "0"}
    if not _fits(Path(tempfile.gettempdir()).absolute()):
        settings["TMPDIR"] = str(root.parent)  # the dashboard's processes and a trial's own make sockets there
    before, known = {name: os.environ.get(name) for name in settings}, ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(settings)
    _more_files()
    ray_constants.ENABLE_RAY_CLUSTER = False  # where Ray was imported before
    try:
        yield root / INSIDE
        _show(root / INSIDE)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        for name, value in before.items():
            restore(name, value)


def _more_files() -> None:
    """As many open files as this user may have, up to what Ray is content with: its processes hold a connection each to all others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _show(temporary: Path) -> None:
    """A link of a fixed name to the latest Ray's folder, for a Prometheus that follows it; without a home that can be written there is none."""
    with contextlib.suppress(OSError, RuntimeError):
        link = Path.home() / ".hcpr_tune" / "ray"
        link.parent.mkdir(mode=0o700, exist_ok=True)
        draft = link.with_name(f".ray.{os.getpid()}")
        draft.symlink_to(temporary)
        draft.replace(link)


def end_leftovers() -> int:
    """End, by their ids, the processes that drivers of this user left on this machine when they were killed, and delete their folders. Returns how many processes."""
    ended = 0
    for parent in _places():
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
    except BlockingIOError:  # its driver lives
        return 0
    finally:
        os.close(lock)


def _made() -> tuple[Path, int]:
    """A new folder and its lock, held. The system lets go of a lock however its process ends."""
    places = _places()
    for parent in places:
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
    tried = reason if places else "none of them is short enough and safe from other users"
    raise InputError(
        f"Ray needs a folder for temporary files, and there is none in TMPDIR, /tmp or /var/tmp ({tried}); make space, or name another one by TMPDIR,"
        f" of at most {LONGEST_SOCKET - len(BELOW) - len(PREFIX) - 1} characters"
    )


def _places() -> list[Path]:
    """Where such a folder can lie: with room for the names of sockets, and where nobody else can put another one in its place."""
    with contextlib.suppress(OSError):
        tempfile.gettempdir()
    named = [
        Path(text) for text in (tempfile.tempdir, "/tmp", "/var/tmp") if text
    ]  # mkdtemp makes a name that cannot be guessed
    return [place.absolute() for place in dict.fromkeys(named) if _fits(place.absolute())]


def _fits(place: Path) -> bool:
    try:
        mode = place.stat().st_mode
    except OSError:
        return False
    replaceable = mode & 0o022 and not mode & stat.S_ISVTX
    return (
        stat.S_ISDIR(mode) and not replaceable and len(os.fsencode(place)) + 1 + len(PREFIX + BELOW) <= LONGEST_SOCKET
    )


def _end(root: Path) -> int:
    """End what still runs in the folder, and delete it."""
    ended = end_processes(root)
    shutil.rmtree(root, ignore_errors=True)
    return ended


def end_processes(root: Path) -> int:
    """End, by their ids, what runs of the Ray in `root`; returns how many processes that were."""
    left = processes_of(root)
    for process in left:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    until = time.monotonic() + 5.0
    while any(Path(f"/proc/{process}/exe").exists() for process in left) and time.monotonic() < until:
        time.sleep(0.02)
    return len(left)


def processes_of(root: Path) -> list[int]:
    """The ids of this user's processes that belong to the Ray in `root`, this one not counted. Empty where the system has no /proc."""
    found, mark = [], f"{MARK}={root}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != os.getpid() and path.stat().st_uid == os.getuid():
                found += [int(path.name)] * (mark in (path / "environ").read_bytes().split(b"\0"))
    return found


def restore(name: str, before: str | None) -> None:
    """Put an environment variable back as it was."""
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before
