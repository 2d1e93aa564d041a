"""Arguments that several commands share, and argparse's types."""

from __future__ import annotations

import argparse
from typing import Any

from hcpr_tune.cli.completers import Completer, completed, settings, spaces, studies
from hcpr_tune.common.numbers import MOST, whole
from hcpr_tune.errors import InputError


def add_space(command: Any, what: str = "") -> None:
    """What is searched."""
    words = "a file of search_spaces/ by name, or a path, also of a study's folder"
    add_named(command, "--space", spaces, f"{what}{words} (default: default)")


def add_named(command: Any, option: str, completer: Completer, words: str, **more: Any) -> None:
    """An option that takes a study, a space or a recipe by its name or its path, which a shell completes."""
    completed(command.add_argument(option, metavar="NAME|PATH", help=words, **more), completer)


def add_ray(command: Any) -> None:
    """What says where Ray is."""
    command.add_argument(
        "--address", metavar="ADDRESS", help="an existing Ray cluster (default: start Ray on this machine)"
    )
    command.add_argument(
        "--wait",
        type=whole_number,
        default=0,
        metavar="S",
        help="seconds to wait for the first node with room for a trial",
    )
    command.add_argument(
        "--dashboard-host",
        default="127.0.0.1",
        metavar="IP|none",
        help="where the dashboard of a Ray started here listens; it asks for a token; none starts it without one "
        "(default: 127.0.0.1)",
    )


def add_trust(command: Any, whose: str = "a study, a recipe or a model") -> None:
    """Who vouches for code that a file names."""
    command.add_argument(
        "--trust",
        action="store_true",
        help=f"run the code (package.module:function) that {whose} of somebody else names; asked for once",
    )


def add_set(command: Any, what: str) -> None:
    """Values by dotted name."""
    completed(
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{what}; repeatable"),
        settings,
    )


def add_study(command: Any, optional: bool = False) -> None:
    """What names an existing study."""
    words = "a study: its name in --storage, or its path, a folder or a bucket's URL"
    add_named(
        command, "name", studies, words + "; none with --model" * optional, **({"nargs": "?"} if optional else {})
    )
    add_storage(command)


def add_storage(command: Any) -> None:
    """Where studies are stored."""
    command.add_argument(
        "--storage",
        default="results",
        metavar="DIR|URL",
        help="where studies are stored: a folder, or s3://BUCKET/PATH (default: results)",
    )


def whole_number(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    return _for_argparse(text, 0)


def any_whole_number(text: str) -> int:
    """A whole number, for argparse; its range is checked later."""
    return _for_argparse(text, -MOST)


def _for_argparse(text: str, least: int) -> int:
    try:
        return whole("", text, least)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None
