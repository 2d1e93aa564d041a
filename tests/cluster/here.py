"""One Ray for the searches in the tests' own process: starting Ray, and importing torch, takes most of a search's time.

It is started as the command line starts it; a process that is connected to Ray already uses that.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

from hcpr_tune.execution.connection.cluster import Cluster, connected

NAME = "the driver"
"""Of this process among the cluster's jobs."""

_connection = contextlib.ExitStack()


@functools.cache
def shared_ray() -> Cluster:
    """Connects this process, the first time that it is called."""
    return _connection.enter_context(connected(None, name=NAME))


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Does `work` in a thread beside the block, and raises what went wrong there."""
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(120)
    if wrong:
        raise wrong[0]
    assert not thread.is_alive(), "the search ended, and what was waited for has not happened"


def disconnect() -> None:
    shared_ray.cache_clear()
    _connection.close()
