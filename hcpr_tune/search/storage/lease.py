"""Who leads a study: a file with host, process and heartbeat, so that two drivers never undo each other's decisions.

The heartbeat counts across machines, and what counts is that it moves: clocks may differ, and a date may have been wrong. On the same machine
it is enough to look whether the process lives, so that a killed search can be resumed at once.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from hcpr_tune.common.files import machine_id, process_began
from hcpr_tune.common.shell import storage_of, study_command
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.clock import elapsed
from hcpr_tune.search.storage.object_store import FolderObjectStore, ObjectStore

KEY = "holder.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A holder that was not heard of for so long is gone."""
WATCH_SECONDS = 1.2 * BEAT_SECONDS
"""In so long a living holder's heart is seen to beat."""
LOOK_EVERY = {False: 0.1, True: 1.0}
"""Seconds between two looks at a heart, in a folder and in a bucket."""
SETTLE_TRIES = 10
SETTLE_SECONDS = {False: 0.1, True: 2.0}
"""How long a new holder waits to see that its file stands, in a folder and in a bucket."""


@dataclass(frozen=True)
class LeaseHolder:
    """A process that leads, or led, a study. `machine` tells hosts and process namespaces apart, `began` processes of one number."""

    host: str
    process: int
    machine: str
    began: str
    token: str
    heartbeat: float

    def silence(self, now: float) -> float:
        """Seconds since it was heard of."""
        return max(0.0, now - self.heartbeat)

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell by itself if the process lives."""
        return self.machine == machine_id() and bool(self.began)

    def lives(self, now: float) -> bool:
        if self.is_here:
            return process_began(self.process) == self.began
        return self.silence(now) < STALE_SECONDS

    def is_ahead(self, now: float) -> bool:
        """Whether its heartbeat lies in the future here, so that only watching it tells whether it lives."""
        return not self.is_here and self.heartbeat - now > BEAT_SECONDS

    def words(self, now: float) -> str:
        heard = f"heard of {self.silence(now):.0f} seconds ago"
        if self.is_ahead(now):
            heard = f"whose clock is {self.heartbeat - now:.0f} seconds ahead of the one here"
        return f"process {self.process} on {self.host}, {heard}"


def read_lease_holder(place: ObjectStore) -> LeaseHolder | None:
    """Who the file says leads the study, alive or not."""
    data = place.read(KEY)
    try:
        if data is None:
            return None
        plain = json.loads(data)
        # What a later version adds is not needed to know who it is.
        words = [str(plain[name]) for name in ("host", "machine", "began", "token")]
        return LeaseHolder(words[0], int(plain["process"]), words[1], words[2], words[3], float(plain["heartbeat"]))
    except (ValueError, TypeError, KeyError):
        return None


def living_lease_holder(
    place: ObjectStore, now: Callable[[], float] = time.time, watch: float = WATCH_SECONDS, sure: bool = False
) -> LeaseHolder | None:
    """The process that searches the study at the moment.

    One whose heartbeat lies in the future is watched for up to `watch` seconds; `sure`: so is one of another machine that was not heard of for long.
    """
    holder = read_lease_holder(place)
    if holder is None:
        return None
    lives = holder.lives(now())
    if holder.is_ahead(now()) or (sure and not lives and not holder.is_here):
        return seen_to_beat(place, holder, watch)
    return holder if lives else None


def seen_to_beat(place: ObjectStore, first: LeaseHolder, seconds: float) -> LeaseHolder | None:
    """Who leads the study, seen to live by a heartbeat other than `first`; None where there is none within so many seconds."""
    until = elapsed() + seconds
    while True:
        holder = read_lease_holder(place)
        if holder is None or holder != first:
            return holder
        if (left := until - elapsed()) <= 0:
            return None
        time.sleep(min(left, LOOK_EVERY[not isinstance(place, FolderObjectStore)]))


def refusal(name: str, holder: LeaseHolder, address: str = "") -> InputError:
    """What the second driver of a study is told; `address`: the study's, where its `name` for people is another."""
    storage, study = storage_of(address or name)
    return InputError(
        f"{name} is being searched by {holder.words(time.time())}; wait for its end, stop it by {study_command('stop', study, storage)}, or where it died with its"
        f" machine try again {STALE_SECONDS:.0f} seconds after it was last heard of"
    )


