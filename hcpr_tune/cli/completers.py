"""What shells complete: names of studies, spaces and settings. A key press waits for it, so that nothing is imported
that it does not need.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from hcpr_tune.common.shell import USUAL

ASKED = "_ARGCOMPLETE"
"""In the environment of a process that a shell has started for completions."""

Completer = Callable[..., list[str]]


def completed(action: argparse.Action, completer: Completer) -> None:
    """Complete the argument with what `completer(prefix, parsed_args)` returns, as argcomplete looks for it."""
    action.completer = completer  # type: ignore[attr-defined]


def typed_so_far() -> list[str]:
    """The words before the one that is being completed, without the program's name."""
    line = os.environ.get("COMP_LINE", "")
    before = line[: int(os.environ.get("COMP_POINT", len(line)))]
    return before.rpartition(" ")[0].split()[1:]


def complete(parser: argparse.ArgumentParser, options_too: bool) -> None:
    """Print the completions and end the process. `options_too`: also where no dash was typed."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options=options_too)


def studies(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The names of the studies in `--storage`, else folders. A bucket is not asked: it may answer late."""
    from hcpr_tune.common.buckets.location import is_bucket
    from hcpr_tune.errors import HcprTuneError
    from hcpr_tune.search.storage.names import known

    storage = getattr(parsed_args, "storage", None) or USUAL
    try:
        names = [] if is_bucket(storage) else [name for name in known(storage) if name.startswith(prefix)]
    except HcprTuneError:
        names = []
    return names or folders(prefix)


def spaces(prefix: str, **_: Any) -> list[str]:
    """The names of the files in search_spaces/, else TOML files."""
    from hcpr_tune.search.spec.space_files import known_spaces

    return [name for name in known_spaces() if name.startswith(prefix)] or toml_files(prefix)


def recipes(prefix: str, parsed_args: argparse.Namespace, **more: Any) -> list[str]:
    """TOML files, and the names of studies, whose best recipe is meant."""
    return [*toml_files(prefix), *studies(prefix, parsed_args, **more)]


def settings(prefix: str, **_: Any) -> list[str]:
    """The settings of a study and the fields of a recipe, by dotted name; after the `=` the values of a choice."""
    from hcpr_tune.common.settings import dotted_names
    from hcpr_tune.search.spec.settings import StudySettings
    from hcpr_tune.training.recipe import Recipe

    known = {**dotted_names(Recipe), **dotted_names(StudySettings)}
    name, assigned, _value = prefix.partition("=")
    if not assigned:
        return [f"{one}=" for one in known]
    bounds = known[name][1].metadata.get("bounds") if name in known else None
    return [f"{name}={choice}" for choice in (bounds and bounds.choices) or ()]


def folders(prefix: str) -> list[str]:
    """Folders, as the shell completes them."""
    from argcomplete.completers import DirectoriesCompleter

    return list(DirectoriesCompleter()(prefix))


def toml_files(prefix: str) -> list[str]:
    """TOML files and folders, as the shell completes them."""
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter(("toml",))(prefix))
