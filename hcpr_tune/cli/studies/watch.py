"""`hcpr_tune watch`: the live page of studies in a browser."""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hcpr_tune.cli.arguments import add_named, add_storage, whole_number
from hcpr_tune.cli.completers import studies
from hcpr_tune.cli.exit_codes import COMPLETED
from hcpr_tune.common.output import say

if TYPE_CHECKING:
    from hcpr_tune.web.server import Server

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    watch = commands.add_parser(
        "watch",
        description="Serve a live page about a study, or all of a storage, running or not. It ends with Ctrl-C.",
    )
    add_named(watch, "name", studies, "the study to open first, by name or path (default: a list of all)", nargs="?")
    add_storage(watch)
    watch.add_argument(
        "--host", default="127.0.0.1", metavar="IP", help="where it listens (default: 127.0.0.1, this machine alone)"
    )
    watch.add_argument(
        "--port",
        type=whole_number,
        default=8501,
        metavar="N",
        help="its port; the next free one if that is in use, any free one with 0 (default: 8501)",
    )
    watch.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)  # for `tune --watch`


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from hcpr_tune.errors import InputError

    if options.port > 65535:
        raise InputError(f"--port must be at most 65535, got {options.port}; choose another")
    from hcpr_tune.search.storage.names import located
    from hcpr_tune.web.server import Server

    storage, name = (options.storage, None) if options.name is None else located(options.name, options.storage)
    server = Server(storage, name, options.host, options.port)
    if options.port not in (0, server.port):
        say(f"port {options.port} is in use; the page is at port {server.port}")
    if options.host not in LOOPBACK:
        say("it is served without encryption: whoever can read the network can read the token")
        say("on another machine, the URL has this one's name instead of the address")
    say(f"live page    {server.url}")
    say("Ctrl-C ends the page; a search that it shows continues")
    if options.until_stdin_closes:
        threading.Thread(target=stop_with_stdin, args=(server,), daemon=True).start()
    with suppress(KeyboardInterrupt):  # the usual end
        server.serve()
    return COMPLETED


def stop_with_stdin(server: Server) -> None:
    """End the page once the process at the other end of standard input has ended."""
    while sys.stdin.read(1):
        pass
    server.stop()
