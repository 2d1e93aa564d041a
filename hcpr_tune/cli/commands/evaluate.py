"""`hcpr_tune evaluate`: attack a trained model."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

from hcpr_tune.api.trust import trust_model
from hcpr_tune.cli.console import COMPLETED, make_console
from hcpr_tune.common.output import say
from hcpr_tune.common.shell import same_again
from hcpr_tune.common.text import clean

MOST_PAIRS_SHOWN = 5


def run(options: argparse.Namespace) -> int:
    """Attack the model and print what survives, and which classes the attack leads to."""
    from hcpr_tune.api.evaluate import check_model, judge
    from hcpr_tune.training.plugins import guarded
    from hcpr_tune.verdict.test_access import opened

    folder = Path(options.model)
    check_model(folder)
    trust_model(options, folder)
    with opened(folder, same_again()) if options.split == "test" else nullcontext() as seen:
        with guarded():  # the model may be anybody's
            found = judge(folder, options.attack, options.split, options.images)
        if seen is not None:
            seen({f"{folder.name}, {found.attack}": found.robust.share})
    if options.json:
        say(json.dumps(found.to_plain()))
        return COMPLETED
    console = make_console()
    lines = [
        f"{found.attack} on {found.robust.total} {found.split} images",
        f"robust accuracy  {found.robust}",
        f"clean accuracy   {found.clean}",
    ]
    for pair in found.pairs[:MOST_PAIRS_SHOWN]:
        lines.append(
            f"hard pair        {pair.true} taken for {pair.other}: {pair.images.count} of {pair.images.total} "
            f"images, {pair.images}"
        )
    lines += [f"WARNING          {warning}" for warning in found.warnings]
    for line in lines:
        console.print(clean(line), markup=False)
    return COMPLETED
