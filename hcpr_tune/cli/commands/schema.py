"""`hcpr_tune schema`: what space files may say, for editors."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    commands.add_parser(
        "schema",
        description="Print a JSON schema of space files, for editors that complete and check TOML.",
    )


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    from hcpr_tune.search.spec.json_schema import space_schema

    say(json.dumps(space_schema(), indent=2))
    return COMPLETED
