"""A Ray cluster of several nodes on one machine: nodes join it, and are lost like a machine that loses power.

Where it may be done (root on Linux, with `ip`), each node is a network namespace with an address of its own. The bridge
between them lies in the head's namespace, so that no address, route or firewall of this machine is touched, and only
what runs in a namespace reaches the cluster. Elsewhere the nodes are addresses 127.0.0.N of the loopback. All nodes see
the same files, as with a shared file system, but Ray's folder and the temporary folder are each node's own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

IP = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
HEAD = "head"
JOINS_WITHIN = 90.0
"""Seconds until a node must be up: several Python processes on a machine that may be busy."""

# What is started dies with the process of the tests, even if that one is killed.
TIED = [tool, "--pdeathsig", "KILL"] if (tool := shutil.which("setpriv")) else []

# Ray's own values let half a minute pass until a lost node is noticed.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


class Network(Protocol):
    """Where the nodes are."""

    def join(self, name: str) -> str:
        """A new place; returns its address."""

    def inside(self, name: str) -> list[str]:
        """What stands before a command that is to run there."""

    def processes(self, name: str, roots: set[int]) -> set[int]:
        """Every process that runs there, by its id; `roots` are those that were started there."""

    def unplug(self, name: str) -> None:
        """From now on nothing reaches it and nothing leaves it."""

    def close(self) -> None:
        """Nothing of it is left."""


class Apart:
    """A network namespace for each node; the first one holds the bridge."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._names: list[str] = []

    def join(self, name: str) -> str:
        number = len(self._names) + 1
        address = f"10.77.0.{number}"
        _ip("netns", "add", self._full(name))
        self._names.append(name)
        self._in(name, "link", "set", "lo", "up")
        first = self._names[0]
        if name == first:
            self._in(name, "link", "add", "eth0", "type", "bridge")
        else:
            far = ("peer", "name", f"port{number}", "netns", self._full(first))
            self._in(name, "link", "add", "eth0", "type", "veth", *far)
            self._in(first, "link", "set", f"port{number}", "master", "eth0", "up")
        self._in(name, "addr", "add", f"{address}/24", "dev", "eth0")
        self._in(name, "link", "set", "eth0", "up")
        return address

    def inside(self, name: str) -> list[str]:
        return [str(IP), "netns", "exec", self._full(name)]

    def processes(self, name: str, roots: set[int]) -> set[int]:
        return _in_namespace(self._full(name))

    def unplug(self, name: str) -> None:
        self._in(name, "link", "set", "eth0", "down")

    def close(self) -> None:
        with contextlib.ExitStack() as rest:
            while self._names:
                rest.callback(_ip, "netns", "delete", self._full(self._names.pop()))

    def _full(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _in(self, name: str, *arguments: str) -> None:
        _ip("-n", self._full(name), *arguments)


class Together:
    """An address of the loopback for each node."""

    def __init__(self) -> None:
        self._count = 0

    def join(self, name: str) -> str:
        self._count += 1
        return f"127.0.0.{self._count + 1}"  # Ray takes 127.0.0.1 for a word for "here"

    def inside(self, name: str) -> list[str]:
        return []

    def processes(self, name: str, roots: set[int]) -> set[int]:
        return _descendants(roots)

    def unplug(self, name: str) -> None:
        raise AssertionError("the loopback has no plug; ask `apart` before")

    def close(self) -> None:
        pass


class Nodes:
    """A head and `workers` workers named worker1, worker2, ..., `cpus` CPUs each; `with Nodes() as nodes:` ends all.

    `address` is that of the cluster, `environment` what a driver's process needs, `ips` the address of each node,
    `apart` whether they are namespaces (an argument says which it must be; without it, namespaces where they can be
    had).
    """

    def __init__(self, workers: int = 2, cpus: int = 1, dashboard: bool = False, apart: bool | None = None) -> None:
        sweep()
        self.apart = can_be_apart() if apart is None else apart
        self.ips: dict[str, str] = {}
        self.dashboard = ""
        self._started: dict[str, list[subprocess.Popen[Any]]] = {}
        # Not a test's own folder: Ray makes sockets below, whose paths may not be longer than 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix=f"hcpr-{os.getpid()}-"))
        self._network: Network = Apart(self._folder.name) if self.apart else Together()
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = ours | token | HEALTH
        try:
            self.address = self._lease(cpus, dashboard)
            names = [f"worker{number}" for number in range(1, workers + 1)]
            for name in names:
                self._follow(name, cpus)
            for name in names:
                self._wait(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: list[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a driver's process on the head. Its id is that of the command itself; it is ended with the head."""
        return self._start(HEAD, command, **popen)

    def add(self, name: str, cpus: int = 1) -> str:
        """A node joins; returns its address."""
        self._follow(name, cpus)
        self._wait(name)
        return self.ips[name]

    def kill(self, name: str, unplug: bool = False) -> None:
        """The node is gone at once with all processes; with `unplug` the others do not see its connections close."""
        if unplug:
            self.unplug(name)
        self._end(name)

    def unplug(self, name: str) -> None:
        """The node goes on, cut off from all others; only where nodes are `apart`."""
        self._network.unplug(name)

    def processes(self, name: str) -> set[int]:
        """The ids of all living processes of a node."""
        started = self._started[name]
        # One that is on its way into its namespace is not found there yet.
        alive = {process.pid for process in started if process.poll() is None}
        return alive | self._network.processes(name, {process.pid for process in started})

    def close(self) -> None:
        """Every process ended, every namespace and folder deleted, whatever went wrong with the one before."""
        with contextlib.ExitStack() as rest:
            rest.callback(shutil.rmtree, self._folder, ignore_errors=True)
            rest.callback(self._network.close)
            for name in self._started:
                rest.callback(self._end, name)

    def _lease(self, cpus: int, dashboard: bool) -> str:
        self.ips[HEAD] = address = self._network.join(HEAD)
        port = 6379 if self.apart else _free_port(address)
        options = ["--head", f"--port={port}", f"--include-dashboard={str(dashboard).lower()}"]
        if not self.apart:
            options.append(f"--ray-client-server-port={_free_port(address)}")
        if dashboard:
            at = 8265 if self.apart else _free_port(address)
            options += [f"--dashboard-host={address}", f"--dashboard-port={at}"]
            self.dashboard = f"http://{address}:{at}"
        self._ray(HEAD, cpus, *options)
        self._wait(HEAD)
        return f"{address}:{port}"

    def _follow(self, name: str, cpus: int) -> None:
        self.ips[name] = self._network.join(name)
        self._ray(name, cpus, f"--address={self.address}")

    def _ray(self, name: str, cpus: int, *options: str) -> None:
        (self._folder / name / "tmp").mkdir(parents=True)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        command += [f"--node-ip-address={self.ips[name]}", f"--node-name={name}", f"--num-cpus={cpus}", "--num-gpus=0"]
        command += [f"--temp-dir={self._folder / name}", f"--object-store-memory={128 * 1024**2}"]
        # Ports that are free: nodes on one loopback would deal out the same range.
        command += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"]
        environment = self.environment | {"TMPDIR": str(self._folder / name / "tmp")}
        with self._log(name).open("w") as log:
            self._start(name, command, env=environment, cwd=self._folder, stdout=log, stderr=log)

    def _start(self, name: str, command: list[str], **popen: Any) -> subprocess.Popen[Any]:
        options: dict[str, Any] = {"env": self.environment, "start_new_session": True} | popen
        process: subprocess.Popen[Any] = subprocess.Popen([*TIED, *self._network.inside(name), *command], **options)
        self._started.setdefault(name, []).append(process)
        return process

    def _wait(self, name: str) -> None:
        until = time.monotonic() + JOINS_WITHIN
        while "Ray runtime started" not in self._log(name).read_text():
            if self._started[name][0].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the node {name} did not start: {self._log(name).read_text()}")
            time.sleep(0.1)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _end(self, name: str) -> None:
        _end_all(lambda: self.processes(name))
        while self._started[name]:  # their ids are free from now on, and mean nothing any more
            process = self._started[name].pop()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def can_be_apart() -> bool:
    """Whether this process may make network namespaces."""
    if IP is None or os.geteuid() != 0:
        return False
    name = f"hcpr-{os.getpid()}-{secrets.token_hex(4)}-try"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "eth0", "type", "bridge")
            _ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
            subprocess.run([str(IP), "netns", "exec", name, "true"], check=True, capture_output=True)
        finally:
            _ip("netns", "delete", name)
        return True
    return False


def _ip(*arguments: str) -> str:
    done = subprocess.run([str(IP), *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        done.stderr = f"{' '.join(arguments)}: {done.stderr}"
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout


def _free_port(address: str) -> int:
    with socket.socket() as free:
        free.bind((address, 0))
        port: int = free.getsockname()[1]
        return port


def _end_all(processes: Callable[[], set[int]]) -> None:
    """Kill until there are none: one may have started another in the meantime."""
    until = time.monotonic() + 30
    while alive := processes():
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > until:
            raise TimeoutError(f"processes that do not end: {sorted(alive)}")
        time.sleep(0.02)


def _ids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _in_namespace(full_name: str) -> set[int]:
    """Whoever lives in a network namespace; the dead have none."""
    with contextlib.suppress(FileNotFoundError):
        wanted = os.stat(f"/run/netns/{full_name}").st_ino  # noqa: PTH116
        found = set()
        for process in _ids():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process}/ns/net").st_ino == wanted:  # noqa: PTH116
                    found.add(process)
        return found
    return set()


def _in_folder(folder: Path) -> set[int]:
    """Whose working directory lies there. Ray's processes keep the one that they were started in."""
    found = set()
    for process in _ids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/cwd").readlink().is_relative_to(folder):
                found.add(process)
    return found


def _descendants(roots: set[int]) -> set[int]:
    """Living processes that `roots` started, and they themselves, by their parents and their sessions."""
    parents, sessions, dead = {}, {}, set()
    for process in _ids():
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything.
            state, parent, _, session = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:4]
            parents[process], sessions[process] = int(parent), int(session)
            if state in "ZX":
                dead.add(process)
    found = {process for process in parents if process in roots or sessions[process] in roots}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found - dead


def sweep() -> None:
    """Delete what a run that was killed left behind: its id is in the names, and it lives no more."""
    places = [*Path("/run/netns").glob("hcpr-*"), *Path(tempfile.gettempdir()).glob("hcpr-*")]
    for place in places:
        owner = re.match(r"hcpr-(\d+)-", place.name)
        if owner is None or Path(f"/proc/{owner[1]}").exists():
            continue
        if place.parent.name == "netns":
            _end_all(functools.partial(_in_namespace, place.name))
            with contextlib.suppress(subprocess.CalledProcessError):  # another run sweeps too
                _ip("netns", "delete", place.name)
        else:
            _end_all(functools.partial(_in_folder, place))
            shutil.rmtree(place, ignore_errors=True)
