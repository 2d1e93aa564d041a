"""`hcpr_tune report`: one HTML file about a search."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.commands.console import COMPLETED, typed


def run(options: argparse.Namespace) -> int:
    """Write the report of a search, running or not, and say where it is."""
    from hcpr_tune.errors import InputError
    from hcpr_tune.search.holder import living_holder
    from hcpr_tune.search.studies import reopen
    from hcpr_tune.views.report import write_report

    folder, study, history = reopen(options.storage, options.name, "report ")
    running = living_holder(folder.place) is not None
    target = None if options.out is None else Path(options.out)
    try:
        path = write_report(folder, study, history, running, typed("hcpr_tune"), target)
    except OSError as error:
        where = f"--out {target}" if target is not None else f"report.html in {folder.root}"
        raise InputError(f"{where} cannot be written: {error.strerror or error}; choose another --out FILE") from None
    print(f"report       {path}")
    if folder.bucket is not None and target is None and not running:
        folder.bucket.upload(path, path.name)
    return COMPLETED
