"""Who leads a study: one process, told by name; a dead one at once on its machine, after a minute elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.storage import lease as lease_module
from hcpr_tune.search.storage.lease import (
    KEY,
    STALE_SECONDS,
    Lease,
    LeaseHolder,
    living_lease_holder,
    machine_id,
    process_began,
    read_lease_holder,
)
from hcpr_tune.search.storage.object_store import FolderObjectStore


@pytest.fixture
def place(tmp_path):
    return FolderObjectStore(tmp_path)


def write(place, one: LeaseHolder) -> None:
    place.write(KEY, json.dumps(asdict(one)).encode())


def elsewhere(heartbeat: float) -> LeaseHolder:
    return LeaseHolder("other-host", 4321, "another machine", "7", "abc", heartbeat)


def test_the_second_is_told_who_the_first_is(place):
    lease = Lease(place, "results/one")
    with pytest.raises(
        InputError, match=r"results/one is being searched by process \d+ on \S+, heard of \d seconds ago"
    ):
        Lease(place, "results/one", patience=5.0)
    lease.close()
    assert living_lease_holder(place) is None
    Lease(place, "results/one").close()


def test_another_machine_is_believed_for_a_minute(place):
    write(place, elsewhere(time.time() - STALE_SECONDS + 5))
    with pytest.raises(InputError, match=r"process 4321 on other-host, heard of 5[56] seconds ago"):
        Lease(place, "results/one")
    write(place, elsewhere(time.time() - STALE_SECONDS - 1))
    Lease(place, "results/one", watch=0.1).close()


def test_a_process_that_was_killed_here_gives_the_study_free_at_once(place):
    code = (
        "import sys, time; from pathlib import Path; from hcpr_tune.search.storage.lease import Lease;"
        "from hcpr_tune.search.storage.object_store import FolderObjectStore;"
        " Lease(FolderObjectStore(Path(sys.argv[1])), 'x'); print('leads', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(place.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "leads\n"
    found = living_lease_holder(place)
    assert found is not None
    assert found.process == process.pid
    with pytest.raises(InputError, match=f"process {process.pid} "):
        Lease(place, "x")
    process.kill()
    process.communicate()
    assert living_lease_holder(place) is None
    Lease(place, "x").close()


def test_a_new_process_of_the_same_number_is_not_the_holder(place):
    own = LeaseHolder("here", 1, machine_id(), process_began(1) + "0", "abc", time.time())
    write(place, own)
    assert living_lease_holder(place) is None
    write(place, replace(own, began=process_began(1)))
    assert living_lease_holder(place) is not None


def test_who_was_taken_over_stops_and_leaves_the_file_alone(place):
    lease = Lease(place, "results/one", beat=0.05)
    lease.check()
    write(place, elsewhere(time.time()))
    deadline = time.monotonic() + 30
    while not lease._lost and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StorageError, match="results/one was taken over by process 4321 on other-host"):
        lease.check()
    lease.close()
    found = living_lease_holder(place)
    assert found is not None
    assert found.host == "other-host"


def test_who_slept_for_long_looks_before_it_writes(place, monkeypatch):
    lease = Lease(place, "results/one", beat=1000.0)
    write(place, elsewhere(time.time() + 100))
    lease.check()
    now = time.time()
    monkeypatch.setattr(lease_module.time, "time", lambda: now + STALE_SECONDS)
    with pytest.raises(StorageError, match="was taken over"):
        lease.check()
    lease.close()


def test_a_silent_holder_is_waited_for_until_it_is_stale(place):
    write(place, elsewhere(time.time() - STALE_SECONDS + 1.5))
    Lease(place, "results/one", patience=20.0, watch=0.1).close()


def test_the_heart_beats(place):
    lease = Lease(place, "results/one", beat=0.02)
    first = living_lease_holder(place)
    assert first is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = living_lease_holder(place)
        if now is not None and now.heartbeat > first.heartbeat:
            break
    else:
        pytest.fail("no second heartbeat")
    lease.close()


def test_a_holder_whose_clock_is_behind_is_seen_to_live(place):
    """Its heartbeats look stale here, but they come."""
    write(place, elsewhere(time.time() - 1000))
    beats = threading.Timer(0.3, lambda: write(place, elsewhere(time.time() - 999)))
    beats.start()
    with pytest.raises(InputError, match="process 4321 on other-host"):
        Lease(place, "results/one", watch=1.5)
    beats.join()


def test_a_dead_process_that_nobody_has_waited_for_is_dead(place):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    began = process_began(process.pid)
    write(place, LeaseHolder("here", process.pid, machine_id(), began, "abc", time.time()))
    while process_began(process.pid):
        time.sleep(0.01)
    assert living_lease_holder(place) is None
    process.wait()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"host": 3}', '"x"', "null"])
def test_a_file_that_makes_no_sense_holds_nothing(place, text):
    place.write(KEY, text.encode())
    assert living_lease_holder(place) is None
    Lease(place, "results/one").close()


def test_a_holder_of_a_later_version_is_one(place):
    later = asdict(elsewhere(time.time())) | {"more": 1}
    place.write(KEY, json.dumps(later).encode())
    with pytest.raises(InputError, match="on other-host"):
        Lease(place, "results/one")


@pytest.mark.parametrize("ahead", [30.0, 86400.0, 1e15])
def test_a_heartbeat_in_the_future_holds_nothing_unless_it_moves(place, monkeypatch, ahead):
    """The clock of a machine ran ahead, and the machine died."""
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.4)
    left = elsewhere(time.time() + ahead)
    write(place, left)
    assert living_lease_holder(place, watch=0.2) is None
    began = time.monotonic()
    Lease(place, "results/one", watch=0.2).close()
    assert 0.6 <= time.monotonic() - began < 10


def test_a_living_holder_whose_clock_is_ahead_is_seen_by_its_heartbeat(place):
    first = elsewhere(time.time() + 1000)
    write(place, first)
    beats = threading.Timer(0.3, lambda: write(place, replace(first, heartbeat=first.heartbeat + 1)))
    beats.start()
    found = living_lease_holder(place, watch=20.0)
    assert found is not None
    assert "whose clock is 100" in found.words(time.time())
    again = threading.Timer(0.3, lambda: write(place, replace(first, heartbeat=first.heartbeat + 2)))
    again.start()
    with pytest.raises(InputError, match="process 4321 on other-host, whose clock is"):
        Lease(place, "results/one")
    beats.join()
    again.join()


def test_a_clock_that_is_set_ahead_is_no_silence_of_ones_own(place, monkeypatch):
    lease = Lease(place, "results/one", beat=0.02)
    now = time.time()
    monkeypatch.setattr(lease_module.time, "time", lambda: now + 86400)
    lease.check()
    monkeypatch.setattr(lease_module.time, "time", lambda: now - 86400)
    lease.check()
    lease.close()
    assert read_lease_holder(place) is None


def test_who_may_only_seem_dead_is_watched_before_its_files_are_deleted(place):
    first = elsewhere(time.time() - 1000)
    write(place, first)
    assert living_lease_holder(place) is None
    beats = threading.Timer(0.3, lambda: write(place, replace(first, heartbeat=first.heartbeat + 1)))
    beats.start()
    assert living_lease_holder(place, sure=True, watch=20.0) is not None
    beats.join()


def test_a_storage_that_is_slow_for_a_moment_is_waited_for_and_one_that_stays_slow_is_refused(tmp_path, monkeypatch):
    written = []

    class Slow(FolderObjectStore):
        def write(self, key, data):
            super().write(key, data)
            written.append(key)
            time.sleep(0.2 if len(written) <= slow else 0.0)

    slow = 2
    Lease(Slow(tmp_path), "one").close()
    assert len(written) >= 3
    written.clear()
    slow = 10**6
    monkeypatch.setattr("hcpr_tune.search.storage.lease.SETTLE_TRIES", 3)
    with pytest.raises(InputError, match="too slow at the moment for a safe lease"):
        Lease(Slow(tmp_path), "one")
    assert read_lease_holder(FolderObjectStore(tmp_path)) is None
