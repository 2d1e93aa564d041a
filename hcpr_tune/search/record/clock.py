"""Time within a session, independent of changes to the system clock."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Seconds on a monotonic clock that, if the system has one, also runs while the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class SessionClock:
    """The date at the start of the session plus the time elapsed since, so that setting the date changes no budget."""

    def __init__(self) -> None:
        self._began, self._elapsed = time.time(), elapsed()

    def __call__(self) -> float:
        """Now, in seconds since 1970."""
        return self._began + elapsed() - self._elapsed
