"""A live page that really listens, over studies that were recorded before."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.web.server import Server
from tests.views.recorded import written


@dataclass
class Page:
    """A page, as a client without a browser sees it."""

    server: Server

    @property
    def token(self) -> str:
        return self.server.url.partition("token=")[2]

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def address(self, path: str) -> str:
        return f"{self.root}{path}{'&' if '?' in path else '?'}token={urllib.parse.quote(self.token)}"

    def get(self, path: str, token: bool = True, **headers: str) -> tuple[int, str]:
        """Status and body."""
        return answer(urllib.request.Request(self.address(path) if token else self.root + path, headers=headers))

    def json(self, path: str) -> Any:
        code, body = self.get(path)
        assert code == 200, body
        return json.loads(body)

    def post(self, path: str, body: Any, token: bool = True) -> tuple[int, dict[str, str]]:
        """Status and the words of the answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if token else {})
        request = urllib.request.Request(self.root + path, json.dumps(body).encode(), headers, method="POST")
        code, text = answer(request)
        return code, json.loads(text)

    @contextmanager
    def changes(self, path: str) -> Iterator[Iterator[str]]:
        """The versions that the server sends; the first at once."""
        with urllib.request.urlopen(self.address(path), timeout=60) as stream:
            yield (line[6:].decode().strip() for line in stream if line.startswith(b"data: "))


def answer(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextmanager
def served(storage: Path, name: str | None = None) -> Iterator[Page]:
    """A page on a port of its own."""
    with Server(str(storage), name, port=0).running() as server:
        yield Page(server)


@pytest.fixture(scope="module")
def recorded_studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a large study, a small one, and one whose driver was killed; only to be read."""
    storage = tmp_path_factory.mktemp("storage")
    for name, trials, more in (("large", 200, {}), ("small", 12, {}), ("killed", 16, {"running": 3})):
        written(storage / name, read_study(find_space("default"), [("budget.trials", trials)]), trials, **more)
    return storage


@pytest.fixture(scope="module")
def page(recorded_studies: Path) -> Iterator[Page]:
    with served(recorded_studies) as found:
        yield found
