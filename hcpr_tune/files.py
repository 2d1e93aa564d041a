"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or all of the new one."""
    write_bytes_whole(path, text.encode("utf-8"))


def write_bytes_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name in the same folder, then rename it. Nothing is left of it where the disk is full."""
    temporary = _beside(path)
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
    temporary = _beside(target)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A name of its own for each writer: processes of two machines, or threads of one, may write the same file."""
    # Short enough to be a name itself, however long that of the file is.
    return path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:12]}")


def node_folder() -> Path:
    """Where the processes of one node share data sets; of this user alone."""
    return Path(tempfile.gettempdir()) / f"hcpr_tune-{os.getuid()}"
