"""`hcpr_tune evaluate`: attack a trained model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hcpr_tune.cli.arguments import add_named, add_storage, add_trust, whole_number
from hcpr_tune.cli.completers import studies
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.cli.options import trust_of
from hcpr_tune.common.output import say
from hcpr_tune.common.shell import same_again
from hcpr_tune.common.text import clean
from hcpr_tune.views.terminal.console import make_console

MOST_PAIRS_SHOWN = 5


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    evaluate = commands.add_parser("evaluate", description="Attack a trained model and count what survives.")
    words = "a study by name or path, whose model it is, or a folder with a model, such as results/NAME/best"
    add_named(evaluate, "--model", studies, words, required=True)
    add_storage(evaluate)
    evaluate.add_argument(
        "--attack",
        choices=("margin", "pgd", "autoattack"),
        default="margin",
        help="the margin attack of the search, PGD on cross-entropy, or AutoAttack (default: margin)",
    )
    evaluate.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="which images; look at the test images once, at the end (default: validation)",
    )
    evaluate.add_argument("--images", type=whole_number, default=0, metavar="N", help="only a fixed subset of N images")
    add_trust(evaluate, "a model")
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Attack the model and print what survives, and which classes the attack leads to."""
    from hcpr_tune.api.finding import find_model

    folder, trust = find_model(options.model, options.storage, "--model"), trust_of(options)
    from hcpr_tune.api.evaluate import evaluate_recorded

    found = evaluate_recorded(folder, options.attack, options.split, options.images, trust, same_again())
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
