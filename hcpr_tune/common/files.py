"""Atomic file writes, and reading of text in any encoding that editors save."""

from __future__ import annotations

import codecs
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

from hcpr_tune.errors import InputError

MOST_BYTES = 64 * 2**20
"""Larger files are not text written by a person, but were given by mistake."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose byte order mark is a prefix
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and their encodings."""


def read_text(path: Path, hint: str = "give the path of a text file", named: str = "") -> str:
    """The text of a user's file, with newlines as line ends. Raises `InputError`; `named` is the file in messages.

    Reads UTF-8 with and without byte order mark, and UTF-16 and UTF-32 with one.
    """
    named = named or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: invalid characters in the path
        raise InputError(f"{named} cannot be read: {error}; {hint}") from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{named} cannot be read: it is larger than {MOST_BYTES // 2**20} MiB, the limit for text; {hint}"
        )
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{named} cannot be read: it is not UTF-8 text ({error.reason} at byte {error.start});"
            f" save it as UTF-8, or {hint}"
        ) from None
    if "\0" in text:
        raise InputError(f"{named} cannot be read: it is not text, it has null bytes; save it as UTF-8, or {hint}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_whole(path: Path, text: str) -> None:
    """Write `text` atomically: a reader sees the old file or all of the new one."""
    write_bytes_whole(path, text.encode("utf-8"))


def write_bytes_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file in the same folder, then rename it. Leaves no draft if the disk is full."""
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
    """Write `value` as indented JSON, atomically. Raises `ValueError` for numbers that are not finite."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    temporary = draft_of(target)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str) -> None:
    """`write_whole` for a file that must not exist. Of two concurrent writers, one gets `FileExistsError`."""
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
    """A unique study name with a timestamp. Characters of `stem` that a study's name cannot have are replaced."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:70] or "study"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


DRAFT = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}")
OLD_DRAFT_SECONDS = 24 * 3600.0
"""Another machine's draft is considered abandoned after this time, since writing takes seconds."""


def draft_of(path: Path) -> Path:
    """A temporary name next to `path`, unique across machines and threads, that identifies the writing process."""
    owner = f"{zlib.crc32(machine_id().encode()):08x}-{os.getpid()}"
    # Shortened, so that it is a valid name even if the file's is very long.
    return path.with_name(f".{path.name[:50]}.{owner}-{uuid.uuid4().hex[:12]}")


def sweep(folder: Path) -> list[Path]:
    """Delete drafts (files and folders, at any depth) of processes that died while writing; returns them.

    Skips what cannot be deleted.
    """
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
    """An id of this boot of the machine and this process namespace, in which process numbers are unique."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def process_began(process: int) -> str:
    """The start time of a local process, in clock ticks since boot; empty if it does not exist or is a zombie."""
    try:
        # The process name before it, in brackets, may contain anything.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def node_folder() -> Path:
    """The folder in which this user's processes on a node share data sets."""
    return Path(tempfile.gettempdir()) / f"hcpr_tune-{os.getuid()}"
