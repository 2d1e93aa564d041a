"""A user's own function or factory, named package.module:function: looked up, run, and named in whatever comes of it.

Such a name in a file is code of whoever wrote the file. Where a command reads files of others it opens `only_vouched`, and then nothing
is imported that nobody has vouched for; a worker imports what its driver has decided to hand out.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hcpr_tune.common.text import clean, named, one_line
from hcpr_tune.errors import InputError

Item = TypeVar("Item")
LONGEST_VALUE = 200
"""Characters of an argument's value in a message."""

_vouched: set[str] | None = None
"""What may be imported; None: everything, since whoever runs this process has decided before it began."""


class PluginError(InputError):
    """A user's own code could not be used; `details` holds its traceback, without the frames of this package."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Ended(Exception):
    """A user's code wanted to end the process, or raised what `except Exception` does not catch; the message says what."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"ended with {named(cause)}{_place_of(cause)}")
        self.cause = cause


@contextmanager
def only_vouched() -> Iterator[None]:
    """For as long as the block lasts nothing is imported but what `vouch` was called with in it."""
    global _vouched
    before, _vouched = _vouched, set()
    try:
        yield
    finally:
        _vouched = before


def vouch(references: Iterable[str]) -> None:
    """Somebody who may say so wants these to be imported."""
    if _vouched is not None:
        _vouched.update(references)


def load(path: str, what: str) -> Callable[..., Any]:
    """Import package.module:function; `what` names the setting in messages. The working folder can be imported from.

    Raises `PluginError` where the module or the name is missing, where importing it raises, or where it cannot be called.
    """
    if _vouched is not None and path not in _vouched:
        raise InputError(
            f"{what} {path} is code that nobody has vouched for here; add --trust (trust=True from Python) if you trust whoever named it"
        )
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        # As `python -m` has it: a user's file beside the command is found, on the driver and on a local worker.
        sys.path.append(folder)
    try:
        with guarded():
            function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise PluginError(
            f"{what} {path}: importing {module_name} {did(error)}; mend the module, or put its folder on PYTHONPATH",
            users_traceback(error),
        ) from error
    if not callable(function):
        found = (
            "has no such name"
            if function is None
            else f"has a {one_line(type(function).__name__)} of that name, which cannot be called"
        )
        raise PluginError(f"{what} {path}: {module_name} {found}; name a function")
    found_function: Callable[..., Any] = function
    return found_function


def call(function: Callable[..., Any], path: str, what: str, **arguments: Any) -> Any:
    """Call a user's function; what it raises becomes a `PluginError` with its own traceback."""
    try:
        with guarded():
            return function(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}={one_line(repr(value), LONGEST_VALUE)}" for name, value in arguments.items())
        message = f"{what} {path}: calling it with {given} {did(error)}; mend it"
        raise PluginError(message, users_traceback(error)) from error


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever a user's code raises leaves the block as an `Exception`: `sys.exit()` in it ends neither a command nor a worker.

    Ctrl-C and SIGTERM go through as ever: what is raised while a signal is answered is not the user's.
    """
    heard = False

    def listening(handler: Any) -> Any:
        def hear(number: int, frame: Any) -> Any:
            nonlocal heard
            heard = True
            return handler(number, frame)

        return hear

    # Python answers signals in its main thread only.
    main = threading.current_thread() is threading.main_thread()
    known = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)} if main else {}
    before = {name: (handler, listening(handler)) for name, handler in known.items() if callable(handler)}
    for name, (_, handler) in before.items():
        signal.signal(name, handler)
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if heard:
            raise
        raise Ended(error) from error
    finally:
        for name, (handler, ours) in before.items():
            if (
                signal.getsignal(name) is ours
            ):  # else whoever answered a signal, or the user's code, has set another one
                signal.signal(name, handler)


def guarded_steps(steps: Iterator[Item]) -> Iterator[Item]:
    """The same items, each of them made in a block of `guarded`."""
    while True:
        with guarded():
            try:
                item = next(steps)
            except StopIteration:
                return
        yield item


def did(error: BaseException) -> str:
    """What a user's code did, in words that follow its name."""
    return str(error) if isinstance(error, Ended) else f"raised {named(error)}"


def _place_of(error: BaseException) -> str:
    """The file and the line that raised it: a model's forward says nothing else of where it stands."""
    frames = list(traceback.extract_tb(error.__traceback__))
    # Packages such as wandb put a function of theirs in the place of sys.exit.
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" ({clean(Path(frames[-1].filename).name)}, line {frames[-1].lineno})" if frames else ""


def users_traceback(error: BaseException) -> str:
    """The traceback without the frames of this module and of the import machinery, clean."""
    error = error.cause if isinstance(error, Ended) else error
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    lines = traceback.format_list(own) + traceback.format_exception_only(error)
    return clean("Traceback (most recent call last):\n" + "".join(lines).rstrip())
