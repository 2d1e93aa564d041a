"""Download a data set before training; training itself never downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError

DOWNLOADABLE = ("fashion_mnist", "cifar10", "cifar100", "svhn")


def download(name: str, root: Path, report: Callable[[str], None]) -> None:
    """Download data set `name` to `root` with torchvision and its progress bar; existing files are kept.

    Raises `InputError` for a name that cannot be downloaded, a folder that cannot be written, and a host that cannot be
    reached.
    """
    if name == "digits":
        report("digits are part of scikit-learn: nothing to download")
        return
    if name not in DOWNLOADABLE:
        raise InputError(
            f"data {name} cannot be downloaded; known: digits, {', '.join(DOWNLOADABLE)}; use folder:PATH for a folder"
            " of your own"
        )
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        for part in PARTS[name]:
            READERS[name](torchvision.datasets)(str(root), download=True, **part)
    except OSError as error:
        # urllib's errors are OSErrors too, so this is the folder or the host.
        raise InputError(
            f"data {name}: {error}; check --root {root} and the network, or copy the files there by hand"
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"data {name}: {error}; check the network, delete damaged files under {root}, and run it again"
        ) from None
    report(f"{name} is in {root}; train with task.root = {root}")


BOTH: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
PARTS: dict[str, tuple[dict[str, Any], ...]] = {
    "fashion_mnist": BOTH,
    "cifar10": BOTH,
    "cifar100": BOTH,
    "svhn": ({"split": "train"}, {"split": "test"}),
}
READERS: dict[str, Callable[[Any], Any]] = {
    "fashion_mnist": lambda datasets: datasets.FashionMNIST,
    "cifar10": lambda datasets: datasets.CIFAR10,
    "cifar100": lambda datasets: datasets.CIFAR100,
    "svhn": lambda datasets: datasets.SVHN,
}
