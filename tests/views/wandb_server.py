"""As much of W&B's server as its package needs to begin runs, to go on with them, and to bring their histories."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Kept:
    """What the server was given, by the run's id: rows of the history in the order of their coming, exit codes."""

    url: str = ""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    exits: dict[str, list[int]] = field(default_factory=dict)
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)


@contextmanager
def wandb_server() -> Iterator[tuple[Kept, ThreadingHTTPServer]]:
    """The server on loopback, in threads of this process."""
    kept = Kept()

    class Handler(Answers):
        """Answers for this server."""

    Handler.kept = kept
    server = Quiet(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept, server
    server.shutdown()
    server.server_close()
    thread.join()


class Quiet(ThreadingHTTPServer):
    """W&B's process cuts its connections when it ends."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing."""


class Answers(BaseHTTPRequestHandler):
    """GraphQL for runs, a stream for their rows, and a place for files."""

    protocol_version = "HTTP/1.1"
    kept: Kept

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path.endswith("/graphql"):
            operation = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
            answer = getattr(self, f"_{operation[1]}", lambda _: {})(body["variables"]) if operation else {}
            self._answer({"data": answer})
            return
        if self.path.endswith("/file_stream"):
            self._take(self.path.split("/")[-2], body)
        self._answer({})

    def _take(self, run: str, body: dict[str, Any]) -> None:
        history = body.get("files", {}).get("wandb-history.jsonl", {"content": []})
        self.kept.rows.setdefault(run, []).extend(map(json.loads, history["content"]))
        if body.get("complete"):
            self.kept.exits.setdefault(run, []).append(body["exitcode"])

    def _RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802  # the operation's own name
        run = asked["name"]
        return {"model": {**PROJECT, "bucket": self._bucket(run) if run in self.kept.begun else None}}

    def _bucket(self, run: str) -> dict[str, Any]:
        rows = self.kept.rows.get(run, [])
        tail = json.dumps([json.dumps(row) for row in rows[-1:]])
        counts = {"logLineCount": 0, "historyLineCount": len(rows), "eventsLineCount": 0}
        empty = {"summaryMetrics": "{}", "eventsTail": "[]", "config": "{}", "tags": [], "wandbConfig": '{"t": 1}'}
        return {"id": run, "name": run, "displayName": run, "historyTail": tail, **counts, **empty}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        told = {name: value for name, value in given.items() if value is not None}
        self.kept.begun.setdefault(given["name"], {}).update(told)
        bucket = {"id": given["name"], "name": given["name"], "displayName": given["name"], "config": "{}"}
        return {"upsertBucket": {"bucket": {**bucket, "project": PROJECT, "historyLineCount": 0}, "inserted": True}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.kept.url}/file"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, what: dict[str, Any]) -> None:
        data = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


PROJECT = {"id": "p", "name": "hcpr_tune", "entity": {"id": "e", "name": "me"}}
