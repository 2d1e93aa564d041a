"""Which address `auto` means, which token is one, and what is told where neither will do."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection import access
from hcpr_tune.execution.connection.access import checked_address
from hcpr_tune.execution.connection.tokens import ensure_token, has_token


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without a token, and a folder where Ray would write its latest address."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp" / "ray").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def current(home: Path, address: str, mode: int = 0o644) -> Path:
    path = home / "tmp" / "ray" / "ray_current_cluster"
    path.write_text(address)
    path.chmod(mode)
    return path


def test_auto_is_the_cluster_that_this_user_started_last(home, port):
    current(home, f"127.0.0.1:{port}")
    assert checked_address("auto") == f"127.0.0.1:{port}"


def test_auto_is_the_address_of_the_environment_first(home, port, monkeypatch):
    current(home, "127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    assert checked_address("auto") == f"127.0.0.1:{port}"


def test_an_address_that_others_could_write_is_refused(home, port, monkeypatch):
    current(home, f"127.0.0.1:{port}", 0o666)
    with pytest.raises(
        InputError, match=r"--address auto: .* may have been written by other users, .*: --address HOST:PORT"
    ):
        checked_address("auto")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_an_address_file_of_another_user_is_refused(home, port):
    os.chown(current(home, f"127.0.0.1:{port}"), 12345, 12345)
    with pytest.raises(InputError, match="is another user's, who would get this cluster's token"):
        checked_address("auto")


def test_auto_obeys_the_law_for_addresses(home):
    current(home, "10.0.0.7:6379")
    with pytest.raises(
        InputError, match=r"--address auto \(10.0.0.7:6379\) is outside this machine and there is no token"
    ):
        checked_address("auto")


def test_a_link_is_not_followed_and_without_a_cluster_auto_says_so(home, monkeypatch):
    (home / "tmp" / "ray" / "ray_current_cluster").symlink_to(home / "elsewhere")
    (home / "elsewhere").write_text("127.0.0.1:9")
    monkeypatch.setattr(access, "RAYLET", b"/no/such/program")
    with pytest.raises(InputError, match="no Ray cluster of yours runs on this machine; name one by --address"):
        checked_address("auto")


@pytest.mark.parametrize(
    "address", ["host", "host:", ":6379", "host:port", "host:0", "host:65536", "host:²", "host:" + "9" * 5000]
)
def test_what_is_no_address_is_one_line(home, address):
    with pytest.raises(InputError, match="must be HOST:PORT or auto"):
        checked_address(address)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not text"),
    ],
)
def test_a_token_file_that_holds_none_is_named(home, make, fault):
    (home / ".ray").mkdir()
    make(home / ".ray" / "auth_token")
    for asked in (has_token, lambda: ensure_token(home)):
        with pytest.raises(InputError, match=rf"the token file .*auth_token {fault}; delete it"):
            asked()


@pytest.mark.parametrize("where", ["/dev/null", "/proc/nowhere"])
def test_a_home_that_takes_no_token_gets_one_for_this_ray_alone(home, where, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", where)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    path = ensure_token(tmp_path)
    assert path == tmp_path / "token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.environ["RAY_AUTH_TOKEN"] == path.read_text()
    assert ensure_token(tmp_path) is None, "the next one in this process takes the same"


def test_a_user_without_a_home_is_no_error(home, monkeypatch, tmp_path):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    assert not has_token()
    assert ensure_token(tmp_path) == tmp_path / "token"
