"""A search whose model prints and then exits the process: stdout stays JSON, and the trials say why they were lost."""

from __future__ import annotations

import json

import pytest

from tests.cluster.test_search import ONE_WORKER
from tests.conftest import SMALL_SPACE, without_dashboard
from tests.reports.foreign import module_in, ran

pytestmark = pytest.mark.cluster


def test_a_models_words_and_its_exit_break_neither_the_output_nor_a_worker(tmp_path):
    module_in(tmp_path)
    space = tmp_path / "own.toml"
    model = 'model = { name = "theirs:leaves_later", head = "linear" }\nmethod = "theirs:loss"'
    text = SMALL_SPACE.replace("model = { width = 4 }", model).replace("trials = 4", "trials = 2")
    space.write_text(text.replace('"hcpr.scale" = { low = 4.0, high = 16.0, log = true }', ""), encoding="utf-8")
    start = without_dashboard(["tune", "--space", "own.toml", "--name", "own", "--json", *ONE_WORKER])
    done = ran(*start, cwd=tmp_path, timeout=400)
    assert done.stdout, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert done.returncode == 1, done.stderr
    assert lines[-1]["news"] == "result"
    record = [json.loads(line) for line in (tmp_path / "results" / "own" / "record.jsonl").read_text().splitlines()]
    reasons = {event["reason"] for event in record if event.get("event") == "job_end"}
    assert len(reasons) == 1
    assert "ended with SystemExit: in an epoch (theirs.py, line" in reasons.pop()
    # This user has begun it here: nobody is asked when it goes on.
    assert ran("tune", "--resume", "own", "--dry-run", cwd=tmp_path).returncode == 0
