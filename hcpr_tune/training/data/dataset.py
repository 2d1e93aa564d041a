"""Training and validation splits: fixed, stratified, held on the device as uint8 if small, else decoded on the fly.

The test images are not here: `heldout` opens them, and a search cannot import it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from hcpr_tune.errors import InputError
from hcpr_tune.training.data.augmentation import augment, draw
from hcpr_tune.training.data.node_cache import NodeCache
from hcpr_tune.training.data.parts import below
from hcpr_tune.training.data.sources import Pool, folder_layout, has_test_part, open_pool
from hcpr_tune.training.recipe import Augmentation, Task

RESIDENT_SHARE = 0.25
"""A split is held in memory if its images take at most this fraction of the free memory."""

SHARED_FROM = 32 * 2**20
"""Splits of at least this many bytes are shared by the processes of a node; for smaller ones a copy each is cheaper."""

READING = 2
"""Version of the shared images, part of their name. Raise it whenever the same files are read differently."""

FILES = {
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "train_32x32.mat",
}
"""The file or folder below `task.root` with a data set's training part."""


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    labels: (N,) int64 on the device. indices: (N,) positions in the data set. shape: (C, H, W). images: (N, C, H, W)
    uint8 on the device, or None if they are decoded from `pool` each time.
    """

    pool: Pool
    indices: np.ndarray
    labels: Tensor
    images: Tensor | None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pool.shape

    @property
    def index_hash(self) -> str:
        """A hash of the indices of the images in this split."""
        return hashlib.sha256(np.sort(self.indices).astype("<i8").tobytes()).hexdigest()[:16]

    def stored(self, positions: Tensor) -> Tensor:
        """The images at `positions` (B,) as uint8: on the device if held there, else decoded on the CPU."""
        if self.images is not None:
            return self.images[positions.to(self.images.device)]
        return torch.from_numpy(self.pool.decode(self.indices[positions.cpu().numpy()]))

    def to_unit(self, images: Tensor) -> Tensor:
        """Stored images as float32 in [0, 1] on the device."""
        return images.to(self.labels.device, non_blocking=True).to(torch.float32) / self.pool.white

    def fetch(self, positions: Tensor) -> Tensor:
        """The images at `positions` (B,) as float32 in [0, 1] on the device, (B, C, H, W)."""
        return self.to_unit(self.stored(positions))

    def to(self, device: torch.device) -> Split:
        return replace(
            self, labels=self.labels.to(device), images=None if self.images is None else self.images.to(device)
        )


@dataclass(frozen=True)
class Data:
    """The data that a training may see: training and validation images."""

    train: Split
    validation: Split
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was skipped in a folder, and how unusual images are handled."""

    @property
    def channels(self) -> int:
        return self.train.shape[0]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.train.shape[1:]

    def to(self, device: torch.device) -> Data:
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))


def split_pool(pool: Pool, task: Task, has_test_part: bool) -> dict[str, np.ndarray]:
    """The splits of a pool: sorted positions by split name. A validation part of the data is used as a whole."""
    if pool.own_validation is None:
        return split_indices(pool.labels, task, has_test_part, pool.class_names)
    drawn = split_indices(
        pool.labels[: pool.own_validation], task, has_test_part, pool.class_names, draw_validation=False
    )
    return drawn | {"validation": np.arange(pool.own_validation, len(pool.labels))}


