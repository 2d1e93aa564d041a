"""The token of a cluster, and whether Ray uses it in this process: anyone who has it can run code on the cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hcpr_tune.errors import InputError
from hcpr_tune.execution.connection.host import restore

MODE = "RAY_AUTH_MODE"
TOKEN, DISABLED = "token", "disabled"
"""Values of `MODE`. If it is not set, Ray uses a token for clusters that it starts or finds itself, but not for one at
a given address.
"""


@contextmanager
def own_mode() -> Iterator[None]:
    """What `use_mode` and Ray change of `MODE` in the block ends with it."""
    before = os.environ.get(MODE)
    try:
        yield
    finally:
        if os.environ.get(MODE) != before:
            restore(MODE, before)
            _read_again()


def use_mode(mode: str) -> None:
    """Turn token authentication on (`TOKEN`) or off for this process; call it inside `own_mode`."""
    os.environ[MODE] = mode
    _read_again()


def usual_mode() -> str:
    """The mode for a server that is not asked for it: `MODE`, else `TOKEN` if there is one. Raises `InputError`."""
    return os.environ.get(MODE, "").lower() or (TOKEN if has_token() else DISABLED)


def _read_again() -> None:
    # Ray reads the mode when it is imported, and the token once.
    if "ray" in sys.modules:
        from ray import _raylet

        compiled: Any = _raylet
        compiled.Config.initialize("")
        compiled.AuthenticationTokenLoader.instance().reset_cache()


def ensure_token(folder: Path) -> Path | None:
    """Set up token authentication for the cluster that is started here, with a token only this user can read.

    If the home directory is not writable, the token goes into the private `folder` and its path is returned.
    Raises `InputError`.
    """
    if os.environ.get(MODE, TOKEN).lower() != TOKEN:
        # With this unset, Ray turns authentication on for clusters it starts, even if ray was imported earlier.
        del os.environ[MODE]
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
    """Whether there is a token. Raises `InputError` as `read_token`."""
    return read_token()[0] != ""


def read_token() -> tuple[str, str]:
    """The token, and where it was found; both empty if there is none.

    Raises `InputError` for an unusable file, on which Ray itself would crash.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token, "RAY_AUTH_TOKEN"
    path = token_path()
    if path is None:
        return "", ""
    try:
        if token := path.read_text(encoding="utf-8").strip():
            return token, str(path)
        fault = "is empty"
    except IsADirectoryError:
        fault = "is a folder"
    except UnicodeDecodeError:
        fault = "is not text"
    except (FileNotFoundError, NotADirectoryError):
        return "", ""
    except OSError as error:
        if not _seen(path):  # the home directory itself is not accessible
            return "", ""
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
