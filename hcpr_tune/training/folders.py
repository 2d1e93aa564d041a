"""Images in class folders: found, checked all at once, and decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcpr_tune.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
MOST_NAMED = 20
THREADS = 8
"""Decoding releases Python's lock; more threads than cores hide the disk."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of one part: files and labels side by side, sorted by class and name; `channels` is 1 only if all are gray."""

    files: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]

    def decode(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images as uint8, (N, C, H, W), resized where `size` differs from the file's."""
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(self._decode_one, np.asarray(positions).tolist())))

    def _decode_one(self, position: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.files[position]) as image:
            converted = image.convert("L" if self.channels == 1 else "RGB")
            if converted.size != (self.size[1], self.size[0]):
                converted = converted.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


def has_parts(root: Path) -> bool:
    """Whether the folder has train/ and test/ subfolders of its own."""
    return (root / "train").is_dir() and (root / "test").is_dir()


def read_folder(root: Path, image_size: int) -> ImageFolder:
    """One part of a folder data set, every file looked at. Raises `InputError` that names all that is wrong."""
    if not root.is_dir():
        raise InputError(
            f"task.dataset: there is no folder {root}; give folder:PATH with one subfolder of images per class"
        )
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise InputError(
            f"task.dataset: {root} must have at least 2 subfolders, one per class, got {len(classes)}; sort the images into them"
        )
    found = [sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES) for name in classes]
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    if empty:
        raise InputError(
            f"task.dataset: {root} has classes without images: {_name(empty)}; add images ({', '.join(SUFFIXES)}) or remove the folders"
        )
    files = tuple(path for group in found for path in group)
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in found])
    modes, sizes = _look(root, files)
    channels = 1 if all(mode in ("1", "L", "I;16", "LA") for mode in modes) else 3
    return ImageFolder(files, labels, tuple(classes), channels, _common_size(root, files, sizes, image_size))


def _look(root: Path, files: tuple[Path, ...]) -> tuple[list[str], list[tuple[int, int]]]:
    """Mode and size (height, width) of every file; all that cannot be read are named together."""
    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(pool.map(_look_at, files))
    bad = [f"{path.relative_to(root)} ({one})" for path, one in zip(files, seen, strict=True) if isinstance(one, str)]
    if bad:
        raise InputError(
            f"task.dataset: {len(bad)} of the {len(files)} images in {root} cannot be read: {_name(bad)}; replace or remove them"
        )
    good = [one for one in seen if not isinstance(one, str)]
    return [mode for mode, _ in good], [size for _, size in good]


def sizes_of(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Height and width of images that can be read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [one[1] for one in pool.map(_look_at, files) if not isinstance(one, str)]


def _look_at(path: Path) -> tuple[str, tuple[int, int]] | str:
    """Mode and size of one image, or why it cannot be read. The whole file is decoded: a truncated one has a good header."""
    from PIL import Image

    if path.stat().st_size == 0:
        return "empty file"
    try:
        with Image.open(path) as image:
            image.load()
            return image.mode, (image.height, image.width)
    except Exception as error:
        return f"{type(error).__name__}"


def _common_size(root: Path, files: tuple[Path, ...], sizes: list[tuple[int, int]], image_size: int) -> tuple[int, int]:
    if image_size:
        return image_size, image_size
    counted = Counter(sizes)
    if len(counted) == 1:
        return sizes[0]
    (most, _), (other, _) = counted.most_common(2)
    one, two = files[sizes.index(most)], files[sizes.index(other)]
    raise InputError(
        f"task.dataset: the images in {root} have {len(counted)} different sizes, for instance {most[1]}x{most[0]} ({one.relative_to(root)})"
        f" and {other[1]}x{other[0]} ({two.relative_to(root)}); set task.image_size to resize them all"
    )


def _name(things: list[str]) -> str:
    """The things by name, up to a number, then a count."""
    more = len(things) - MOST_NAMED
    return ", ".join(things[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
