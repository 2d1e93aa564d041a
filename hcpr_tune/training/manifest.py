"""The manifest of a folder: size and SHA-256 of each file, to detect truncated or altered files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def write(folder: Path) -> None:
    """Write the manifest of what is in `folder`."""
    files = {path.name: _seal(path) for path in sorted(folder.iterdir())}
    (folder / NAME).write_text(json.dumps(files), encoding="utf-8")


def damage(folder: Path, only: str = "") -> str:
    """What is wrong with a folder's files, or with the one named `only`; empty if they match the manifest."""
    try:
        files: dict[str, dict[str, Any]] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        for name, seal in files.items():
            if only in ("", name) and (found := _seal(folder / name)) != seal:
                return f"{name} is cut off" if found["bytes"] < seal["bytes"] else f"{name} was altered"
        if only and only not in files:
            return f"{only} is missing"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, TypeError, AttributeError, KeyError):
        return f"{NAME} was altered"
    return ""


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
