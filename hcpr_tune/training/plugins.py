"""User objects named package.module:name: imported, called, and named in error messages.

Such a name in a file runs code chosen by the file's author. A command that reads files written by others enters
`only_vouched`, and then imports only what has been vouched for; a worker imports whatever its driver sends.
"""

from __future__ import annotations

import importlib
import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hcpr_tune.common.text import clean, named, one_line
from hcpr_tune.errors import InputError

Item = TypeVar("Item")
LONGEST_VALUE = 200
"""Characters of an argument's value in a message."""

_vouched: set[str] | None = None
"""The names that may be imported; None: all, because that was decided before this process started."""


class PluginError(InputError):
    """A user's code could not be used; `details` holds its traceback, without the frames of this package."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Ended(Exception):
    """A user's code tried to end the process or raised a `BaseException` that is not an `Exception`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"ended with {named(cause)}{_place_of(cause)}")
        self.cause = cause


@contextmanager
def only_vouched() -> Iterator[None]:
    """Inside the block, only names that were passed to `vouch` in it are imported."""
    global _vouched
    before, _vouched = _vouched, set()
    try:
        yield
    finally:
        _vouched = before


def vouch(references: Iterable[str]) -> None:
    """Allow these names to be imported."""
    if _vouched is not None:
        _vouched.update(references)


def load(path: str, what: str, *kinds: type) -> Any:
    """Import package.module:function, also from the working folder; `what` names the setting in messages.

    The name may also be that of an object of one of the `kinds`. Raises `InputError` if the name was not vouched for,
    and `PluginError` if the module or the name is missing, importing it raises, or it is neither callable nor of a
    kind.
    """
    if _vouched is not None and path not in _vouched:
        raise InputError(
            f"{what} {path} is code from a file that is not trusted; "
            "add --trust (trust=True from Python) if you trust its author"
        )
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        # As with `python -m`: a user's file in the working folder is found, on the driver and on a local worker.
        sys.path.append(folder)
    try:
        with guarded():
            function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise PluginError(
            f"{what} {path}: importing {module_name} {did(error)}; fix the module, or put its folder on PYTHONPATH",
            users_traceback(error),
        ) from error
    if not callable(function) and not isinstance(function, kinds):
        found = (
            "has no such name"
            if function is None
            else f"has a {one_line(type(function).__name__)} of that name, which is not callable"
        )
        raise PluginError(f"{what} {path}: {module_name} {found}; name a function")
    return function


def call(function: Callable[..., Any], path: str, what: str, **arguments: Any) -> Any:
    """Call a user's function; turns what it raises into a `PluginError` with the user's traceback."""
    given = ", ".join(f"{name}={one_line(repr(value), LONGEST_VALUE)}" for name, value in arguments.items())
    with reporting(f"{what} {path}: calling it{' with ' if given else ''}{given}"):
        return function(**arguments)


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a function has a parameter for; none if its signature is not known."""
    try:
        takes = inspect.signature(function).parameters
    except ValueError:  # built-in types may have no signature
        return {}
    return {name: value for name, value in offered.items() if name in takes}


@contextmanager
def reporting(what: str, hint: str = "fix it") -> Iterator[None]:
    """Turn whatever a user's code raises into a `PluginError` that says `what` raised it."""
    try:
        with guarded():
            yield
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"{what} {did(error)}; {hint}", users_traceback(error)) from error


@contextmanager
def guarded() -> Iterator[None]:
    """Turn whatever a user's code raises into an `Exception`: its `sys.exit()` must not end a command or a worker.

    Ctrl-C and SIGTERM work as usual: what a signal handler raises is not the user's code.
    """
    heard = False

    def listening(handler: Any) -> Any:
        def hear(number: int, frame: Any) -> Any:
            nonlocal heard
            heard = True
            return handler(number, frame)

        return hear

    # Python handles signals in its main thread only.
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
            # Otherwise a signal handler or the user's code has set another one.
            if signal.getsignal(name) is ours:
                signal.signal(name, handler)


def guarded_steps(steps: Iterator[Item]) -> Iterator[Item]:
    """The same items, each produced inside `guarded`."""
    while True:
        with guarded():
            try:
                item = next(steps)
            except StopIteration:
                return
        yield item


def did(error: BaseException) -> str:
    """What a user's code did, as words to follow its name."""
    return str(error) if isinstance(error, Ended) else f"raised {named(error)}"


def _place_of(error: BaseException) -> str:
    """The file and line that raised the error; for a model's forward nothing else tells where it is."""
    frames = list(traceback.extract_tb(error.__traceback__))
    # Packages such as wandb replace sys.exit by a function of their own.
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" ({clean(Path(frames[-1].filename).name)}, line {frames[-1].lineno})" if frames else ""


def users_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package and of the import machinery, without control characters."""
    error = error.cause if isinstance(error, Ended) else error
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1] / "")
    own = [frame for frame in frames if not frame.filename.startswith(package) and "importlib" not in frame.filename]
    lines = traceback.format_list(own) + traceback.format_exception_only(error)
    return clean("Traceback (most recent call last):\n" + "".join(lines).rstrip())
