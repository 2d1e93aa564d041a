"""Which addresses may be joined. A process that poses as a cluster would receive its token, and the code."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from pathlib import Path

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.local_ray import MARK
from hcpr_tune.execution.connection.tokens import has_token

AUTO, LOCAL = "auto", "local"
CURRENT = "ray_current_cluster"
"""File in Ray's temporary folder with the address of the cluster that `ray start` last started on this machine."""
RAYLET = b"/raylet/raylet"


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
