"""A real S3 server on the loopback, in a process of its own, that a test can take away and bring back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import IO

import pytest

SECRET = "recognisable-secret-9f3a71"

# Answers to lines: `stop` closes the port, `start` opens it again. The objects live in the process and outlast both, as
# they would with a real store. HTTP/1.0: a connection that is kept open would be served behind the closed port. End of
# input is the end.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
from moto.moto_server.werkzeug_app import MotoRequestHandler
MotoRequestHandler.protocol_version = "HTTP/1.0"
server, port = None, 0
for line in sys.stdin:
    if line == "stop\\n":
        server.stop()
    else:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        port = server.get_host_and_port()[1]
    print(port, flush=True)
"""


class S3Server:
    """`url` is the endpoint, `environment` what a process needs to use it. Sets nothing outside itself."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self._say('start')}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.url,
        }
        self.start()

    def new_bucket(self) -> str:
        """Create a bucket and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT", headers={"Authorization": _SIGNED})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
        return name

    def keys(self, bucket: str) -> str:
        """The raw listing (XML), with what a client may hide: folder markers."""
        request = urllib.request.Request(f"{self.url}/{bucket}?list-type=2", headers={"Authorization": _SIGNED})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def stop(self) -> None:
        """Refuse connections. What was stored is kept."""
        if self._serving:
            self._say("stop")
            self._serving = False

    def start(self) -> None:
        """Answer again, at the same port. Returns when it does."""
        if not self._serving:
            self._say("start")
            self._serving = True
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.05)

    def pause(self) -> None:
        """Take connections and say nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        self.resume()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _there(pipe).close()

    _serving = True

    def _say(self, line: str) -> int:
        _there(self._process.stdin).write(f"{line}\n")
        _there(self._process.stdin).flush()
        answer = _there(self._process.stdout).readline()
        assert answer, "the S3 server did not start"
        return int(answer)


# moto tells the account from it and checks no signature.
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIATESTTESTTEST/20240101/us-east-1/s3/aws4_request"


def _there(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for all tests of a process. Whoever stops or pauses it brings it back."""
    server = S3Server()
    yield server
    server.end()
