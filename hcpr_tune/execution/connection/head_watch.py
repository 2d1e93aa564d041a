"""Says that the head of a joined cluster is gone, while the driver may be blocked inside Ray and cannot."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hcpr_tune.execution.connection.capacity import to_stderr

LOST_SECONDS = 50.0
"""After this silence it is said. The driver itself says so before, where it can; Ray ends the process after 60 s."""
POLL_SECONDS = 2.0


@contextmanager
def watched(
    address: str, say: Callable[[str], None] = to_stderr, lost: float = LOST_SECONDS, poll: float = POLL_SECONDS
) -> Iterator[None]:
    """Watch the head at `address` while the block runs. Ray's own words, from C++, are not let through."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, say, lost, poll, ended), daemon=True, name="head-watch")
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(address: str, say: Callable[[str], None], lost: float, poll: float, ended: threading.Event) -> None:
    since, told = time.monotonic(), False
    while not ended.wait(poll):
        if _answers(address):
            since, told = time.monotonic(), False
        elif time.monotonic() - since >= lost and not told:
            told = True
            say(
                f"the head of the Ray cluster at {address} has not answered for {time.monotonic() - since:.0f} seconds,"
                " and Ray ends this process; everything recorded is kept: start the cluster again, and go on with"
                " --resume (or --continue)"
            )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError:
        return False
    return True
