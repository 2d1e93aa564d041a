"""Who may be joined, what a cluster holds, and which code it is given."""

from __future__ import annotations

import socket
import stat
import sys
from dataclasses import replace

import pytest

from hcpr_tune.errors import ClusterLost, InputError
from hcpr_tune.execution.connection import cluster
from hcpr_tune.execution.connection.access import checked_address, is_loopback
from hcpr_tune.execution.connection.capacity import SILENT_SECONDS, Capacity, Head, Share
from hcpr_tune.execution.connection.cluster import Cluster, allot, connected, shipped
from hcpr_tune.execution.connection.tokens import ensure_token
from hcpr_tune.search.spec.settings import Resources


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without a token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "gpu-head:6379", "ray://10.0.0.7:10001", "0.0.0.0:6379"])
def test_a_cluster_elsewhere_is_not_joined_without_a_token(home, address):
    with pytest.raises(InputError, match=r"is outside this machine and there is no token: .* RAY_AUTH_TOKEN"):
        checked_address(address)


def test_with_a_token_it_is_asked(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(InputError, match="no Ray cluster answers at"):
        checked_address("0.0.0.0:9")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 64)
    with pytest.raises(InputError, match="no Ray cluster answers at"):
        checked_address("0.0.0.0:9")


def test_a_machine_that_is_no_node_is_told_how_to_become_one(monkeypatch):
    # Ray itself looks for a minute, and then says that the cluster could not be reached.
    import ray

    def refuse(**_):
        raise ConnectionError("Failed to connect to Ray cluster at head1:6379") from RuntimeError(
            "No node info found matching attributes: '' when trying to resolve node to connect to."
        )

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(cluster, "checked_address", lambda address: address)
    monkeypatch.setattr(cluster, "mode_of", lambda address: "token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    words = r"--address head1:6379: this machine is no node of that cluster, .* launch/cluster/worker.sh head1:6379"
    with pytest.raises(InputError, match=words), connected("head1:6379"):
        pass


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example", "::")))


def test_a_cluster_of_ours_has_a_token_that_others_cannot_read(home, monkeypatch):
    ensure_token(home)
    token = home / ".ray" / "auth_token"
    text = token.read_text()
    assert len(text) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    token.chmod(0o644)
    ensure_token(home)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == text
    import os

    assert "RAY_AUTH_MODE" not in os.environ  # which Ray takes for `token`; tests/cluster asks a dashboard


NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}, {"CPU": 3.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("cpus", "gpus", "fitting"),
    [(1, 0, 75), (2, 0, 37), (1, 1, 5), (4, 1, 2), (1, 2, 3), (0.5, 0.25, 14), (0.5, 0.6, 6), (16, 1, 0), (1, 8, 0)],
)
def test_a_trial_lies_on_one_node_and_a_share_on_one_gpu(cpus, gpus, fitting):
    assert Share(0, cpus, gpus).fitting(NODES) == fitting


def test_capacity_follows_the_nodes_up_to_the_limit():
    now, nodes = [0.0], [{"CPU": 2.0}]
    capacity = Capacity(Share(2, 1.0, 0.0), 3, lambda: nodes, lambda: now[0])
    assert capacity.now() == 2
    nodes.append({"CPU": 4.0})
    assert capacity.now() == 2
    now[0] = 1.5
    assert capacity.now() == 3
    nodes.clear()
    now[0] = 3.0
    assert capacity.now() == 0


def test_looking_at_many_nodes_takes_a_twentieth_of_the_time_at_most():
    now, looks = [0.0], []

    def slowly():
        looks.append(now[0])
        now[0] += 0.5
        return [{"CPU": 2.0}] * 1000

    capacity = Capacity(Share(2, 1.0, 0.0), 0, slowly, lambda: now[0])
    while now[0] < 100.0:
        assert capacity.now() == 2000
        now[0] += 0.1
    assert 0.5 * len(looks) <= 0.05 * now[0] + 0.5
    assert len(looks) >= 8


def test_what_is_waited_for_is_told_every_minute():
    now, nodes, told = [0.0], [{"CPU": 2.0}], []
    capacity = Capacity(Share(2, 1.0, 0.0), 0, lambda: nodes, lambda: now[0], told.append)
    for second in range(400):
        now[0] = float(second)
        nodes[:] = [] if 50 <= second < 300 else [{"CPU": 2.0}]
        capacity.now()
    assert len(told) == 4
    assert told[1].startswith(
        "waiting for 2 min: no node has room for a trial (1 CPUs, 0 GPUs); it continues as soon as one joins"
    )


def test_a_head_that_is_gone_ends_the_search_before_ray_ends_the_process():
    now = [0.0]
    head = Head(lambda: now[0])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert head.answers(address)
    assert not head.answers(address)
    now[0] = SILENT_SECONDS - 1
    assert not head.answers(address)
    now[0] = SILENT_SECONDS
    with pytest.raises(ClusterLost, match=rf"the head of the Ray cluster at {address} has not answered for 40 seconds"):
        head.answers(address)
    assert SILENT_SECONDS < 60


@pytest.mark.parametrize(
    "raised",
    [
        Exception("The current node timed out during startup."),
        RuntimeError("no"),
        KeyError("node"),
        ConnectionError("late"),
    ],
)
def test_a_ray_that_does_not_start_is_started_once_more_whatever_it_says(raised, tmp_path, monkeypatch):
    tried: list[str] = []

    def init(**options: object) -> str:
        tried.append(str(options["_temp_dir"]))
        if len(tried) == 1:
            raise raised
        return "context"

    import ray

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "init", init)
    assert cluster._started(tmp_path, "none", {}) == "context"
    assert tried == [str(tmp_path / "r")] * 2


def test_a_ray_that_never_starts_is_one_line_and_no_missing_cluster(tmp_path, monkeypatch):
    import ray

    def init(**options: object) -> None:
        raise ValueError("the object store\nis too large")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match="Ray could not be started on this machine: the object store is too large; "):
        cluster._started(tmp_path, "none", {})


def test_the_first_node_is_waited_for():
    found = iter([[], [], [{"CPU": 2.0}]])
    share = allot(Resources(), Cluster("", []), "here", patience=60.0, nodes=lambda: next(found))
    assert share == Share(2, 1.0, 0.0)
    with pytest.raises(InputError, match=r"must be at most the 0 CPUs that the largest node has, got 1; .* or --wait"):
        allot(Resources(), Cluster("", []), "here")


def test_cpus_and_gpus_must_be_on_one_node():
    with pytest.raises(InputError, match="no node has 16 CPUs and 1 GPUs at once"):
        allot(Resources(cpus_per_trial=16.0, gpus_per_trial=1.0), Cluster("", NODES), "here")
    assert allot(replace(Resources(), workers=2), Cluster("", NODES), "here") == Share(2, 1.0, 1.0)


def test_own_code_is_shipped_and_installed_code_is_not(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def loss(): ...\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = shipped(["mine:loss", "package.inner:model", "torch.nn:Linear", "hcpr", "small_cnn"])["py_modules"]
    own = {str(tmp_path / "mine.py"), str(tmp_path / "package")}
    assert own < set(modules)
    (package,) = set(modules) - own
    assert package.endswith("hcpr_tune")
    assert "mine" not in sys.modules
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert shipped(["mine:loss"]) == {}
