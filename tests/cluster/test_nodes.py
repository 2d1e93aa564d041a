"""The cluster of which other tests lose nodes: its nodes are nodes, a lost one is lost, and nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.nodes import Apart, Nodes, can_be_apart, sweep
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster

# Answers to lines: `alive` with the names of the nodes, `ask` with what an actor on each of them says of its place.
DRIVER = """
import json, logging, os, sys, tempfile
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

@ray.remote(num_cpus=1)
class Here:
    def place(self):
        return ray.util.get_node_ip_address(), os.getpid(), tempfile.gettempdir()

ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
actors = {}
for line in sys.stdin:
    alive = {node["NodeName"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    if line == "alive\\n":
        print(json.dumps(sorted(alive)), flush=True)
        continue
    for actor in actors.values():
        ray.kill(actor)
    on = {name: NodeAffinitySchedulingStrategy(node, soft=False) for name, node in alive.items()}
    actors = {name: Here.options(scheduling_strategy=strategy).remote() for name, strategy in on.items()}
    print(json.dumps({name: ray.get(actor.place.remote()) for name, actor in actors.items()}), flush=True)
"""


class Driver:
    """Ray as a process on the head sees it."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self._nodes = nodes
        self._errors = folder / "driver.log"
        command = [sys.executable, "-c", DRIVER, nodes.address]
        with self._errors.open("w") as errors:
            pipe = subprocess.PIPE
            self._process = nodes.run(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)

    def alive(self) -> set[str]:
        return set(self._say("alive"))

    def check_places(self, names: set[str]) -> None:
        """An actor on each node says that it is there, and it is a process of that node."""
        places = self._say("ask")
        assert places.keys() == names
        for name, (address, process, _) in places.items():
            assert address == self._nodes.ips[name]
            assert process in self._nodes.processes(name)
        for position in (0, 2):
            assert len({place[position] for place in places.values()}) == len(names)

    def wait_for(self, names: set[str]) -> None:
        while self.alive() != names:
            time.sleep(0.2)

    def _say(self, line: str):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        while answer := self._process.stdout.readline():
            if answer[0] in "[{":  # Ray prints too
                return json.loads(answer)
        pytest.fail(f"the driver ended: {self._errors.read_text()}")


def running(process: int) -> bool:
    """Whether it lives; one that is dead and was not taken notice of yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("apart", [None, pytest.param(False, marks=pytest.mark.long)], ids=["as can be", "loopback"])
def test_nodes_join_are_used_and_are_lost(apart, tmp_path):
    with Nodes(workers=2, cpus=1, apart=apart) as nodes:
        names = {"head", "worker1", "worker2"}
        assert nodes.ips.keys() == names
        driver = Driver(nodes, tmp_path)
        assert driver.alive() == names
        driver.check_places(names)
        lost = nodes.processes("worker1")
        assert len(lost) > 2
        nodes.kill("worker1")
        assert not any(map(running, lost))
        driver.wait_for({"head", "worker2"})
        nodes.add("late")
        driver.wait_for({"head", "worker2", "late"})
        driver.check_places({"head", "worker2", "late"})
        processes = set.union(*(nodes.processes(name) for name in ("head", "worker2", "late")))
    assert not any(map(running, processes))
    assert not list(Path("/run/netns").glob(f"hcpr-{os.getpid()}-*"))


@pytest.mark.long
def test_a_node_whose_cable_is_pulled_is_noticed_too(tmp_path):
    if not can_be_apart():
        pytest.skip("network namespaces need root and `ip`")
    with Nodes(workers=1) as nodes:
        driver = Driver(nodes, tmp_path)
        nodes.kill("worker1", unplug=True)
        driver.wait_for({"head"})


def test_nothing_is_left_of_a_cluster_that_does_not_start():
    with pytest.raises(RuntimeError, match="the node head did not start"):
        Nodes(cpus=-1)
    assert not list(Path("/run/netns").glob(f"hcpr-{os.getpid()}-*"))


def test_what_a_killed_run_left_behind_is_deleted():
    if not can_be_apart():
        pytest.skip("network namespaces need root and `ip`")
    command = [sys.executable, "-m", "tests.cluster.test_nodes"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    left, process = killed.stdout.split()
    assert Path("/run/netns", left).exists()
    assert running(int(process))
    sweep()
    assert not Path("/run/netns", left).exists()
    assert not running(int(process))


if __name__ == "__main__":  # a run that ends without tidying up
    network = Apart(f"hcpr-{os.getpid()}-left")
    network.join("head")
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sleeper = subprocess.Popen([*network.inside("head"), "sleep", "600"], **silent)
    while sleeper.pid not in network.processes("head", set()):
        time.sleep(0.01)
    os.write(1, f"hcpr-{os.getpid()}-left-head {sleeper.pid}\n".encode())
    os._exit(0)
