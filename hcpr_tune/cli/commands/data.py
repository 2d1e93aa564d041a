"""`hcpr_tune data`: download a dataset before a training needs it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hcpr_tune.cli.completers import completed
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import outlets
from hcpr_tune.training.data.registry import DATASETS


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    data = commands.add_parser("data", description="Download a dataset before a training needs it.")
    names = [name for name, spec in DATASETS.items() if spec.download is not None]
    action = data.add_argument("name", metavar="NAME", help=f"one of {', '.join(names)}")
    completed(action, lambda prefix, **_: [name for name in names if name.startswith(prefix)])
    data.add_argument("--root", default="data", metavar="DIR", help="where it goes (task.root; default: data)")


@outlets(forgiving=True)
def run(options: argparse.Namespace) -> int:
    from hcpr_tune.api.datasets.downloads import download

    download(options.name, Path(options.root), print)
    return COMPLETED
