"""Storage of a study's small files by key, in a folder or in a bucket."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hcpr_tune.common.files import write_bytes_whole
from hcpr_tune.errors import StorageError


class ObjectStore(Protocol):
    """Files that are read and replaced as a whole, such as `hcpr_tune.common.buckets.bucket.Bucket`.

    Each method raises `StorageError`.
    """

    def read(self, key: str) -> bytes | None:
        """The file's content, None if there is none."""

    def write(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None:
        """Delete the file if it exists."""

    def keys(self, prefix: str = "") -> list[str]:
        """The sorted keys that begin with `prefix/`; all keys without a prefix."""


@dataclass(frozen=True)
class FolderObjectStore:
    """A folder on a local or shared disk."""

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
    """The error for a failed disk operation, with a hint."""
    reason = error.strerror or str(error)
    hint = "make space there" if is_full(error) else "fix that"
    return StorageError(f"{what}: {reason}; {hint}, then continue with --resume")


def is_full(error: OSError) -> bool:
    """Whether the disk is full or the quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
