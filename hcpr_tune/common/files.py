"""Files written whole or not at all, and text read whatever program has saved it."""

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
"""No text that a person writes is larger; what is, was named by mistake."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What editors on some systems put in front of a text, and the encoding that it tells of."""


def read_text(path: Path, hint: str = "give the path of a text file", named: str = "") -> str:
    """The text of a file that a person may have written, with plain line ends. Raises `InputError`, which says `named` for the path.

    UTF-8 with and without a mark in front, and UTF-16 and UTF-32 with one, as editors save them.
    """
    named = named or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a path may hold what no path can
        raise InputError(f"{named} cannot be read: {error}; {hint}") from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{named} cannot be read: it is larger than the {MOST_BYTES // 2**20} MiB that are read of a text; {hint}"
        )
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{named} cannot be read: it is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8, or {hint}"
        ) from None
    if "\0" in text:
        raise InputError(f"{named} cannot be read: it is no text, a byte of it is 0; save it as UTF-8, or {hint}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
    """A name that tells when, and that no other process makes in the same second. Of the stem is kept what a study's name may hold."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:70] or "study"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


DRAFT = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}")
OLD_DRAFT_SECONDS = 24 * 3600.0
"""A draft of a machine that cannot be asked whether its process lives is left over then: writing takes seconds."""


def draft_of(path: Path) -> Path:
    """A name of its own for each writer: processes of two machines, or threads of one, may write the same file. It tells whose draft it is."""
    owner = f"{zlib.crc32(machine_id().encode()):08x}-{os.getpid()}"
    # Short enough to be a name itself, however long that of the file is.
    return path.with_name(f".{path.name[:50]}.{owner}-{uuid.uuid4().hex[:12]}")


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
