"""The lease on a study: a file with host, process and heartbeat, so that two drivers never undo each other's decisions.

Across machines a lease is alive if its heartbeat changes, since clocks may differ. On the same machine it is enough to
check whether the process is alive, so that a killed search can be resumed at once.
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

from hcpr_tune.common.buckets.location import Location
from hcpr_tune.common.files import machine_id, process_began
from hcpr_tune.common.shell import study_command
from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.clock import elapsed
from hcpr_tune.search.storage.object_store import FolderObjectStore, ObjectStore

KEY = "holder.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A lease expires this long after its last heartbeat."""
WATCH_SECONDS = 1.2 * BEAT_SECONDS
"""The heartbeat of a live lease changes within this time."""
LOOK_EVERY = {False: 0.1, True: 1.0}
"""Seconds between two reads of a heartbeat, in a folder (False) and in a bucket (True)."""
SETTLE_TRIES = 10
SETTLE_SECONDS = {False: 0.1, True: 2.0}
"""How long a new holder waits to check that its file was not replaced, in a folder (False) and in a bucket (True)."""


@dataclass(frozen=True)
class LeaseHolder:
    """A process that holds, or held, the lease of a study.

    `machine` distinguishes hosts and process namespaces, `began` processes with the same number.
    """

    host: str
    process: int
    machine: str
    began: str
    token: str
    heartbeat: float

    def silence(self, now: float) -> float:
        """Seconds since its last heartbeat."""
        return max(0.0, now - self.heartbeat)

    @property
    def is_here(self) -> bool:
        """Whether the process is on this machine, so that it can be looked up."""
        return self.machine == machine_id() and bool(self.began)

    def lives(self, now: float) -> bool:
        if self.is_here:
            return process_began(self.process) == self.began
        return self.silence(now) < STALE_SECONDS

    def is_ahead(self, now: float) -> bool:
        """Whether its heartbeat is in the future by the local clock; only watching it then shows if it is alive."""
        return not self.is_here and self.heartbeat - now > BEAT_SECONDS

    def words(self, now: float) -> str:
        heard = f"heard of {self.silence(now):.0f} seconds ago"
        if self.is_ahead(now):
            heard = f"whose clock is {self.heartbeat - now:.0f} seconds ahead of the one here"
        return f"process {self.process} on {self.host}, {heard}"


def read_lease_holder(place: ObjectStore) -> LeaseHolder | None:
    """The lease holder in the file, alive or not."""
    data = place.read(KEY)
    try:
        if data is None:
            return None
        plain = json.loads(data)
        # Fields added by later versions are ignored.
        words = [str(plain[name]) for name in ("host", "machine", "began", "token")]
        return LeaseHolder(words[0], int(plain["process"]), words[1], words[2], words[3], float(plain["heartbeat"]))
    except (ValueError, TypeError, KeyError):
        return None


def living_lease_holder(
    place: ObjectStore, now: Callable[[], float] = time.time, watch: float = WATCH_SECONDS, sure: bool = False
) -> LeaseHolder | None:
    """The live process that holds the lease, or None.

    A process whose heartbeat is in the future is watched for up to `watch` seconds; with `sure`, so is one on another
    machine whose lease has expired.
    """
    holder = read_lease_holder(place)
    if holder is None:
        return None
    lives = holder.lives(now())
    if holder.is_ahead(now()) or (sure and not lives and not holder.is_here):
        return seen_to_beat(place, holder, watch)
    return holder if lives else None


def seen_to_beat(place: ObjectStore, first: LeaseHolder, seconds: float) -> LeaseHolder | None:
    """The lease holder once its heartbeat differs from `first`; None if there is no change within `seconds`."""
    until = elapsed() + seconds
    while True:
        holder = read_lease_holder(place)
        if holder is None or holder != first:
            return holder
        if (left := until - elapsed()) <= 0:
            return None
        time.sleep(min(left, LOOK_EVERY[not isinstance(place, FolderObjectStore)]))


def refusal(name: str, holder: LeaseHolder, address: str = "") -> InputError:
    """The error for a second driver of a study. `address`: that of the study, if it differs from `name`."""
    study = Location.parse(address or name)
    return InputError(
        f"{name} is being searched by {holder.words(time.time())}; wait for it to finish, or, if its machine is down,"
        f" try again {STALE_SECONDS:.0f} seconds after it was last heard of, or stop it:"
        f" {study_command('stop', study.name, study.parent)}"
    )


class Lease:
    """The lease on a study, held from construction to `close` and renewed by a thread."""

    def __init__(
        self,
        place: ObjectStore,
        name: str,
        patience: float = 0.0,
        beat: float = BEAT_SECONDS,
        watch: float = WATCH_SECONDS,
    ) -> None:
        """Raises `InputError` if another process holds the lease.

        Waits up to `patience` seconds for a holder that may be dead. A holder on another machine is considered dead
        once its heartbeat has not changed for `watch` seconds as seen from here and for `STALE_SECONDS` by the clocks.
        If its heartbeat is in the future, the clocks are of no use and it is watched for all of that time.
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
        """Write the file once no other process holds the lease, and check that it was not replaced."""
        settle = SETTLE_SECONDS[not isinstance(self._place, FolderObjectStore)]
        self._wait(patience)
        # Retry, since the disk may only be busy for a moment.
        for _ in range(SETTLE_TRIES):
            began = time.monotonic()
            self._beat()
            slow = time.monotonic() - began > settle
            # If two processes start at the same time, the later file wins and the other process sees it, unless
            # writing takes longer than it waits.
            time.sleep(settle)
            holder = read_lease_holder(self._place)
            if holder is not None and holder.token != self._own.token:
                raise refusal(self._name, holder)
            if not slow:
                return
        self._place.delete(KEY)
        raise InputError(f"{self._name}: its storage is too slow at the moment for a safe lease; try again")

    def _wait(self, patience: float) -> None:
        """Wait until no other process holds the lease. Raises `InputError` as soon as a heartbeat is seen."""
        first = read_lease_holder(self._place)
        if first is None or (first.is_here and not first.lives(time.time())):
            return
        now = time.time()
        quiet = max(0.0, STALE_SECONDS - first.silence(now))
        if first.is_here:
            raise refusal(self._name, first)
        # Do not wait longer than `patience`, unless the clocks differ: then trying again later would not help.
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
                # The next write reports a full disk; a single missed heartbeat does not matter.
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
        """Raises `StorageError` if another process took over the study, for instance while this machine was asleep."""
        silence = max(elapsed() - self._beaten, self._own.silence(time.time()))
        if not self._lost and silence > STALE_SECONDS / 2:
            self._renew()
        if self._lost:
            raise StorageError(f"{self._lost}; this process ends, and the study continues there")

    def close(self) -> None:
        """Release the lease."""
        self._stop.set()
        self._thread.join()
        if (
            not self._lost
            and (holder := read_lease_holder(self._place)) is not None
            and holder.token == self._own.token
        ):
            self._place.delete(KEY)
