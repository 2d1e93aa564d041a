"""Paths that somebody gave: looked at in one place, so that one that may not be looked at is told by the option that it came from.

`pathlib` raises for a folder that one may not enter, for a name that is too long and, on writing, for one that no file can have.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcpr_tune.errors import InputError

LONGEST_NAME = 255
"""Bytes of a file's name, on any usual file system."""


def looked_at(path: Path, where: str) -> os.stat_result | None:
    """What is known of what lies there, None where nothing does. `where` is the option and what it said. Raises `InputError`."""
    for name in path.parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(
                f"{where}: a name in it has {len(name)} characters, and a file's name at most {LONGEST_NAME} bytes; choose a shorter one"
            )
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{where} cannot be looked at: {_reason(error)}; {_hint(error)}") from None
    except ValueError as error:
        raise InputError(f"{where} is no path: {error}; choose another") from None


def exists(path: Path, where: str) -> bool:
    """Whether something lies there. Raises `InputError` as `looked_at` does."""
    return looked_at(path, where) is not None


def is_file(path: Path, where: str) -> bool:
    """Whether a file lies there. Raises `InputError` as `looked_at` does."""
    found = looked_at(path, where)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_dir(path: Path, where: str) -> bool:
    """Whether a folder lies there. Raises `InputError` as `looked_at` does."""
    found = looked_at(path, where)
    return found is not None and stat.S_ISDIR(found.st_mode)


def there(path: Path) -> bool:
    """Whether a file can be seen there, for what is shown where it is, and done without where it is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def reading(where: str) -> Iterator[None]:
    """For the block that reads what lies there: what the system does not allow is an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{where} cannot be read: {_reason(error)}; {_hint(error)}") from None


def check_writable(path: Path, where: str, hint: str) -> None:
    """Find out before any work whether a file or a folder can be made there, perhaps with the folders above it. Raises `InputError`."""
    looked_at(path, where)
    above = next(one for one in path.absolute().parents if exists(one, where))
    if not is_dir(above, where) or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{where} cannot be written: {above} is no folder that you may write to; {hint}")


def check_new_file(path: Path, where: str, hint: str = "choose another file") -> None:
    """The same for a file of a folder that is there, and which holds none of this name. Raises `InputError`."""
    if exists(path, where):
        raise InputError(f"{where} exists; {hint}, or delete it")
    check_folder_of(path, where, hint)


def check_folder_of(path: Path, where: str, hint: str = "choose another file") -> None:
    """The same for a file that may be written over. Raises `InputError`."""
    found = looked_at(path, where)
    if found is not None and not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no file to write into"  # a device, a pipe
        raise InputError(f"{where} is {what}; {hint}")
    if not exists(path.absolute().parent, where):
        raise InputError(f"{where}: there is no folder {path.absolute().parent}; make it, or {hint}")
    check_writable(path, where, hint)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _hint(error: OSError) -> str:
    return "ask whom it belongs to, or choose another" if isinstance(error, PermissionError) else "choose another"
