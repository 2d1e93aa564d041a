"""Fashion-MNIST, 28x28, averaged to 14x14: 5,000 images to train and validate on, 1,000 to test.

A reader of one's own (docs/images.md), since `task.image_size` is for folders. All arms read the same file.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

FILE = "fashion_14x14.npz"
IMAGES = {"train": 5000, "t10k": 1000}
"""The first ones of each part; the classes come in random order there."""
SIDE, BLOCK = 28, 2
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has the four files."""


def write(root: Path, folder: Path) -> None:
    """Pool the images of the IDX files in `root` (NAME-ubyte, also with .gz) into one file in `folder`, if not there.

    Ends the program if there are none.
    """
    if (folder / FILE).exists():
        return
    arrays = {}
    for part, count in IMAGES.items():
        pixels = _idx(root, f"{part}-images-idx3-ubyte", 16, count * SIDE * SIDE)
        blocks = pixels.reshape(count, SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK)
        arrays[f"{part}_images"] = blocks.mean(axis=(2, 4)).round().astype(np.uint8)
        arrays[f"{part}_labels"] = _idx(root, f"{part}-labels-idx1-ubyte", 8, count)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"new-{FILE}"
    np.savez(new, **arrays)
    new.replace(folder / FILE)


def _idx(root: Path, name: str, header: int, count: int) -> np.ndarray:
    """The first `count` values of an IDX file."""
    for path in (root / f"{name}.gz", root / name):
        if path.exists():
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                return np.frombuffer(file.read(header + count)[header:], dtype=np.uint8)
    raise SystemExit(
        f"--root {root} holds no {name} or {name}.gz; install Debian's dataset-fashion-mnist, or name a folder that"
        " has the four files of Fashion-MNIST"
    )


def load(root: str, train: bool) -> Any:
    """The reader that `benchmarks/fashion.toml` names: images (N, 14, 14) and labels of one part."""
    part = "train" if train else "t10k"
    with np.load(Path(root) / FILE) as file:
        return file[f"{part}_images"], file[f"{part}_labels"].astype(np.int64)
