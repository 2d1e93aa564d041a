"""Training and validation images: held on the device as uint8 if small, else decoded on the fly; batches of them.

The test images are not here: `heldout` opens them, and a search cannot import it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
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
from hcpr_tune.training.data.pool import Pool
from hcpr_tune.training.data.registry import DATASETS, is_own
from hcpr_tune.training.data.sources import folder_layout, has_test_part, open_pool
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.recipe import Augmentation, Task

CPU = torch.device("cpu")
RESIDENT_SHARE = 0.25
"""A split is held in memory if its images take at most this fraction of the free memory."""

SHARED_FROM = 32 * 2**20
"""Splits of at least this many bytes are shared by the processes of a node; for smaller ones a copy each is cheaper."""

READING = 2
"""Version of the shared images, part of their name. Raise it whenever the same files are read differently."""


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
        device = self.labels.device
        # By a tensor: by a number, a GPU would multiply with the rounded reciprocal, and differ from a CPU.
        white = torch.full((), self.pool.white, dtype=torch.float32, device=device)
        return images.to(device, non_blocking=True).to(torch.float32) / white

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


def take(
    pool: Pool,
    indices: np.ndarray,
    cache: NodeCache | None = None,
    identity: str = "",
    shared_from: int = SHARED_FROM,
    device: torch.device = CPU,
) -> Split:
    """The split with these `indices` on `device`, with its images if they are small enough for its memory.

    From `shared_from` bytes on, images in the host's memory are shared through `cache`.

    `identity` identifies the pool's source, as from `source_identity`; it must change with the pool's images. If it is
    empty, the images themselves identify it, so that each process has to decode them.
    """
    labels = torch.from_numpy(pool.labels[indices])
    shape = (len(indices), *pool.shape)
    size = int(np.prod(shape))
    if size > RESIDENT_SHARE * free_memory(device):
        return Split(pool, indices, labels, None).to(device)
    if cache is None or size < shared_from:
        images = pool.decode(indices)
    elif identity:
        images = cache.array(_shared_name(pool, indices, identity), shape, np.uint8, lambda: pool.decode(indices))
    else:
        decoded = pool.decode(indices)
        content = hashlib.sha256(np.ascontiguousarray(decoded).data).hexdigest()
        images = cache.array(_shared_name(pool, indices, content), shape, np.uint8, lambda: decoded)
    # The pool may hold the whole data set as it was read: a second copy that is no longer needed.
    return Split(replace(pool, decode=_let_go), indices, labels, torch.from_numpy(images)).to(device)


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

    A changed, added or removed file changes it, even if the file's modification time was restored. Empty for data that
    a user's code reads: their files are not known. Raises `OSError` if a file cannot be accessed.
    """
    if is_own(task.dataset):
        return ""
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
    parts = folder_layout(task)
    if parts is None:
        files = DATASETS[task.dataset].files
        return [Path(task.root).expanduser() / files] if files else []
    return [parts.train] if parts.validation is None else [parts.train, parts.validation]


def free_memory(device: torch.device = CPU) -> int:
    """Free bytes of the host and, if the device is a GPU, of that: of both the smaller number.

    Asking a GPU starts a context on it, which takes half a gigabyte there.
    """
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type != "cuda":
        return host
    free, total = torch.cuda.mem_get_info(device)
    # A process that shares the GPU is capped (see `gpu_memory.cap`).
    own = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_reserved(device)
    return max(0, min(host, free, int(own)))


def load_data(
    task: Task, cache: NodeCache | None = None, shared_from: int = SHARED_FROM, device: torch.device = CPU
) -> Data:
    """The training and validation images of a task, on `device`. Files of a test part are not opened.

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
    train, validation = (
        take(pool, indices[name], cache, identity, shared_from, device) for name in ("train", "validation")
    )
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
    device = split.labels.device
    shuffled = torch.randperm(len(split), generator=order)
    draws = draw(augmentation, len(split), drawn) if augmentation is not None and drawn is not None else None
    # Once for the epoch: for each copy from the host, the device's queue would run dry.
    draws, on_device = None if draws is None else draws.to(device), shuffled.to(device)
    chunks = [chosen for chosen in shuffled.split(batch_size) if len(chosen) > 1]
    stored = map(split.stored, on_device.split(batch_size)) if split.images is not None else _decoded(split, chunks)
    for chosen, images in zip(on_device.split(batch_size)[: len(chunks)], stored, strict=False):
        yield augment(split.to_unit(images), draws, chosen), split.labels[chosen]


def _decoded(split: Split, chunks: list[Tensor]) -> Iterator[Tensor]:
    """The images of each chunk, decoded one batch ahead; in pinned memory, where a GPU fetches them without waiting."""
    pinned = split.labels.device.type == "cuda"

    def decode(chosen: Tensor) -> Tensor:
        images = split.stored(chosen)
        return images.pin_memory() if pinned else images

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(decode, chunks[0])
        for following in chunks[1:]:
            ready, ahead = ahead, pool.submit(decode, following)
            yield ready.result()
        yield ahead.result()
