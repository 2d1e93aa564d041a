"""`hcpr_tune report`: one HTML file about a search."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.common.paths import check_folder_of, there
from hcpr_tune.common.shell import typed

if TYPE_CHECKING:
    from hcpr_tune.search.record.results import StoredStudy


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    report = commands.add_parser(
        "report",
        description="Write one self-contained HTML page about a search, running or not: the answer, the pictures, "
        "the costs, how to reproduce it.",
    )
    add_study(report)
    report.add_argument("--out", metavar="FILE", help="where it goes (default: report.html in the study's folder)")


def run(options: argparse.Namespace) -> int:
    """Write the report of a search, running or not, and say where it is."""
    from hcpr_tune.errors import InputError
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.views.report.report import write_report
    from hcpr_tune.views.wording import printable

    stored = reopen(options.storage, options.name, "report ", with_best=True)
    folder = stored.folder
    bring_picture(stored)
    running = living_lease_holder(folder.objects) is not None
    target = None if options.out is None else Path(options.out)
    if target is not None:
        check_folder_of(target, f"--out {target}")
        if target.suffix.lower() not in (".html", ".htm"):
            raise InputError(
                f"--out {target} must end in .html, so that nothing else is written over; choose another file"
            )
        target = target.resolve() if target.is_symlink() else target  # a link stays one
    try:
        path = write_report(stored, running, typed("hcpr_tune"), target)
    except OSError as error:
        where = f"--out {target}" if target is not None else f"report.html in {folder.root}"
        raise InputError(f"{where} cannot be written: {error.strerror or error}; choose another --out FILE") from None
    say(printable(f"report       {path}"))
    return COMPLETED


def bring_picture(stored: StoredStudy) -> None:
    """The best trial's picture of attacked images, where the study lies in a bucket and was searched from elsewhere."""
    folder, study, history = stored
    from hcpr_tune.views.tensorboard.trial_pictures import TrialPictures, examples_key

    best = history.best_trial
    if folder.bucket is not None and best is not None:
        key = examples_key(best.number, best.best_rung)
        if not there(folder.root / key):
            TrialPictures(folder, study).bring(best, best.best_rung, {key})
