"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write `text` to a temporary name in the same folder, then rename it, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole. Numbers that are not finite are refused: they are no JSON."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is either the old or the new one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
