"""`status --watch` follows a study from its record, on a terminal and in a pipe, while another process writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest

from hcpr_tune.cli.following import FollowedStudy
from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.segments import SEGMENTS
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.search.storage.studies import reopen
from tests.s3 import s3_server
from tests.screen import Terminal
from tests.search.histories import job, reached, suggested
from tests.views.recorded import recorded
from tests.written import written

__all__ = ["s3_server"]

SECONDS = 60
"""Against hangs."""


@pytest.fixture
def study(tmp_path, small_study):
    """Three trials that have run, and a search that has just begun again."""
    events = list(recorded(small_study, 3))
    one = written(tmp_path / "my results", "one", small_study, [*events, {**events[0], "time": 100.0}])
    return one.folder


class Writer:
    """Leads the study as a search does, in this process."""

    def __init__(self, folder):
        self._closed = False
        self._lease = Lease(folder.objects, folder.address)
        self._record = Record(folder.record, reopen(folder.root.parent, "one").history)

    def write(self, *events):
        for event in events:
            self._record.append(event | {"time": 100.0})

    def close(self):
        if not self._closed:
            self._closed = True
            self._record.close()
            self._lease.close()


@pytest.fixture
def writer(study):
    with closing(Writer(study)) as leading:
        yield leading


def watched(folder, *more):
    return [sys.executable, "-m", "hcpr_tune", "status", "one", "--storage", "my results", "--watch", *more]


def shows(*words):
    return lambda lines: all(any(word in line for line in lines) for word in words)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_on_a_terminal(columns, rows, study, writer, tmp_path):
    terminal = Terminal(watched(study), tmp_path, columns, rows)
    try:
        assert terminal.until(shows("3 of 4 trials: 0 running", "state        running", "q leave"), SECONDS)
        assert not terminal.is_as_usual
        writer.write(suggested(3), job(3, 0, 1))
        assert terminal.until(shows("4 of 4 trials: 1 running", "trial 3     epoch 0 of 1"), SECONDS)
        assert terminal.lines() == terminal.lines(wide=True)
        assert "…" not in "".join(line for line in terminal.lines() if not line.startswith(("state ", "running ")))
        terminal.type("s")
        assert terminal.until(shows("s sort: newest", "    3  running"), SECONDS)
        terminal.type("d ")
        assert terminal.until(shows("> [ ] hcpr.scale"), SECONDS)
        terminal.type("d")
        assert terminal.until(shows("d dimensions: 1 of 2"), SECONDS)
        terminal.type("x" if columns == 80 else "q")
        os.kill(terminal.process.pid, 15) if columns == 80 else None
        assert terminal.end(SECONDS) == 0
        assert terminal.is_as_usual
        end = "\n".join(terminal.lines())
        assert "hcpr_tune status one --storage 'my results' --watch" in end
        assert "4 of 4 trials: 1 running" in end
        assert "q leave" not in end
    finally:
        terminal.close()


def test_in_a_pipe_line_by_line_until_it_ends(study, writer, tmp_path):
    process = subprocess.Popen(watched(study, "--json"), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with process:
        assert json.loads(process.stdout.readline())["state"] == "running"
        writer.write(suggested(3), *reached(3, 0, 1, 700))
        news = json.loads(process.stdout.readline())
        assert (news["news"], news["trial"], news["epoch"]) == ("rung", 3, 1)
        writer.write({"event": "end", "reason": "interrupted"})
        writer.close()
        (last,) = map(json.loads, process.stdout.read().splitlines())
        assert (last["news"], last["state"], last["trials"]["suggested"]) == ("status", "interrupted", 4)
    assert process.returncode == 0


def test_of_a_study_that_is_not_running_it_is_the_status(study, command):
    plain, watching = (command("status", "one", "--storage", "my results", *more) for more in ([], ["--watch"]))
    assert plain.returncode == watching.returncode == 0
    assert watching.stdout == plain.stdout
    missing = command("status", "two", "--storage", "my results", "--watch")
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (2, "", 1)


def test_in_a_bucket_its_segments_are_followed(s3_server, tmp_path, monkeypatch, small_study):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    storage = f"s3://{s3_server.new_bucket()}/studies"
    one = written(tmp_path / "elsewhere", "one", small_study, recorded(small_study, 4))
    lines, bucket = one.folder.record.read_bytes().splitlines(keepends=True), Bucket(f"{storage}/one")
    bucket.upload(one.folder.study, "study.toml")
    half = len(lines) // 2
    bucket.write(f"{SEGMENTS}/000000.jsonl", b"".join(lines[:half]))
    followed = FollowedStudy(storage, "one")
    history = followed.history
    assert (followed.look(), followed.state) == (False, "died")
    bucket.write(f"{SEGMENTS}/000000.jsonl", b"".join(lines[: half + 2]))
    bucket.write(f"{SEGMENTS}/000001.jsonl", b"".join(lines[half + 2 :]))
    assert (followed.look(), followed.state) == (True, "finished")
    assert followed.history is history
    assert list(history.trials) == [0, 1, 2, 3]


def test_an_extended_study_is_shown_with_its_new_budget(tmp_path, small_study):
    events = list(recorded(small_study, 4))
    more = [{**events[0], "time": 100.0}, {"event": "extend", "time": 100.0, "budget": {"trials": 9}}]
    one = written(tmp_path, "one", small_study, [*events, *more])
    lines = one.folder.record.read_bytes().splitlines(keepends=True)
    one.folder.record.write_bytes(b"".join(lines[:-2]))
    followed = FollowedStudy(str(tmp_path), "one")
    assert followed.view().study_status["trials"]["budget"] == 4
    one.folder.record.write_bytes(b"".join(lines))
    assert followed.look()
    assert followed.view().study_status["trials"]["budget"] == 9
