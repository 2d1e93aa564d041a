"""Images in class folders: finding, checking and decoding them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from hcpr_tune.errors import InputError
from hcpr_tune.training.data.parts import (
    LEADS_BACK,
    SUFFIXES,
    Entry,
    Identity,
    below,
    class_folders,
    is_hidden,
    is_image_name,
    named,
)
from hcpr_tune.training.data.pixels import Header, Traits, Unreadable, quiet, read_header, read_picture

THREADS = 8
"""Decoding releases the GIL; more threads than cores hide disk latency."""
NOTED = 5
"""Files that a note names before counting the rest."""

T = TypeVar("T")


@dataclass(frozen=True)
class ImageFolder:
    """The images of one part: files and their labels, sorted by class and name; `channels` is 1 only if all are gray.

    `sizes`: height and width of the files; `gray`: how many are gray. `skipped`, `unusual` (how images are handled in a
    way that may not be expected) and `converted` are words for the user.
    """

    files: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    gray: int
    skipped: tuple[str, ...]
    unusual: tuple[str, ...]
    converted: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is told before each training."""
        return (*self.skipped, *self.unusual)

    def decode(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images as uint8, (N, C, H, W), resized where `size` differs from the file's."""
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(self._decode_one, np.asarray(positions).tolist())))

    def _decode_one(self, position: int) -> np.ndarray:
        from PIL import Image

        try:
            pixels = read_picture(self.files[position]).pixels
        except Unreadable as error:
            raise InputError(f"task.dataset: {self.files[position]} can no longer be read: {error}") from None
        if (pixels.ndim == 3 and self.channels == 1) or pixels.shape[:2] != self.sizes[position]:
            raise InputError(f"task.dataset: {self.files[position]} has changed since it was checked; start again")
        if pixels.shape[:2] != self.size:
            height, width = self.size
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        if pixels.ndim == 3:
            return pixels.transpose(2, 0, 1)
        return np.broadcast_to(pixels, (self.channels, *pixels.shape))


def read_folder(root: Path, image_size: int, fence: Collection[Identity] = ()) -> ImageFolder:
    """One part of a folder data set, with every file checked. Raises `InputError` naming all problems."""
    classes, beside = class_folders(root)
    groups, skipped = _find(root, classes, fence)
    files = tuple(path for group in groups for path in group)
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in groups])
    with quiet():
        seen = _look(root, files, _look_at)
    headers = [header for header, _ in seen]
    return ImageFolder(
        files,
        labels,
        tuple(path.name for path in classes),
        _channels(headers),
        _common_size(root, files, headers, image_size),
        tuple(header.size for header in headers),
        sum(header.gray for header in headers),
        (*beside, *skipped),
        tuple(_said(root, files, seen)),
        tuple(_conversions([traits for _, traits in seen])),
    )


def count_images(root: Path, fence: Collection[Identity] = ()) -> tuple[int, ...]:
    """The number of images in each class folder of a part, by their names. Raises `InputError` as `read_folder`."""
    return tuple(map(len, _find(root, class_folders(root)[0], fence)[0]))