def split_indices(
    labels: np.ndarray,
    task: Task,
    has_test_part: bool,
    class_names: Sequence[str] = (),
    draw_validation: bool = True,
) -> dict[str, np.ndarray]:
    """A stratified split that depends only on the labels and the task: sorted indices by split name.

    "test" is empty if the data have a test part, "validation" without `draw_validation`. Raises `InputError` if a class
    would be missing from a split.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    classes = np.unique(labels)
    for label in classes:
        members = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.PCG64([task.split_seed, int(label)]))
        # Sorting random keys, rather than `permutation`, keeps the split independent of NumPy's shuffling algorithm.
        members = members[np.argsort(generator.random(len(members)), kind="stable")]
        test = 0 if has_test_part else round(task.test_fraction * len(members))
        rest = members[test:]
        if task.images:
            rest = rest[: task.images // len(classes) + (int(label) < task.images % len(classes))]
        validation = round(
            task.validation_fraction * (len(members) if not task.images and not has_test_part else len(rest))
        )
        validation = validation if draw_validation else 0
        if (draw_validation and not validation) or validation >= len(rest) or not (test or has_test_part):
            name = str(int(label))
            if len(class_names) and class_names[int(label)] != name:
                name += f" ({class_names[int(label)]})"
            raise _left_out(task, name, len(members), len(rest), draw_validation, not has_test_part)
        parts["test"].append(members[:test])
        parts["validation"].append(rest[:validation])
        parts["train"].append(rest[validation:])
    return {name: np.sort(np.concatenate(chunks)) for name, chunks in parts.items()}


def _left_out(task: Task, name: str, images: int, usable: int, draws_validation: bool, draws_test: bool) -> InputError:
    """Why a class is missing from a split, with a hint: with fewer images than splits, other fractions do not help."""
    splits = ["training", *(["validation"] if draws_validation else []), *(["test"] if draws_test else [])]
    fractions = [f"task.{split}_fraction = {getattr(task, f'{split}_fraction'):g}" for split in splits[1:]]
    if images < len(splits):
        return InputError(
            f"task.dataset: class {name} has {images} images, and {', '.join(splits)} need one each; "
            "add images to the class, or remove it"
        )
    if task.images and usable < 1 + draws_validation:
        return InputError(
            f"task.images = {task.images} leaves class {name} {usable} images for training"
            f"{' and validation' if draws_validation else ''}; raise it, or set it to 0: all"
        )
    limit = [f"task.images = {task.images}"] if task.images else []
    return InputError(
        f"{' and '.join([*limit, *fractions])} leave class {name} ({images} images) out of a split; "
        "choose fractions that give each split at least one image"
        f"{', or raise task.images' if limit else ''}"
    )


def take(
    pool: Pool,
    indices: np.ndarray,
    cache: NodeCache | None = None,
    identity: str = "",
    shared_from: int = SHARED_FROM,
) -> Split:
    """The split with these `indices`, in memory if small enough; from `shared_from` bytes on, shared through `cache`.

    `identity` identifies the pool's source, as from `source_identity`; it must change with the pool's images.
    """
    labels = torch.from_numpy(pool.labels[indices])
    shape = (len(indices), *pool.shape)
    size = int(np.prod(shape))
    if size > RESIDENT_SHARE * free_memory():
        return Split(pool, indices, labels, None)
    if cache is not None and size >= shared_from:
        key = _shared_name(pool, indices, identity)
        images = cache.array(key, shape, np.uint8, lambda: pool.decode(indices))
    else:
        images = pool.decode(indices)
    # The pool may hold the whole data set as it was read: a second copy that is no longer needed.
    return Split(replace(pool, decode=_let_go), indices, labels, torch.from_numpy(images))


def _let_go(chosen: object) -> NoReturn:
    raise AssertionError("the images of this split are in memory; its pool no longer holds them")


def _shared_name(pool: Pool, indices: np.ndarray, identity: str) -> str:
    """A hash of everything that determines the images at `indices`, in order."""
    found = hashlib.sha256(repr((READING, identity, pool.shape, pool.white, "uint8")).encode())
    for numbers in (indices, pool.labels):
        found.update(numbers.astype("<i8").tobytes())
    return f"images-{found.hexdigest()}"


def source_identity(task: Task) -> str:
    """A hash of the task and of the names, sizes and times of its training files; no file is opened.

    A changed, added or removed file changes it, even if the file's modification time was restored. Raises `OSError` if
    a file cannot be accessed.
    """
    found = hashlib.sha256(repr(sorted(asdict(task).items())).encode())
    for source in _sources(task):
        import PIL

        # A JPEG's pixels depend on the decoder.
        found.update(repr((PIL.__version__, str(source.resolve()))).encode())
        for path in (entry.path for entry in below(source) if not entry.trouble):
            seen = path.stat()
            found.update(repr((str(path), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)).encode())
    return found.hexdigest()


def _sources(task: Task) -> list[Path]:
    """The files and folders of a task's training and validation parts; none for data that come with a package."""
    if task.dataset == "digits":
        return []
    parts = folder_layout(task)
    if parts is None:
        return [Path(task.root).expanduser() / FILES[task.dataset]]
    return [parts.train] if parts.validation is None else [parts.train, parts.validation]


def free_memory() -> int:
    """Free bytes: of the GPU if there is one, else of the host."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_data(task: Task, cache: NodeCache | None = None, shared_from: int = SHARED_FROM) -> Data:
    """The training and validation images of a task. Files of a test part are not opened.

    With a `cache`, in-memory splits of at least `shared_from` bytes are held once per node. It does not change the
    images.
    """
    identity = ""
    try:
        # Before reading: if files change while they are read, new images get an old name, which is never looked up
        # again.
        identity = "" if cache is None else source_identity(task)
    except (OSError, RuntimeError, ValueError, InputError):
        cache = None  # the reader reports what is wrong with the files
    pool = open_pool(task)
    indices = split_pool(pool, task, has_test_part(task))
    train, validation = (take(pool, indices[name], cache, identity, shared_from) for name in ("train", "validation"))
    return Data(train, validation, pool.class_names, pool.notes)


def fixed_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted positions of a fixed subset of `count` images, with counts per class as equal as the data allow."""
    keys = np.random.Generator(np.random.PCG64(seed)).random(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members[np.argsort(keys[members], kind="stable")]] = np.arange(len(members))
    return np.sort(np.lexsort((keys, rank))[:count])


def batches(
    split: Split,
    batch_size: int,
    order: torch.Generator,
    augmentation: Augmentation | None = None,
    drawn: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the split, shuffled by `order` and augmented by `drawn`, CPU generators so that devices agree.

    Yields images in [0, 1] and labels, on the device. A last batch of one image is dropped: batch normalisation cannot
    train on it. Images that are not in memory are decoded one batch ahead.
    """
    shuffled = torch.randperm(len(split), generator=order)
    draws = draw(augmentation, len(split), drawn) if augmentation is not None and drawn is not None else None
    chunks = [chosen for chosen in shuffled.split(batch_size) if len(chosen) > 1]
    for chosen, stored in zip(chunks, _stored_ahead(split, chunks), strict=True):
        images = augment(split.to_unit(stored), draws, chosen)
        yield images, split.labels[chosen.to(split.labels.device)]


def _stored_ahead(split: Split, chunks: list[Tensor]) -> Iterator[Tensor]:
    if split.images is not None:
        yield from map(split.stored, chunks)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(split.stored, chunks[0])
        for following in chunks[1:]:
            ready, ahead = ahead, pool.submit(split.stored, following)
            yield ready.result()
        yield ahead.result()
