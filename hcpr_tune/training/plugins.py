"""A user's own function or factory, named package.module:function."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError


class PluginError(InputError):
    """A user's own code could not be used; `details` holds its traceback, without the frames of this package."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def load(path: str, what: str) -> Callable[..., Any]:
    """Import package.module:function; `what` names the setting in messages. The working folder can be imported from.

    Raises `PluginError` where the module or the name is missing, where importing it raises, or where it cannot be called.
    """
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        # As `python -m` has it: a user's file beside the command is found, on the driver and on a local worker.
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise PluginError(
            f"{what} {path}: importing {module_name} raised {type(error).__name__}: {error}; mend the module, or put its folder on PYTHONPATH",
            users_traceback(error),
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = (
            "has no such name"
            if function is None
            else f"has a {type(function).__name__} of that name, which cannot be called"
        )
        raise PluginError(f"{what} {path}: {module_name} {found}; name a function")
    found_function: Callable[..., Any] = function
    return found_function


def call(function: Callable[..., Any], path: str, what: str, **arguments: Any) -> Any:
    """Call a user's function; what it raises becomes a `PluginError` with its own traceback."""
    try:
        return function(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        message = f"{what} {path}: calling it with {given} raised {type(error).__name__}: {error}; mend it"
        raise PluginError(message, users_traceback(error)) from error


def users_traceback(error: BaseException) -> str:
    """The traceback without the frames of this module and of the import machinery."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    lines = traceback.format_list(own) + traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines).rstrip()
