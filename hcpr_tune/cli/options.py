"""From argparse's values to the values that the library takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hcpr_tune.api.search_request import SpaceSource
    from hcpr_tune.api.trust import Trust
    from hcpr_tune.execution.connection.ray_options import RayOptions


def trust_of(options: argparse.Namespace, more: Iterable[object] = ()) -> Trust:
    """What is trusted: all with --trust, else what is typed in --set, and `more` values of the command line."""
    from hcpr_tune.api.trust import Trust
    from hcpr_tune.common.settings import parse_assignment

    typed: list[object] = list(more)
    for text in getattr(options, "set", ()):
        typed += [text.partition("=")[2].strip().strip("\"'"), parse_assignment(text)[1]]
    return Trust.of(options.trust, typed)


def ray_of(options: argparse.Namespace) -> RayOptions:
    from hcpr_tune.execution.connection.ray_options import RayOptions

    return RayOptions(options.address, options.wait, options.dashboard_host)


def space_of(options: argparse.Namespace) -> SpaceSource:
    """The space with what the command line lays over it. Raises `InputError`."""
    from hcpr_tune.api.search_request import SpaceSource
    from hcpr_tune.cli.flags import SEARCH, flag_of
    from hcpr_tune.common.settings import check_given_once, parse_assignment, parse_assignments, shorten
    from hcpr_tune.search.spec.study_file import find_space

    overrides = parse_assignments(options.set, below="recipe.")
    given = [f"--set {shorten(text)}" for text in options.set]
    for flag, dotted in SEARCH.items():
        value = getattr(options, flag, None)
        if value is not None:
            check_given_once([name for name, _ in overrides], dotted)
            overrides.append(parse_assignment(f"{dotted}={value}"))
            given.append(f"{flag_of(flag)} {shorten(str(value))}")
    path = find_space("default" if options.space is None else options.space)
    return SpaceSource(path, tuple(overrides), " ".join(given))
