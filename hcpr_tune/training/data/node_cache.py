"""Arrays shared by the processes of one node, as memory-mapped files in a private folder; the node holds each once.

Every process maps the same file, and the kernel keeps one copy of its pages, which it may drop and read again when
memory is short. If an array cannot be shared for any reason, the process makes its own: the cache saves memory and
never changes a result.

In the folder, a key has KEY.npy, the array followed by the SHA-256 of its bytes; KEY.lock, locked by the process that
makes the array; and KEY.part, what that process has written so far.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

KEPT_UNUSED = 24 * 3600.0
"""Seconds for which an unused array is kept for the next search."""

DIGEST_BYTES = hashlib.sha256().digest_size


class NodeCache:
    """Shares arrays with the other processes of this user on this node. It has no state of its own and is thread-safe.

    An array is in use as long as its mapping exists: the mapping keeps the file open and with it a shared lock, which
    is released with the last reference to the array or when the process ends, in whatever way.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is created at first use, private to this user; arrays unused for a day are deleted from it now."""
        self._folder = folder
        _sweep(folder, KEPT_UNUSED)

    def array(
        self, key: str, shape: tuple[int, ...], dtype: np.dtype | type, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The array that `make` returns, of this `shape` and `dtype`, shared with all processes that use this `key`.

        `key` must change with everything that determines the content, and consists of lower-case letters, digits and
        hyphens, else `ValueError`. One process calls `make` while the others wait. The array should not be written to;
        a write stays in this process, which then holds its own copy of that page. If the folder belongs to another
        user, is open to others or is a link, or if the disk is full, the result is simply `make()`. Exceptions of
        `make` propagate.
        """
        if not re.fullmatch(r"[a-z0-9-]{1,200}", key):
            raise ValueError(f"a key must have only lower-case letters, digits and hyphens, got {key!r}")
        with ExitStack() as held:
            try:
                folder = held.enter_context(_private(self._folder, create=True))
                found = _mapped(folder, key, shape, dtype)
                if found is None:
                    held.enter_context(_locked(folder, f"{key}.lock"))
                    # Another process may have made it while this one waited.
                    found = _mapped(folder, key, shape, dtype)
            except OSError:
                return make()
            if found is not None:
                return found
            made = make()
            try:
                _write(folder, key, made)
                found = _mapped(folder, key, shape, dtype)
            except OSError:
                found = None
            return made if found is None else found


def release(folder: Path) -> None:
    """Delete all unused arrays now, and the folder if it is then empty. Never raises: what cannot be deleted stays."""
    _sweep(folder, 0.0)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _private(folder: Path, create: bool) -> Iterator[int]:
    """A descriptor of the folder. Raises `OSError` if it is missing, a link, another user's or open to others.

    Files are then opened relative to the descriptor, so that the folder cannot be swapped for another.
    """
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{folder} is not private to this user")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: int, name: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `name`; waits for it."""
    while True:
        with _opened(folder, name, os.O_RDWR | os.O_CREAT) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(folder, name, file):
                yield
                return
            # It was deleted while this process waited; another process may hold a new one.


def _opened(folder: int, name: str, flags: int) -> BinaryIO:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b")


def _is_at(folder: int, name: str, file: BinaryIO) -> bool:
    """Whether the open file is still the one with this name."""
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(file.fileno()))


def _mapped(folder: int, key: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray | None:
    """The array of the key's file, locked against deletion while in use; None if there is no valid, matching file."""
    try:
        file = _opened(folder, f"{key}.npy", os.O_RDONLY)
    except FileNotFoundError:
        return None
    with file:
        # The mapping keeps this open file, so the lock outlives the `with`.
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0(file) if version == (1, 0) else None
        except ValueError:
            return None
        if header != (tuple(shape), False, np.dtype(dtype)):
            return None
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        length = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not length or size != start + length + DIGEST_BYTES:
            return None
        # Copy on write: torch accepts only writable arrays, and unwritten pages stay shared.
        array = np.memmap(file, dtype, "c", start, tuple(shape))
        file.seek(start + length)
        if hashlib.sha256(_bytes(array)).digest() != file.read():
            return None
        os.utime(file.fileno())
        return array


def _write(folder: int, key: str, array: np.ndarray) -> None:
    """Write the key's file under another name, then rename it. Leaves nothing behind on failure."""
    part = f"{key}.part"
    array = np.ascontiguousarray(array)
    with suppress(FileNotFoundError):  # a killed process may have left it
        os.unlink(part, dir_fd=folder)
    try:
        with _opened(folder, part, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(_bytes(array))
            file.write(hashlib.sha256(_bytes(array)).digest())
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, f"{key}.npy", src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


def _bytes(array: np.ndarray) -> memoryview:
    """The same memory as flat bytes; `array` must be contiguous."""
    return array.reshape(-1).view(np.uint8).data


def _sweep(path: Path, unused: float) -> None:
    """Delete the files that are not locked and have been unused for `unused` seconds."""
    with suppress(OSError), _private(path, create=False) as folder, os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            key, _, kind = name.rpartition(".")
            if kind in ("npy", "lock"):
                _delete_unused(folder, key, kind, time.time() - unused)


def _delete_unused(folder: int, key: str, kind: str, before: float) -> None:
    """Delete one file; for a lock file, also the partial file that a killed process left."""
    with suppress(OSError), _opened(folder, f"{key}.{kind}", os.O_RDONLY) as file:
        if os.fstat(file.fileno()).st_mtime > before:
            return
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have replaced it since it was opened.
        if not _is_at(folder, f"{key}.{kind}", file):
            return
        if kind == "lock":
            with suppress(FileNotFoundError):
                os.unlink(f"{key}.part", dir_fd=folder)
        os.unlink(f"{key}.{kind}", dir_fd=folder)
