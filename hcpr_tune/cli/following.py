"""`hcpr_tune status NAME --watch`: follow a study from its record, whoever runs it and wherever."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hcpr_tune.common.settings import show
from hcpr_tune.execution.connection.host import interruptible
from hcpr_tune.search.record.follow import RecordFollower
from hcpr_tune.search.spec.study import extended
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.lease import LeaseHolder, living_lease_holder
from hcpr_tune.search.storage.studies import begun, reopen
from hcpr_tune.views.status import STATES, state_of

if TYPE_CHECKING:
    from rich.console import Console

    from hcpr_tune.search.record.history import History
    from hcpr_tune.search.record.record import Listener
    from hcpr_tune.views.terminal.layout import View

LOOK_EVERY = {False: 1.0, True: 5.0}
"""Seconds between two looks at the record, in a folder (False) and in a bucket (True)."""


class FollowedStudy:
    """A study as it stands at the latest `look`, and the process that runs it, None for none."""

    def __init__(self, storage: str, name: str) -> None:
        """Raises `InputError` if there is no such study."""
        stored = reopen(storage, name, "status ")
        self.folder = stored.folder
        self._begun = begun(read_study(self.folder.study), stored.history)
        self._follower = RecordFollower(self.folder, self._begun)
        self.spec = self._begun
        self.holder: LeaseHolder | None = None
        self.look()

    @property
    def history(self) -> History:
        return self._follower.history

    @property
    def every(self) -> float:
        """Seconds between two looks."""
        return LOOK_EVERY[self.folder.bucket is not None]

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return state_of(self.spec, self.history, self.holder)

    def look(self, listener: Listener | None = None) -> bool:
        """Read what was recorded since, and tell `listener` of each event. Returns whether anything has changed.

        If the study was extended, `spec` is another one afterwards. Raises `StorageError`.
        """
        before, extensions, changed = self.state, len(self.history.extensions), False
        # Looked at first: what a process has recorded before it ended is then read.
        holder = living_lease_holder(self.folder.objects)
        for event in self._follower.new():
            changed = True
            if listener is not None:
                listener.on_event(event, self.history)
        if len(self.history.extensions) != extensions:
            self.spec = extended(self._begun, self.history.extensions)
        self.holder = holder
        return changed or self.state != before

    def view(self) -> View:
        """What the live view shows, with the seconds since the latest event."""
        from hcpr_tune.views.terminal.live_view import view_of

        history = self.history
        since = max(0.0, time.time() - history.heard) if self.holder is not None and history.heard else 0.0
        state = STATES.get(self.state, self.state)
        led = "" if self.holder is None else f", led by process {self.holder.process} on {self.holder.host}"
        heading = (f"study        {self.folder.address}", f"state        {state}{led}")
        return replace(view_of(self.spec, history, self.holder is not None), since=since, heading=heading)


def watch(console: Console, storage: str, name: str) -> None:
    """Show the study in place until q or Ctrl-C. Raises `InputError` if there is none."""
    from hcpr_tune.views.terminal.live_view import BoardScreen

    followed, left = FollowedStudy(storage, name), threading.Event()
    try:
        with interruptible(), closing(BoardScreen(console, "leave", left.set, f"reading {show(name)} ...")) as screen:
            screen.show(followed.view())
            while not left.wait(followed.every):
                if followed.look():
                    screen.show(followed.view())
    except KeyboardInterrupt:
        pass


def watch_lines(console: Console, storage: str, name: str, as_json: bool, status: Callable[[], dict[str, Any]]) -> None:
    """Print the news until the study is not running any more, or Ctrl-C: lines, or JSON with the `status` around it."""
    from hcpr_tune.views.terminal.event_log import JsonLines, PlainLines

    def tell_status() -> None:
        if as_json:
            console.out(json.dumps({"news": "status", **status()}, allow_nan=False), highlight=False)

    followed = FollowedStudy(storage, name)
    tell_status()
    with interruptible():
        while followed.holder is not None:
            spec = followed.spec
            with closing((JsonLines if as_json else PlainLines)(spec, console, followed.history)) as lines:
                while followed.spec is spec and followed.holder is not None:
                    time.sleep(followed.every)
                    followed.look(lines)
    tell_status()
