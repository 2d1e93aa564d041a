"""Checks of paths given by the user, with errors that name the option.

`pathlib` raises for folders without permission, for names that are too long and, on writing, for invalid names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hcpr_tune.errors import InputError

LONGEST_NAME = 255
"""Maximum bytes of a file name, on any usual file system."""


def looked_at(path: Path, where: str) -> os.stat_result | None:
    """The `stat` of a path, None if it does not exist. `where` is the option with its value. Raises `InputError`."""
    for name in path.parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(
                f"{where}: a name in it has {len(name)} characters, but file names have at most {LONGEST_NAME} bytes;"
                " choose a shorter one"
            )
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{where} cannot be accessed: {_reason(error)}; {_hint(error)}") from None
    except ValueError as error:
        raise InputError(f"{where} is not a valid path: {error}; choose another") from None


def exists(path: Path, where: str) -> bool:
    """Whether the path exists. Raises `InputError` like `looked_at`."""
    return looked_at(path, where) is not None


def is_file(path: Path, where: str) -> bool:
    """Whether the path is a file. Raises `InputError` like `looked_at`."""
    found = looked_at(path, where)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_dir(path: Path, where: str) -> bool:
    """Whether the path is a folder. Raises `InputError` like `looked_at`."""
    found = looked_at(path, where)
    return found is not None and stat.S_ISDIR(found.st_mode)


def there(path: Path) -> bool:
    """Whether the path is an accessible file, for optional ones. Never raises."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn an `OSError` of the block, which reads the path, into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{where} cannot be read: {_reason(error)}; {_hint(error)}") from None


def check_writable(path: Path, where: str, hint: str) -> None:
    """Raises `InputError` if a file or folder could not be created there, with its parent folders if needed."""
    looked_at(path, where)
    above = next(one for one in path.absolute().parents if exists(one, where))
    if not is_dir(above, where) or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{where} cannot be written: {above} is not a folder that you can write to; {hint}")


def check_new_file(path: Path, where: str, hint: str = "choose another file") -> None:
    """Raises `InputError` if a file exists already or could not be created in an existing folder."""
    if exists(path, where):
        raise InputError(f"{where} exists; {hint}, or delete it")
    check_folder_of(path, where, hint)


def check_folder_of(path: Path, where: str, hint: str = "choose another file") -> None:
    """Raises `InputError` if a file could not be created or overwritten in an existing folder."""
    found = looked_at(path, where)
    if found is not None and not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"  # a device, a pipe
        raise InputError(f"{where} is {what}; {hint}")
    if not exists(path.absolute().parent, where):
        raise InputError(f"{where}: there is no folder {path.absolute().parent}; make it, or {hint}")
    check_writable(path, where, hint)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _hint(error: OSError) -> str:
    return "ask its owner, or choose another" if isinstance(error, PermissionError) else "choose another"
