"""Flags that stand for settings of a study. A flag's help is the setting's own text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hcpr_tune.common.settings import dotted_names
from hcpr_tune.search.spec.settings import StudySettings

BUDGET = {"trials": "budget.trials", "hours": "budget.hours", "worker_hours": "budget.worker_hours"}
SEARCH = {
    **BUDGET,
    "seed": "seed",
    "cpus_per_trial": "resources.cpus_per_trial",
    "gpus_per_trial": "resources.gpus_per_trial",
}
"""Flags of `tune` and `plan`, and their settings by dotted name."""
VERDICT = {
    name: f"verdict.{name}"
    for name in ("finalists", "seeds", "other_seeds", "images", "test_images", "chunk", "worker_hours")
}
"""Flags of `verdict`."""


def flag_of(name: str) -> str:
    """A flag as it is typed."""
    return f"--{name.replace('_', '-')}"


def add_settings(command: Any, flags: Mapping[str, str], more: Mapping[str, str] | None = None) -> None:
    """Add a flag for each setting to an argparse parser. `more`: what else to say in the help of a flag."""
    known = dotted_names(StudySettings)
    for name, dotted in flags.items():
        _, setting = known[dotted]
        text = setting.metadata["doc"].rstrip(".")
        if text[1:2].islower():  # argparse's own texts begin so; not "CPU cores"
            text = text[0].lower() + text[1:]
        words = f"{text} ({dotted})" + (more or {}).get(name, "")
        metavar = "H" if name.endswith("hours") else "N"
        command.add_argument(flag_of(name), metavar=metavar, help=words.replace("%", "%%"))
