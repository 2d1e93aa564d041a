"""`hcpr_tune data`: download a dataset before a training needs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import outlets


@outlets(forgiving=True)
def run(options: argparse.Namespace) -> int:
    from hcpr_tune.api.downloads import download

    download(options.name, Path(options.root), print)
    return COMPLETED
