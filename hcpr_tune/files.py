"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or all of the new one."""
    write_bytes_whole(path, text.encode("utf-8"))


def write_bytes_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name in the same folder, then rename it. Nothing is left of it where the disk is full."""
    temporary = draft_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole. Numbers that are not finite are refused: they are no JSON."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is either the old or the new one."""
    temporary = draft_of(target)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str) -> None:
    """`write_whole` for a file that must not be there yet. Raises `FileExistsError`: of two that write it at once one is first."""
    temporary = draft_of(path)
    try:
        write_whole(temporary, text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError(f"{path} exists") from None
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_name(stem: str) -> str:
    """A name that tells when, and that no other process makes in the same second."""
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


DRAFT = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}")
OLD_DRAFT_SECONDS = 24 * 3600.0
"""A draft of a machine that cannot be asked whether its process lives is left over then: writing takes seconds."""


def draft_of(path: Path) -> Path:
    """A name of its own for each writer: processes of two machines, or threads of one, may write the same file. It tells whose draft it is."""
    owner = f"{zlib.crc32(machine_id().encode()):08x}-{os.getpid()}"
    return path.with_name(f".{path.name}.{owner}-{uuid.uuid4().hex[:12]}")


def sweep(folder: Path) -> list[Path]:
    """Delete the drafts, files and folders, of processes that died while they wrote, at any depth; returns them. What cannot be deleted stays."""
    swept = []
    for path in list(_drafts(folder)):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            swept.append(path)
    return swept


def _drafts(folder: Path) -> Iterator[Path]:
    here, now = f"{zlib.crc32(machine_id().encode()):08x}", time.time()
    for root, folders, names in os.walk(folder):
        for name in folders + names:
            found = DRAFT.fullmatch(name)
            if found is None:
                continue
            path = Path(root) / name
            with suppress(OSError):
                dead = found[1] == here and not process_began(int(found[2]))
                if dead or now - path.stat().st_mtime > OLD_DRAFT_SECONDS:
                    yield path


def machine_id() -> str:
    """This machine since it was started, and this namespace of processes: where a process's number means the same."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def process_began(process: int) -> str:
    """When a process of this machine began, in its own clock; empty where there is none, or where it is dead and only not yet waited for."""
    try:
        # The name before it, in brackets, may hold anything.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def node_folder() -> Path:
    """Where the processes of one node share data sets; of this user alone."""
    return Path(tempfile.gettempdir()) / f"hcpr_tune-{os.getuid()}"
