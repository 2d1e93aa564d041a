"""`hcpr_tune clean`: free the disk that a search holds."""

from __future__ import annotations

import argparse
import time
from typing import Any

from hcpr_tune.cli.arguments import add_study
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say
from hcpr_tune.errors import InputError


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    clean = commands.add_parser(
        "clean",
        description="Delete the checkpoints of a search that is not running. Results and the best model stay; trials "
        "that continue later are trained from the start.",
    )
    add_study(clean)
    clean.add_argument("--keep-best", action="store_true", help="keep the checkpoints of the best trials")
    clean.add_argument("--dry-run", action="store_true", help="only say what it would free")


def run(options: argparse.Namespace) -> int:
    """Delete checkpoints, and say what that freed and what it costs."""
    from hcpr_tune.search.record.results import best_checkpoints, training_name
    from hcpr_tune.search.storage.lease import living_lease_holder
    from hcpr_tune.search.storage.studies import reopen
    from hcpr_tune.verdict.run import verdict_folder
    from hcpr_tune.views.next_commands import about

    folder, study, history = reopen(options.storage, options.name, "clean ")
    holder = living_lease_holder(folder.objects, sure=True)
    if holder is not None:
        raise InputError(
            f"clean {options.name}: {folder.address} is being searched by {holder.words(time.time())}; stop it "
            f"first: {about('stop', folder)}"
        )
    best = best_checkpoints(study, history) if options.keep_best else set()
    kept = {(training_name(history.trials[number], rung, study.restarted), rung) for number, rung in best}
    going = [(folder.checkpoint_store, one) for one in folder.checkpoint_store.listed() if one[:2] not in kept]
    of_verdict = verdict_folder(folder).checkpoint_store
    going += [(of_verdict, one) for one in of_verdict.listed() if not options.keep_best]
    for store, (training, epoch, _) in going if not options.dry_run else ():
        store.drop(training, epoch)
    words = "would free" if options.dry_run else "freed"
    say(
        f"{words} {sum(size for _, (*_, size) in going) / 1e6:.1f} MB, {len(going)} checkpoints of {folder.address}; "
        "results, best model and verdict stay,"
        f" and promoted trials are trained anew by: {about('tune --resume', folder)}"
    )
    return COMPLETED
