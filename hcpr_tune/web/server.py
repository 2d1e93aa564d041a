"""Serves the live page: port, token, start and end."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import uvicorn

from hcpr_tune.common.settings import show
from hcpr_tune.errors import InputError
from hcpr_tune.web.app import LivePage

TOKEN = "HCPR_TUNE_WATCH_TOKEN"
"""The environment variable with the token, for a page that keeps its URL."""
PORT, PORTS_TRIED = 8501, 50
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""Addresses that mean all of a machine's, and one of them for its own browser."""
LEAST_TOKEN = 16
"""Fewest characters of a token that somebody chose."""


class Server:
    """The page at a free port. `url` has the token; `serve` runs until the process is interrupted or stopped."""

    def __init__(self, storage: str, name: str | None, host: str = "127.0.0.1", port: int = PORT) -> None:
        """Raises `InputError` if there is no such study or storage, or no port can be had."""
        page = LivePage(storage, token := token_of_environment())
        if name is not None:
            page.studies.get(name)  # read before the address is told, so that the page opens at once
        self.wanted, self._socket = port, listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        shown = EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
        path = "" if name is None else f"studies/{quote(name)}"
        self.url = f"http://{shown}:{self.port}/{path}?token={quote(token)}"
        config = uvicorn.Config(
            page.app(),
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    def serve(self) -> None:
        """Answer until the process gets SIGINT or SIGTERM."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Answer in a thread of this process, as a notebook and tests need it."""
        thread = threading.Thread(target=self.serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Let `serve` return."""
        self._server.should_exit = True


def token_of_environment() -> str:
    """The token of the environment, else a fresh one. Raises `InputError` for one that is easily guessed."""
    token = os.environ.get(TOKEN, "")
    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise InputError(
            f"{TOKEN} must have at least {LEAST_TOKEN} printable ASCII characters, got {len(token)}; unset it for a"
            " random one"
        )
    return token or secrets.token_urlsafe(24)


def listening(host: str, port: int) -> socket.socket:
    """A socket at the port, or at the next free one. Raises `InputError`."""
    for number in range(port, min(port + PORTS_TRIED, 65536)) if port else [0]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, number), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f"--host {show(host)} --port {number} cannot be used: {error.strerror or error}; choose others"
                ) from None
    raise InputError(f"--port {port}: this port and the {PORTS_TRIED} after it are in use; choose another")
