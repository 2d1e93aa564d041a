"""Where a study's small files lie, by key: in a folder, or in a bucket."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.errors import StorageError


class ObjectStore(Protocol):
    """Files that are read and replaced whole. Each method raises `StorageError`. `hcpr_tune.common.bucket.Bucket` is one too."""

    def read(self, key: str) -> bytes | None:
        """The file's content, None where there is none."""

    def write(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None:
        """Delete the file; one that is not there is fine."""

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix/`, all for none, sorted."""


@dataclass(frozen=True)
class FolderObjectStore:
    """A place on a disk of this machine, or on one that several share."""

    root: Path

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(f"{self.root / key} cannot be read", error) from error

    def write(self, key: str, data: bytes) -> None:
        try:
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_whole(self.root / key, data)
        except OSError as error:
            raise storage_error(f"{self.root / key} cannot be written", error) from error

    def delete(self, key: str) -> None:
        try:
            (self.root / key).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(f"{self.root / key} cannot be deleted", error) from error

    def keys(self, prefix: str = "") -> list[str]:
        found = (path for path in (self.root / prefix).rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.root).as_posix() for path in found)


def storage_error(what: str, error: OSError) -> StorageError:
    """The error for a disk that does not do what it should, with the way out."""
    reason = error.strerror or str(error)
    hint = "make space there" if is_full(error) else "mend that"
    return StorageError(f"{what}: {reason}; {hint}, then go on by --resume")


def is_full(error: OSError) -> bool:
    """No space left, or no quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