class Lease:
    """The right to lead a study, from construction to `close`, kept up by a heartbeat from a thread of its own."""

    def __init__(
        self,
        place: ObjectStore,
        name: str,
        patience: float = 0.0,
        beat: float = BEAT_SECONDS,
        watch: float = WATCH_SECONDS,
    ) -> None:
        """Raises `InputError` where another process has it.

        Waits up to `patience` seconds for one that may be dead. One of another machine is gone once its heart did not beat for `watch` seconds
        here, and for a minute by what the clocks say; where its heartbeat lies in the future they say nothing, and the whole minute passes here.
        """
        self._place, self._name, self._watch = place, name, watch
        process, token = os.getpid(), uuid.uuid4().hex
        self._own = LeaseHolder(platform.node(), process, machine_id(), process_began(process), token, time.time())
        self._lost, self._beaten = "", elapsed()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._take(patience)
        self._thread = threading.Thread(target=self._keep, args=(beat,), daemon=True)
        self._thread.start()

    def _take(self, patience: float) -> None:
        """Write the file once nobody leads the study, and see that it stands."""
        settle = SETTLE_SECONDS[not isinstance(self._place, FolderObjectStore)]
        self._wait(patience)
        # A disk that is busy for a moment is no reason to give up.
        for _ in range(SETTLE_TRIES):
            began = time.monotonic()
            self._beat()
            slow = time.monotonic() - began > settle
            # Of two that begin in the same moment the later file stands, and the other one sees it, unless writing takes longer than it waits.
            time.sleep(settle)
            holder = read_lease_holder(self._place)
            if holder is not None and holder.token != self._own.token:
                raise refusal(self._name, holder)
            if not slow:
                return
        self._place.delete(KEY)
        raise InputError(f"{self._name}: its storage is too slow just now to be led safely; try again")

    def _wait(self, patience: float) -> None:
        """Until nobody leads the study. A holder whose heart beats on is refused at once."""
        first = read_lease_holder(self._place)
        if first is None or (first.is_here and not first.lives(time.time())):
            return
        now = time.time()
        quiet = max(0.0, STALE_SECONDS - first.silence(now))
        if first.is_here:
            raise refusal(self._name, first)
        # Too long to wait for, unless the clocks are no help: then no later time would be a better one.
        enough = quiet <= patience or first.is_ahead(now)
        holder = seen_to_beat(self._place, first, quiet + self._watch if enough else patience)
        if holder is None and not enough:
            holder = read_lease_holder(self._place)
        if holder is not None:
            raise refusal(self._name, holder)

    def _beat(self) -> None:
        own = replace(self._own, heartbeat=time.time())
        self._place.write(KEY, json.dumps(asdict(own)).encode())
        self._own, self._beaten = own, elapsed()

    def _keep(self, beat: float) -> None:
        while not self._stop.wait(beat):
            try:
                self._renew()
            except StorageError as error:
                # A full disk is found by whoever writes next; one missed beat is no end.
                if elapsed() - self._beaten > STALE_SECONDS:
                    self._lost = f"the heartbeat of {self._name} could not be written: {error}"

    def _renew(self) -> None:
        with self._lock:
            holder = read_lease_holder(self._place)
            if holder is not None and holder.token != self._own.token:
                self._lost = f"{self._name} was taken over by {holder.words(time.time())}"
            else:
                self._beat()

    def check(self) -> None:
        """Raises `StorageError` where the study was lost to another process, for instance while this one was asleep."""
        silence = max(elapsed() - self._beaten, self._own.silence(time.time()))
        if not self._lost and silence > STALE_SECONDS / 2:
            self._renew()
        if self._lost:
            raise StorageError(f"{self._lost}; this process ends, the study goes on there")

    def close(self) -> None:
        """Give the study back."""
        self._stop.set()
        self._thread.join()
        if (
            not self._lost
            and (holder := read_lease_holder(self._place)) is not None
            and holder.token == self._own.token
        ):
            self._place.delete(KEY)
