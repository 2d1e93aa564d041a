"""Download a data set before training; training itself never downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hcpr_tune.common.nearest import did_you_mean
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.registry import DATASETS


def download(name: str, root: Path, report: Callable[[str], None]) -> None:
    """Download data set `name` to `root` with torchvision and its progress bar; existing files are kept.

    Raises `InputError` for a name that cannot be downloaded, a folder that cannot be written, and a host that cannot be
    reached.
    """
    if name not in DATASETS:
        raise InputError(
            f"data {name} cannot be downloaded; {did_you_mean(name, DATASETS) or 'known: ' + ', '.join(DATASETS)}; use "
            "folder:PATH for a folder of your own, or package.module:function for a reader"
        )
    fetch = DATASETS[name].download
    if fetch is None:
        report(f"{name} are part of scikit-learn: nothing to download")
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(str(root))
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
