"""Who leads a study: a file with host, process and heartbeat, so that two drivers never undo each other's decisions.

The heartbeat counts across machines. On the same machine it is enough to look whether the process lives, so that a killed search can be
resumed at once.
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
from pathlib import Path

from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.place import Folder, Place
from hcpr_tune.typed import storage_of, study_command

KEY = "holder.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A holder that was not heard of for so long is gone."""
SETTLE_SECONDS = {False: 0.1, True: 2.0}
"""How long a new holder waits to see that its file stands, in a folder and in a bucket."""


@dataclass(frozen=True)
class Holder:
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

    def words(self, now: float) -> str:
        return f"process {self.process} on {self.host}, heard of {self.silence(now):.0f} seconds ago"


def machine_id() -> str:
    """This machine since it was started, and this namespace of processes: where a process's number means the same."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def process_began(process: int) -> str:
    """When a process of this machine began, in its own clock; empty where there is none, or where it is dead and only not yet waited for."""
    try:
        # The name before it, in brackets, may hold anything.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def read_holder(place: Place) -> Holder | None:
    """Who the file says leads the study, alive or not."""
    data = place.read(KEY)
    try:
        if data is None:
            return None
        plain = json.loads(data)
        # What a later version adds is not needed to know who it is.
        words = [str(plain[name]) for name in ("host", "machine", "began", "token")]
        return Holder(words[0], int(plain["process"]), words[1], words[2], words[3], float(plain["heartbeat"]))
    except (ValueError, TypeError, KeyError):
        return None


def living_holder(place: Place, now: Callable[[], float] = time.time) -> Holder | None:
    """The process that searches the study at the moment."""
    holder = read_holder(place)
    return holder if holder is not None and holder.lives(now()) else None


def refusal(name: str, holder: Holder, address: str = "") -> InputError:
    """What the second driver of a study is told; `address`: the study's, where its `name` for people is another."""
    storage, study = storage_of(address or name)
    return InputError(
        f"{name} is being searched by {holder.words(time.time())}; wait for its end, stop it by {study_command('stop', study, storage)}, or where it died with its"
        f" machine try again {STALE_SECONDS:.0f} seconds after it was last heard of"
    )


class Lead:
    """The right to lead a study, from construction to `close`, kept up by a heartbeat from a thread of its own."""

    def __init__(
        self,
        place: Place,
        name: str,
        patience: float = 0.0,
        beat: float = BEAT_SECONDS,
        watch: float = 1.2 * BEAT_SECONDS,
    ) -> None:
        """Raises `InputError` where another process has it.

        Waits up to `patience` seconds for one that may be dead, and watches one of another machine that seems dead for `watch` seconds: the
        clocks may differ.
        """
        self._place, self._name, self._watch = place, name, watch
        process, token = os.getpid(), uuid.uuid4().hex
        self._own = Holder(platform.node(), process, machine_id(), process_began(process), token, time.time())
        self._lost = ""
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._take(patience)
        self._thread = threading.Thread(target=self._keep, args=(beat,), daemon=True)
        self._thread.start()

    def _take(self, patience: float) -> None:
        """Write the file once nobody leads the study, and see that it stands."""
        settle = SETTLE_SECONDS[not isinstance(self._place, Folder)]
        self._wait(patience)
        began = time.monotonic()
        self._beat()
        slow = time.monotonic() - began > settle
        # Of two that begin in the same moment the later file stands, and the other one sees it, unless writing takes longer than it waits.
        time.sleep(settle)
        holder = read_holder(self._place)
        if holder is not None and holder.token != self._own.token:
            raise refusal(self._name, holder)
        if slow:
            self._place.delete(KEY)
            raise InputError(f"{self._name}: its storage is too slow just now to be led safely; try again")

    def _wait(self, patience: float) -> None:
        """Until nobody leads the study. A holder whose heart beats on is refused at once."""
        until = time.monotonic() + patience
        first = living_holder(self._place)
        while (holder := living_holder(self._place)) is not None:
            beats = first is None or holder.heartbeat > first.heartbeat or holder.is_here
            if beats or time.monotonic() >= until:
                raise refusal(self._name, holder)
            time.sleep(1.0)
        left = read_holder(self._place)
        if left is not None and not left.is_here:
            time.sleep(self._watch)
            holder = read_holder(self._place)
            if holder is not None and holder != left:
                raise refusal(self._name, holder)

    def _beat(self) -> None:
        self._own = replace(self._own, heartbeat=time.time())
        self._place.write(KEY, json.dumps(asdict(self._own)).encode())

    def _keep(self, beat: float) -> None:
        while not self._stop.wait(beat):
            try:
                self._renew()
            except StorageError as error:
                # A full disk is found by whoever writes next; one missed beat is no end.
                if self._own.silence(time.time()) > STALE_SECONDS:
                    self._lost = f"the heartbeat of {self._name} could not be written: {error}"

    def _renew(self) -> None:
        with self._lock:
            holder = read_holder(self._place)
            if holder is not None and holder.token != self._own.token:
                self._lost = f"{self._name} was taken over by {holder.words(time.time())}"
            else:
                self._beat()

    def check(self) -> None:
        """Raises `StorageError` where the study was lost to another process, for instance while this one was asleep."""
        if not self._lost and self._own.silence(time.time()) > STALE_SECONDS / 2:
            self._renew()
        if self._lost:
            raise StorageError(f"{self._lost}; this process ends, the study goes on there")

    def close(self) -> None:
        """Give the study back."""
        self._stop.set()
        self._thread.join()
        if not self._lost and (holder := read_holder(self._place)) is not None and holder.token == self._own.token:
            self._place.delete(KEY)
