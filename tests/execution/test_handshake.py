"""What is found out about a cluster before it is joined, from a real head: Ray's own program, without a node."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection import handshake
from hcpr_tune.execution.connection.handshake import mode_of
from hcpr_tune.execution.connection.tokens import own_mode, use_mode, usual_mode

TOKEN, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home without a token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Callable[[str], int]]:
    """Starts the head's own program with a token, or with none; returns its port."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "core/src/ray/gcs/gcs_server"
    started: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def start(token: str) -> int:
        if token not in started:
            port, folder = free_port(), tmp_path_factory.mktemp("head")
            mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
            options = {"log_dir": folder, "config_list": "e30=", "gcs_server_port": port, "metrics-agent-port": 0}
            options |= {"node-ip-address": "127.0.0.1", "session-name": "session_test", "ray-commit": "none"}
            options |= {"session-dir": folder, "node-id": "ab" * 28}
            process = subprocess.Popen(
                [str(program), *(f"--{name}={value}" for name, value in options.items())],
                env=os.environ | mode,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started[token] = process, port
            wait_for(port, process)
        return started[token][1]

    yield start
    for process, _ in started.values():
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        assert process.poll() is None, "the head did not start"
        assert time.monotonic() < until
        time.sleep(0.05)


def put(home: Path, token: str) -> Path:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{token}\n")
    return path


@pytest.mark.parametrize("mode", ["", "token", "disabled"])
def test_a_token_file_is_enough(head, home, monkeypatch, mode):
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    put(home, TOKEN)
    assert mode_of(f"127.0.0.1:{head(TOKEN)}") == "token"


def test_a_wrong_token_is_named_with_its_file(head, home):
    path = put(home, OTHER)
    with pytest.raises(InputError, match=rf"does not take the token in {path}; copy the ~/.ray/auth_token of its head"):
        mode_of(f"127.0.0.1:{head(TOKEN)}")


def test_a_wrong_token_in_the_environment_is_named_so(head, home, monkeypatch):
    put(home, TOKEN)
    monkeypatch.setenv("RAY_AUTH_TOKEN", OTHER)
    with pytest.raises(InputError, match="does not take the token in RAY_AUTH_TOKEN;"):
        mode_of(f"127.0.0.1:{head(TOKEN)}")


def test_without_a_token_one_is_asked_for(head, home):
    with pytest.raises(InputError, match=r"wants a token, and there is none here; copy its ~/.ray/auth_token"):
        mode_of(f"127.0.0.1:{head(TOKEN)}")


@pytest.mark.parametrize("mode", ["", "token"])
def test_an_open_cluster_on_this_machine_is_not_sent_the_token_that_another_has_left(head, home, monkeypatch, mode):
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    put(home, TOKEN)
    assert mode_of(f"127.0.0.1:{head('')}") == "disabled"


def test_an_open_cluster_that_others_reach_is_refused_whatever_lies_here(head, home, monkeypatch):
    put(home, TOKEN)
    monkeypatch.setattr(handshake, "is_loopback", lambda host: False)
    with pytest.raises(InputError, match=r"takes everyone without a token: .* start it with RAY_AUTH_MODE=token"):
        mode_of(f"127.0.0.1:{head('')}")


def answers(port: int, reply: bytes) -> None:
    """A server on the loopback that is no cluster; ends with the process of the tests."""
    server = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        kept = []
        while True:
            connection, _ = server.accept()
            if reply:
                connection.recv(1000)
                connection.sendall(reply)
                connection.close()
            else:
                kept.append(connection)

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.parametrize(
    ("reply", "words"),
    [(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "unavailable"), (b"", "no answer within")],
    ids=["web server", "silent"],
)
def test_what_is_no_head_is_told_at_once_and_gets_no_token(home, monkeypatch, reply, words):
    monkeypatch.setattr(handshake, "PATIENCE_SECONDS", 1.0)
    port = free_port()
    answers(port, reply)
    with pytest.raises(InputError, match=rf"what answers at 127.0.0.1:{port} is not the head .*\({words}"):
        mode_of(f"127.0.0.1:{port}")


def test_what_cannot_be_asked_gets_the_token_that_is_there(home, monkeypatch):
    assert (mode_of("ray://127.0.0.1:1"), usual_mode()) == ("disabled", "disabled")
    put(home, TOKEN)
    assert mode_of("ray://127.0.0.1:1") == "token"
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert mode_of("127.0.0.1:1") == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert mode_of("127.0.0.1:1") == "disabled"


def test_the_mode_ends_with_the_block_also_for_a_ray_that_was_imported_before(home, monkeypatch):
    from ray._raylet import AuthenticationMode, get_authentication_mode

    put(home, TOKEN)
    with own_mode():
        use_mode("disabled")
        assert get_authentication_mode() == AuthenticationMode.DISABLED
        use_mode("token")
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    assert "RAY_AUTH_MODE" not in os.environ
    assert get_authentication_mode() == AuthenticationMode.DISABLED
