"""The checkpoints of a study, in a folder or in a bucket: written and resumed by workers, managed by the driver.

A training uses a local folder. If the study is in a bucket, that is a scratch folder: the latest checkpoint is
downloaded into it, and each new one is uploaded, its manifest last, before it is reported.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hcpr_tune.common.buckets.location import is_bucket
from hcpr_tune.common.files import copy_whole
from hcpr_tune.search.storage.object_store import FolderObjectStore
from hcpr_tune.training import manifest

if TYPE_CHECKING:
    from hcpr_tune.common.buckets.bucket import Bucket

WEIGHTS, EXAMPLES = "model.safetensors", "examples.png"
TRAINING = re.compile(r"trial_\d+(_to_\d+)?|model_[0-9a-f]+")
"""A trial of a search, or a model of a verdict."""
EPOCH = re.compile(r"epoch_(\d+)")


class CheckpointStore(Protocol):
    """All checkpoints of a study, by the name of the training (trial_0007) and the epoch."""

    @property
    def address(self) -> str:
        """The folder or URL of the store, for `store_at`."""

    def where(self, training: str) -> str:
        """The folder or URL of a training's checkpoints, for `workspace`."""

    def listed(self) -> list[tuple[str, int, int]]:
        """Training, epoch and bytes of every checkpoint. Workers may write and delete at the same time."""

    def drop(self, training: str, epoch: int) -> None: ...

    def copy_weights(self, training: str, epoch: int, target: Path) -> str:
        """Copy a rung's weights to `target` atomically. Returns what is wrong with them, empty on success."""

    def read(self, training: str, epoch: int, name: str) -> bytes | None:
        """A small file of a checkpoint, None if there is none. Raises `StorageError`."""


@dataclass(frozen=True)
class FolderStore:
    root: Path

    @property
    def address(self) -> str:
        return str(self.root.absolute())

    def where(self, training: str) -> str:
        return str((self.root / training).absolute())

    def listed(self) -> list[tuple[str, int, int]]:
        found = []
        for training in _inside(self.root):
            for path in _inside(training) if TRAINING.fullmatch(training.name) else ():
                if epoch := EPOCH.fullmatch(path.name):
                    found.append((training.name, int(epoch[1]), sum(map(_size, _inside(path)))))
        return found

    def drop(self, training: str, epoch: int) -> None:
        shutil.rmtree(self.root / training / f"epoch_{epoch:04d}", ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.root / training).rmdir()

    def copy_weights(self, training: str, epoch: int, target: Path) -> str:
        return _copy_weights(self.root / training / f"epoch_{epoch:04d}", target)

    def read(self, training: str, epoch: int, name: str) -> bytes | None:
        return FolderObjectStore(self.root).read(f"{training}/epoch_{epoch:04d}/{name}")


def _inside(folder: Path) -> list[Path]:
    """The content of a folder; empty if it was just deleted."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@dataclass(frozen=True)
class BucketStore:
    bucket: Bucket

    @property
    def address(self) -> str:
        return self.bucket.url

    def where(self, training: str) -> str:
        return self.bucket.child(training).url

    def listed(self) -> list[tuple[str, int, int]]:
        sizes: dict[tuple[str, int], int] = {}
        for key, size in self.bucket.sizes().items():
            training, _, rest = key.partition("/")
            if TRAINING.fullmatch(training) and (epoch := EPOCH.fullmatch(rest.partition("/")[0])):
                one = training, int(epoch[1])
                sizes[one] = sizes.get(one, 0) + size
        return [(training, epoch, size) for (training, epoch), size in sizes.items()]

    def drop(self, training: str, epoch: int) -> None:
        drop_objects(self.bucket.child(training), epoch)

    def copy_weights(self, training: str, epoch: int, target: Path) -> str:
        there = self.bucket.child(f"{training}/epoch_{epoch:04d}")
        with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as scratch:
            for name in {manifest.NAME, WEIGHTS} & set(there.keys()):
                there.download(name, Path(scratch) / name)
            return _copy_weights(Path(scratch), target)

    def read(self, training: str, epoch: int, name: str) -> bytes | None:
        return self.bucket.read(f"{training}/epoch_{epoch:04d}/{name}")


def _copy_weights(checkpoint: Path, target: Path) -> str:
    wrong = manifest.damage(checkpoint, WEIGHTS)
    if not wrong:
        copy_whole(checkpoint / WEIGHTS, target)
    return wrong


class Workspace(Protocol):
    """The checkpoint folder of a training. Each method raises `StorageError`."""

    @property
    def folder(self) -> Path: ...

    def fetch(self, latest: int) -> list[str]:
        """Bring the latest intact checkpoint up to epoch `latest` into `folder`; returns what was lost."""

    def push(self) -> None:
        """Upload new checkpoints in `folder`, and delete those that are gone from it."""


@dataclass(frozen=True)
class Here:
    """A workspace that is the study's own folder."""

    folder: Path

    def fetch(self, latest: int) -> list[str]:
        return []

    def push(self) -> None:
        pass


class Scratch:
    """A local folder whose checkpoints are kept in a bucket."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder = folder
        self._bucket = bucket
        self._there: set[int] = set()

    def fetch(self, latest: int) -> list[str]:
        losses: list[str] = []
        names: dict[int, list[str]] = {}
        for key in self._bucket.keys(""):
            place, _, name = key.partition("/")
            if found := EPOCH.fullmatch(place):
                names.setdefault(int(found[1]), []).append(name)
        for epoch in sorted(names, reverse=True):
            # Without a manifest the upload was not finished, and the checkpoint never reported.
            if epoch > latest or manifest.NAME not in names[epoch]:
                continue
            folder = self.folder / f"epoch_{epoch:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            for name in names[epoch]:
                self._bucket.download(f"{folder.name}/{name}", folder / name)
            wrong = manifest.damage(folder)
            if not wrong:
                self._there.add(epoch)
                break
            losses.append(
                f"the checkpoint {self._bucket.child(folder.name).url} was damaged ({wrong});"
                " the training continues from an earlier one"
            )
            shutil.rmtree(folder)
            drop_objects(self._bucket, epoch)
        return losses

    def push(self) -> None:
        here = {int(path.name[6:]) for path in self.folder.glob("epoch_*")}
        for epoch in sorted(here - self._there):
            folder = self.folder / f"epoch_{epoch:04d}"
            for path in sorted(folder.iterdir(), key=lambda path: path.name == manifest.NAME):
                self._bucket.upload(path, f"{folder.name}/{path.name}")
        for epoch in sorted(self._there - here):
            drop_objects(self._bucket, epoch)
        self._there = here


def store_at(where: str) -> CheckpointStore:
    """The store in a folder or at the URL of a bucket."""
    from hcpr_tune.common.buckets.bucket import Bucket

    return BucketStore(Bucket(where)) if is_bucket(where) else FolderStore(Path(where))


def drop_objects(bucket: Bucket, epoch: int) -> None:
    """Delete a training's checkpoint, its manifest first, since a checkpoint without manifest does not count."""
    bucket.delete(f"epoch_{epoch:04d}/{manifest.NAME}")
    bucket.delete_tree(f"epoch_{epoch:04d}")


@contextmanager
def workspace(where: str) -> Iterator[Workspace]:
    """The workspace for a folder or the URL of a bucket."""
    from hcpr_tune.common.buckets.bucket import Bucket

    if not is_bucket(where):
        yield Here(Path(where))
        return
    with tempfile.TemporaryDirectory(prefix="hcpr_tune_") as folder:
        yield Scratch(Path(folder), Bucket(where))
