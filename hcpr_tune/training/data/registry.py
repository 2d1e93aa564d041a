"""The data sets: what is known of each before it is read, and how it is read. A user's own is the same object.

Neither torch nor torchvision nor NumPy is imported before a data set is read, so that its name can be checked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.training.plugins import accepted

FOLDER = "folder:"
"""Begins the name of a folder of images, which describes itself (see `data.parts`)."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set of labelled images.

    `read` returns one part of it: `(images, labels)`, `(images, labels, class_names)` or a map-style torch data set of
    `(image, label)`. It is called with those of `root` (task.root), `train` (a bool) and `split` ("train" or "test")
    that it takes, as torchvision's data sets do; with train=False or split="test" only when the test images are opened.
    If it takes neither of the two, the test images are drawn from what it returns. `data.pool` says which shapes and
    types images and labels have, and checks them.
    """

    read: Callable[..., Any]
    shape: tuple[int, int, int] | None = None
    """Channels, height and width; None: known only once the images are read."""
    classes: int = 0
    """Number of classes; 0: known only once the images are read."""
    images: tuple[int, int] = (0, 0)
    """Number of images in the training and in the test part; 0: not known before, or no such part."""
    white: int = 255
    """The stored value that becomes 1.0."""
    files: str = ""
    """The file or folder below task.root with the training part. Processes on a node know by it that they read the same
    images; without it, they compare the images themselves."""
    download: Callable[[str], None] | None = None
    """Fetches all parts to a folder; None: nothing can be fetched."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that there are: without `train` or `split`, `read` cannot be asked for a test part."""
        return ("train", "test") if accepted(self.read, {"train": True, "split": "train"}) else ("train",)


def arguments(read: Callable[..., Any], root: str, train: bool) -> dict[str, Any]:
    """The arguments that a reader takes, of those that there are."""
    return accepted(read, {"root": root, "train": train, "split": "train" if train else "test"})


def _digits() -> Any:
    """scikit-learn's 1,797 real 8x8 gray images of digits."""
    import numpy as np

    # The file alone: scikit-learn's import takes longer than all else of a short training's start.
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise InputError("the digits are a file of scikit-learn, which is not installed; run: pip install scikit-learn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1], [str(n) for n in range(10)]


def _torchvision(name: str, root: str, train: bool) -> Any:
    """One part of a data set of torchvision, from its files in `root`: the arrays that it holds, not image by image."""
    data = _open_torchvision(name, root, train)
    images, labels = data.data, data.labels if name == "SVHN" else data.targets
    # SVHN holds (N, C, H, W).
    return images.transpose(0, 2, 3, 1) if name == "SVHN" else images, labels, getattr(data, "classes", None)


def _fetch_torchvision(name: str, root: str) -> None:
    for train in (True, False):
        _open_torchvision(name, root, train, download=True)


def _open_torchvision(name: str, root: str, train: bool, download: bool = False) -> Any:
    import torchvision

    reader = getattr(torchvision.datasets, name)
    return reader(download=download, **arguments(reader, root, train))


def _of_torchvision(name: str, files: str, **known: Any) -> DatasetSpec:
    return DatasetSpec(partial(_torchvision, name), files=files, download=partial(_fetch_torchvision, name), **known)


GRAY, COLOUR = (1, 28, 28), (3, 32, 32)
CIFAR = (50_000, 10_000)

DATASETS = {
    "digits": DatasetSpec(_digits, shape=(1, 8, 8), classes=10, images=(1797, 0), white=16),
    "fashion_mnist": _of_torchvision(
        "FashionMNIST", "FashionMNIST/raw", shape=GRAY, classes=10, images=(60_000, 10_000)
    ),
    "cifar10": _of_torchvision("CIFAR10", "cifar-10-batches-py", shape=COLOUR, classes=10, images=CIFAR),
    "cifar100": _of_torchvision("CIFAR100", "cifar-100-python", shape=COLOUR, classes=100, images=CIFAR),
    "svhn": _of_torchvision("SVHN", "train_32x32.mat", shape=COLOUR, classes=10, images=(73_257, 26_032)),
}
"""The data sets by name."""


def is_own(dataset: str) -> bool:
    """Whether a data set is read by a user's code."""
    return dataset not in DATASETS and not dataset.startswith(FOLDER)
