"""Time within a session: it goes on evenly, whatever becomes of the machine's date."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Seconds since some moment, on a clock that nobody sets, and that runs on while the machine sleeps where the system has such a one."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class SessionClock:
    """The date at the session's beginning and what has passed since. A date that is set ahead ends no budget of hours; one that is set back
    gives none.
    """

    def __init__(self) -> None:
        self._began, self._elapsed = time.time(), elapsed()

    def __call__(self) -> float:
        """Now, in seconds since 1970."""
        return self._began + elapsed() - self._elapsed
