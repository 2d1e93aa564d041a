"""A search whose nodes come and go: one is lost with its job, another joins, and nothing is lost or done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import Nodes
from tests.cluster.test_faults import epochs_in, follow
from tests.cluster.test_search import in_folder, record_of, table
from tests.conftest import ROOT, SLOW_SPACE

# `test_nodes` has a node that is lost, and `test_faults` a job that goes on, in much less time.
pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.long]

# Jobs that last longer than a worker's process needs to start: Ray Tune gives up one that starts as soon as another one
# is free.
SPACE = (
    SLOW_SPACE.replace("tests.slow:second", "tests.slow:seconds")
    .replace("epochs = 4", "epochs = 24")
    .replace("first_rung = 1", "first_rung = 12")
    .replace("trials = 4", "trials = 6")
)


def address_of(event: dict[str, Any]) -> str:
    """Of the node that an epoch was trained on."""
    return str(event["worker"].rpartition(":")[0])


def addresses_in(events: list[dict[str, Any]]) -> set[str]:
    return {address_of(event) for event in epochs_in(events)}


def at_work(events: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """By node address, the (trial, end) of each job that has trained an epoch and has two or more left."""
    ends: dict[int, int] = {}
    found: dict[int, str] = {}
    for event in events:
        if event["event"] == "job":
            ends[event["trial"]] = event["end"]
        elif event["event"] == "job_end":
            found.pop(event["trial"], None)
        elif event["event"] == "epoch":
            found.pop(event["trial"], None)
            if event["epoch"] <= ends[event["trial"]] - 2:
                found[event["trial"]] = address_of(event)
    return {address: (trial, ends[trial]) for trial, address in found.items()}


def capacities(events: list[dict[str, Any]]) -> list[int]:
    """How many trials at once, at the beginning and after each change."""
    return [event["workers"] for event in events if event["event"] in ("begin", "workers")]


def test_a_lost_node_s_job_goes_on_elsewhere_and_a_new_node_is_used(fault_round, tmp_path):
    unplug = fault_round % 2 == 1  # its cable first, so that nobody is told of its death
    with Nodes(workers=2, cpus=1) as nodes:
        if unplug and not nodes.apart:
            pytest.skip("only network namespaces can be unplugged")
        process = started(nodes, in_folder(tmp_path, SPACE) / "small.toml", tmp_path)
        record = tmp_path / "results" / "roaming" / "record.jsonl"
        workers = {nodes.ips[name]: name for name in ("worker1", "worker2")}

        def everywhere(events: list[dict[str, Any]]) -> bool:
            check_running(process, tmp_path)
            return addresses_in(events) == set(nodes.ips.values()) and bool(at_work(events).keys() & workers.keys())

        events = follow(record, everywhere)
        lost, (trial, end) = next(one for one in at_work(events).items() if one[0] in workers)
        nodes.kill(workers[lost], unplug=unplug)
        before = len(follow(record, lambda events: True))

        def noticed(events: list[dict[str, Any]]) -> bool:
            check_running(process, tmp_path)
            return 2 in capacities(events)

        follow(record, noticed)
        new = nodes.add("late")

        def used(events: list[dict[str, Any]]) -> bool:
            check_running(process, tmp_path)
            return new in addresses_in(events)

        follow(record, used)
        assert process.wait() == 0, said(tmp_path)

    events = record_of(tmp_path, "roaming")
    assert capacities(events) == [3, 2, 3]
    after = epochs_in(events[before:])
    # One report may have been on its way.
    assert sum(address_of(event) == lost for event in after) <= 1, "the lost node went on"
    assert any(event["trial"] == trial and event["epoch"] <= end and address_of(event) != lost for event in after)
    rows = table(tmp_path / "results" / "roaming" / "trials.csv")
    assert [row["trial"] for row in rows] == [str(number) for number in range(6)]
    assert {row["status"] for row in rows} <= {"completed", "stopped"}
    reached = [(e["trial"], e["end"]) for e in events if e["event"] == "job_end" and e["status"] == "reached"]
    assert len(set(reached)) == len(reached), "a finished job ran again"
    assert (trial, end) in reached
    epochs = [(event["trial"], event["epoch"]) for event in epochs_in(events)]
    assert len(epochs) - len(set(epochs)) <= 1, "more was trained again than the epoch that the node was lost in"


def started(nodes: Nodes, space: Path, folder: Path) -> subprocess.Popen[Any]:
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--space", str(space), "--address", nodes.address]
    with (folder / "search.log").open("w") as log:
        command += ["--name", "roaming", "--storage", str(folder / "results")]
        return nodes.run(command, cwd=folder, stdout=log, stderr=log)


def said(folder: Path) -> str:
    """What the search printed."""
    return (folder / "search.log").read_text()


def check_running(process: subprocess.Popen[Any], folder: Path) -> None:
    assert process.poll() is None, said(folder)
