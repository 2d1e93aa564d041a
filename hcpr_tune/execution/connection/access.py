"""Which addresses may be joined, and with which token.

Anyone who has the token can run code on the cluster, and a process that poses as the cluster receives the token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import socket
import stat
from pathlib import Path

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.local_ray import MARK

AUTO, LOCAL = "auto", "local"
CURRENT = "ray_current_cluster"
"""File in Ray's temporary folder with the address of the cluster that `ray start` last started on this machine."""
RAYLET = b"/raylet/raylet"


def ensure_token(folder: Path) -> Path | None:
    """Set up token authentication for the cluster that is started here, with a token only this user can read.

    If the home directory is not writable, the token goes into the private `folder` and its path is returned.
    Raises `InputError`.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        # With this unset, Ray turns authentication on for clusters it starts, even if ray was imported earlier.
        del os.environ["RAY_AUTH_MODE"]
    if has_token():
        path = token_path()
        if "RAY_AUTH_TOKEN" not in os.environ and path is not None:
            _only_mine(path)
        return None
    path, text = token_path(), secrets.token_hex(32)
    try:
        if path is None:
            raise FileNotFoundError
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        _write(draft, text)
    except OSError:
        # No home directory, or it is read-only. Ray reads the token once per process, so later clusters reuse it.
        os.environ["RAY_AUTH_TOKEN"] = text
        _write(folder / "token", text)
        return folder / "token"
    # Linking is atomic: if several searches start at the same time, exactly one of them creates the file.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
    return None


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _only_mine(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)


def token_path() -> Path | None:
    """Where Ray looks for a token that is not in the environment; None if the user has no home directory."""
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH", ""):
        return Path(named)
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None


def has_token() -> bool:
    """Whether there is a token. Raises `InputError` for an unusable one, on which Ray itself would crash."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = token_path()
    if path is None:
        return False
    try:
        if path.read_text(encoding="utf-8").strip():
            return True
        fault = "is empty"
    except IsADirectoryError:
        fault = "is a folder"
    except UnicodeDecodeError:
        fault = "is not text"
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if not _seen(path):  # the home directory itself is not accessible
            return False
        fault = f"cannot be read: {error.strerror}"
    raise InputError(
        f"the token file {path} {fault}; delete it (a search on this machine alone creates a new one), or copy the"
        " cluster's token there (`ray get-auth-token` prints it)"
    )


def _seen(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def checked_address(address: str) -> str:
    """The address to join, with `auto` resolved.

    Raises `InputError` if nothing answers there, if it is outside this machine and there is no token, and if another
    user of this machine may have written it.
    """
    named = "--address auto" if address == AUTO else f"--address {address}"
    if address == AUTO:
        address = _current_address()
        named += f" ({address})"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise InputError(
            f"--address must be HOST:PORT or auto, got {address}; `ray start --head` prints the address of a cluster"
        )
    if not is_loopback(host) and not has_token():
        raise InputError(
            f"{named} is outside this machine and there is no token: anyone who reaches an open cluster can run code on"
            " it; start the cluster with RAY_AUTH_MODE=token, and put its token (`ray get-auth-token` there) into"
            " RAY_AUTH_TOKEN or ~/.ray/auth_token here"
        )
    # Try a plain connection first: Ray itself would retry for minutes and print while doing so.
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"no Ray cluster answers at {named}: {error}; start one with `ray start --head`, or drop --address"
        ) from None
    return address


def _current_address() -> str:
    """What `auto` means: RAY_ADDRESS, as set in a cluster's jobs, else the cluster last started on this machine.

    That cluster must have been started by this user or by root. Raises `InputError`.
    """
    if (named := os.environ.get("RAY_ADDRESS", "")) not in ("", AUTO, LOCAL):
        return named
    path = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / CURRENT  # where Ray looks
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return _running_address()
    with os.fdopen(file, "rb") as lines:
        status, text = os.fstat(file), lines.read(300).decode("utf-8", "replace").strip()
    if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
        whose = "may have been written by other users" if status.st_uid in (0, os.getuid()) else "is another user's"
        raise InputError(
            f"--address auto: {path} {whose}, who would get this cluster's token and code; name the cluster that you"
            " mean: --address HOST:PORT"
        )
    return text


def _running_address() -> str:
    """The one cluster of this user that has a node on this machine; Rays that searches started do not count.

    Raises `InputError` if there is none, or more than one.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.getuid():
                continue
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(RAYLET) and f"\0{MARK}=".encode() not in b"\0" + (process / "environ").read_bytes():
                found |= {word.partition(b"=")[2].decode() for word in words if word.startswith(b"--gcs-address=")}
    if len(found) == 1:
        return found.pop()
    many = f"several Ray clusters of yours run on this machine ({', '.join(sorted(found))})"
    raise InputError(
        f"--address auto: {many if found else 'no Ray cluster of yours runs on this machine'}; name one by"
        " --address HOST:PORT, or drop --address"
    )


def is_loopback(host: str) -> bool:
    """Whether the host is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