def read_headers(
    root: Path, image_size: int, fence: Collection[Identity] = ()
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Channels, height and width of a part's images, and what was skipped in it.

    Raises `InputError` as `read_folder` does. Only file headers are read and no pixel is decoded, so that a test part
    stays unseen.
    """
    classes, beside = class_folders(root)
    groups, skipped = _find(root, classes, fence)
    files = tuple(path for group in groups for path in group)
    with quiet():
        headers = _look(root, files, read_header)
    return (_channels(headers), *_common_size(root, files, headers, image_size)), (*beside, *skipped)


def _channels(headers: Sequence[Header]) -> int:
    return 1 if all(header.gray for header in headers) else 3


def check_classes(part: Path, train: Sequence[str]) -> None:
    """Raise `InputError` unless a part has the class folders of the training part; no file is opened."""
    own = [path.name for path in class_folders(part)[0]]
    missing, more = [name for name in train if name not in own], [name for name in own if name not in train]
    if missing or more:
        words = [f"{words} {named(names)}" for words, names in (("lacks", missing), ("also has", more)) if names]
        raise InputError(
            f"task.dataset: {part} {' and '.join(words)}; it must have the same class folders as the training part: "
            "add or remove them"
        )


def check_shape(part: Path, own: tuple[int, ...], train: tuple[int, ...]) -> None:
    """Raise `InputError` unless images of a part have the shape of those of the training part."""
    if own != train:
        raise InputError(
            f"task.dataset: {part} has {_shape_words(own)}, the training part {_shape_words(train)}; make them the same"
            f"{', or set task.image_size to resize them all' if own[0] == train[0] else ''}"
        )


def _shape_words(shape: tuple[int, ...]) -> str:
    return f"{'gray' if shape[0] == 1 else 'colour'} images of {shape[2]}x{shape[1]}"


def _find(root: Path, classes: Sequence[Path], fence: Collection[Identity]) -> tuple[list[list[Path]], tuple[str, ...]]:
    """The image files of each class, and what was skipped. Raises `InputError` for unreadable files, empty classes."""
    # A link from one class to another is not followed: its images would have two labels.
    found = [list(below(folder, fence)) for folder in classes]
    everything = [entry for group in found for entry in group]
    shut = [entry for entry in everything if entry.trouble and entry.trouble != LEADS_BACK and not _hidden(entry)]
    if shut:
        raise InputError(
            f"task.dataset: {len(shut)} files or folders in {root} cannot be accessed: "
            + named([f"{entry.path.relative_to(root)} ({entry.trouble})" for entry in shut])
            + "; change their permissions, replace or remove them"
        )
    groups = [sorted(entry.path for entry in group if _is_image(entry)) for group in found]
    empty = [
        f"{folder.name} ({len(group)} other files)" if group else folder.name
        for folder, files, group in zip(classes, groups, found, strict=True)
        if not files
    ]
    if empty:
        raise InputError(
            f"task.dataset: {root} has classes without images: {named(empty)}; "
            f"add images ({', '.join(SUFFIXES)}) or remove the folders"
        )
    kinds: dict[tuple[str, str], Callable[[Entry], bool]] = {
        (f"link that was not followed (it {LEADS_BACK})", f"links that were not followed (each {LEADS_BACK})"): (
            lambda entry: bool(entry.trouble) and not _hidden(entry)
        ),
        ("hidden file or folder", "hidden files or folders"): _hidden,
        ("file without an image suffix", "files without an image suffix"): (
            lambda entry: not entry.trouble and not _hidden(entry)
        ),
    }
    others = [entry for entry in everything if not _is_image(entry)]
    notes = [_note(root, *words, [entry.path for entry in others if is_one(entry)]) for words, is_one in kinds.items()]
    return groups, tuple(filter(None, notes))


def _is_image(entry: Entry) -> bool:
    return not entry.trouble and is_image_name(entry.path.name)


def _hidden(entry: Entry) -> bool:
    return is_hidden(entry.path.name)


def _note(root: Path, one: str, many: str, paths: Sequence[Path]) -> str:
    """The number of `paths`, in the words for `one` or for `many`, and the names of the first; empty for none."""
    if not paths:
        return ""
    names = named([str(path.relative_to(root)) for path in paths], NOTED)
    return f"{len(paths):,} {one if len(paths) == 1 else many} in {root}: {names}"


def _look(root: Path, files: tuple[Path, ...], look_at: Callable[[Path], T]) -> list[T]:
    """The result of `look_at` for every file. Raises `InputError` naming all that cannot be read."""

    def one(path: Path) -> T | Unreadable:
        try:
            return look_at(path)
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(pool.map(one, files))
    bad = [
        f"{path.relative_to(root)} ({error})"
        for path, error in zip(files, seen, strict=True)
        if isinstance(error, Unreadable)
    ]
    if bad:
        raise InputError(
            f"task.dataset: {len(bad)} of the {len(files)} images in {root} cannot be read: {named(bad)}; "
            "replace or remove them"
        )
    return [one for one in seen if not isinstance(one, Unreadable)]


def _look_at(path: Path) -> tuple[Header, Traits]:
    """Decode the whole file: a truncated one has a valid header."""
    picture = read_picture(path)
    return picture.header, picture.traits


def _said(root: Path, files: Sequence[Path], seen: Sequence[tuple[Header, Traits]]) -> Iterator[str]:
    """Notes on how unusual images are handled, which the user may not expect."""

    def those(is_one: Callable[[Header, Traits], bool]) -> list[Path]:
        return [path for path, (header, traits) in zip(files, seen, strict=True) if is_one(header, traits)]

    gray = those(lambda header, traits: header.gray)
    notes = (
        (
            "image has transparent parts, which are shown on white,",
            "images have transparent parts, which are shown on white,",
            those(lambda _, traits: traits.transparent),
        ),
        (
            "image has several frames or pages, of which only the first is used,",
            "images have several frames or pages, of which only the first is used,",
            those(lambda _, traits: traits.frames),
        ),
        (
            "dark 16-bit image (65535 is white, and it stays below 4096)",
            "dark 16-bit images (65535 is white, and all stay below 4096)",
            those(lambda _, traits: traits.dark),
        ),
        (
            "image is gray among others in colour, and becomes colour,",
            "images are gray among others in colour, and become colour,",
            gray if len(gray) < len(files) else [],
        ),
    )
    yield from filter(None, (_note(root, one, many, paths) for one, many, paths in notes))


def _conversions(traits: Sequence[Traits]) -> Iterator[str]:
    """What was converted without a doubt, by its number of images."""
    for words, count in Counter(one.converted for one in traits if one.converted).most_common():
        yield f"{count:,} {'image' if count == 1 else 'images'}: {words}"
    if turned := sum(one.turned for one in traits):
        yield f"{turned:,} {'image' if turned == 1 else 'images'}: turned as their EXIF data say"


def _common_size(root: Path, files: tuple[Path, ...], headers: Sequence[Header], image_size: int) -> tuple[int, int]:
    if image_size:
        return image_size, image_size
    sizes = [header.size for header in headers]
    counted = Counter(sizes)
    if len(counted) == 1:
        return sizes[0]
    (most, _), (other, _) = counted.most_common(2)
    one, two = files[sizes.index(most)], files[sizes.index(other)]
    raise InputError(
        f"task.dataset: the images in {root} have {len(counted)} different sizes, "
        f"for instance {most[1]}x{most[0]} ({one.relative_to(root)}) "
        f"and {other[1]}x{other[0]} ({two.relative_to(root)}); set task.image_size to resize them all"
    )
