"""All studies of a storage in one view, whatever state each is in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from hcpr_tune.cli import main as cli
from hcpr_tune.common.buckets.bucket import Bucket
from hcpr_tune.search.record.segments import SEGMENTS
from hcpr_tune.search.storage.lease import BEAT_SECONDS, Lease
from tests.s3 import s3_server
from tests.views.kinds import KINDS, kind
from tests.written import written

__all__ = ["s3_server"]


@pytest.fixture
def storage(tmp_path):
    """One study of each kind, a second apart."""
    for number, name in enumerate(KINDS):
        study, events = kind(name)
        written(tmp_path / "results", name.replace(" ", "-"), study, events, time.time() - 1e5 + number)
    return tmp_path / "results"


def listed(capsys, *arguments) -> tuple[int, list[str]]:
    code = cli.main(["list", "--storage", *map(str, arguments)])
    out = capsys.readouterr().out
    return code, out.splitlines()


def as_json(capsys, storage) -> dict[str, dict]:
    assert cli.main(["list", "--storage", str(storage), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["storage"] == str(storage)
    return {study["study"]: study for study in plain["studies"]}


def test_every_kind_of_study_is_a_line(storage, capsys):
    code, lines = listed(capsys, storage)
    assert code == 0
    assert lines[0].split() == ["study", "trials", "robust", "accuracy,", "%", "gain", "age", "state"]
    lines = {line.split()[0]: line for line in lines[1:]}
    assert lines.keys() == {name.replace(" ", "-") for name in KINDS}
    assert re.fullmatch(
        r"500-trials +500/500 +80\.2 \(75\.8 to 84\.0\) +\+5\.8 +1 d +its budget is not used up", lines["500-trials"]
    )
    assert re.fullmatch(r"64-running +336/500 +.* its process died", lines["64-running"])
    assert re.fullmatch(r"no-record +0/16 +none yet +\d+ \w+ +not begun", lines["no-record"])
    assert re.fullmatch(r"all-failed +12/16 +none yet +1 d +its budget is not used up", lines["all-failed"])
    assert re.fullmatch(
        r"one-trial +1/16 +74\.4 \(69\.6 to 78\.6\) +\+0\.0 +1 d +its budget is not used up", lines["one-trial"]
    )


def test_the_newest_comes_first(tmp_path, capsys):
    study, events = kind("one trial")
    for name, began in (("old", 1e9), ("new", 1.2e9), ("middle", 1.1e9)):
        written(tmp_path, name, study, events, began)
    assert list(as_json(capsys, tmp_path)) == ["new", "middle", "old"]


def test_json_has_the_same_for_programs(storage, capsys):
    studies = as_json(capsys, storage)
    assert studies.keys() == {name.replace(" ", "-") for name in KINDS}
    pareto = studies["two-objectives"]
    assert (pareto["state"], pareto["holder"], pareto["reason"]) == ("died", None, "")
    assert pareto["trials"]["budget"] == 40
    assert pareto["best"]["robust_accuracy_validation"].keys() == {"share", "low_95", "high_95", "count", "total"}
    assert pareto["age_seconds"] > 0
    assert studies["no-record"]["best"] is None


def test_who_leads_a_running_study_is_named(tmp_path, capsys):
    study, events = kind("two objectives")
    one = written(tmp_path, "one", study, events)
    lease = Lease(one.folder.objects, "one")
    try:
        state = listed(capsys, tmp_path)[1][1].partition("running")[2]
        assert state == f", led by {os.uname().nodename}"
        holder = as_json(capsys, tmp_path)["one"]["holder"]
        assert holder["process"] == os.getpid()
        assert holder["seconds_since_heard_of"] <= BEAT_SECONDS
    finally:
        lease.close()


def test_what_cannot_be_read_is_listed_with_its_reason(storage, capsys):
    record = storage / "one-trial" / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join([lines[0], b"x" + lines[1], *lines[2:]]))
    (storage / "broken").mkdir()
    (storage / "broken" / "study.toml").write_text("a = = 3")
    (storage / "no text").mkdir()
    (storage / "no text" / "study.toml").write_bytes(b"\xff\xfe")
    (storage / "bad \x1b[2J name").mkdir()
    (storage / "bad \x1b[2J name" / "study.toml").write_text("")
    (storage / "nothing").mkdir()
    code, lines = listed(capsys, storage)
    assert code == 0
    bad = [line for line in lines if " cannot be read: " in line]
    assert len(lines) == 1 + len(KINDS) - 1 + len(bad)
    assert sorted(line.partition(" cannot")[0] for line in bad) == ["bad ?[2J name", "broken", "no text", "one-trial"]
    assert any("one-trial/record.jsonl, line 2 is damaged" in line for line in bad)
    assert any("broken/study.toml is not valid TOML" in line for line in bad)
    studies = as_json(capsys, storage)
    assert [studies[name]["state"] for name in ("broken", "one-trial", "no text")] == ["unreadable"] * 3
    assert "\n" not in studies["broken"]["reason"]


def test_the_damaged_end_of_a_record_is_no_obstacle(tmp_path, capsys):
    study, events = kind("one trial")
    one = written(tmp_path, "one", study, events, 1e9)
    whole = as_json(capsys, tmp_path)["one"]["last_event"]
    with one.folder.record.open("ab") as file:
        file.write(b'{"event": "epo')
    assert as_json(capsys, tmp_path)["one"]["last_event"] == whole


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_storage_says_so_and_is_no_mistake(there, tmp_path, capsys):
    if there:
        (tmp_path / "results").mkdir()
    code, lines = listed(capsys, tmp_path / "results")
    assert (code, len(lines)) == (0, 1)
    assert re.search(
        r"no study lies in \S+results; \S*hcpr_tune tune --storage \S+ begins one, --storage DIR\|URL looks elsewhere",
        lines[0],
    )
    assert as_json(capsys, tmp_path / "results") == {}


def test_studies_in_a_bucket_are_listed_without_a_copy(s3_server, tmp_path, monkeypatch, capsys):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    storage = f"s3://{s3_server.new_bucket()}/studies"
    code, lines = listed(capsys, storage)
    assert (code, len(lines)) == (0, 1)
    for name in ("one trial", "two objectives"):
        study, events = kind(name)
        one = written(tmp_path / "elsewhere", name.replace(" ", "-"), study, events, 1e9)
        bucket = Bucket(f"{storage}/{one.name}")
        bucket.upload(one.folder.study, "study.toml")
        bucket.upload(one.folder.record, f"{SEGMENTS}/000000.jsonl")
        bucket.write("best/model.safetensors", b"weights")
    Bucket(f"{storage}/hurt").write("study.toml", b"a = = 3")
    Bucket(f"{storage}/further/down").write("study.toml", b"a = = 3")
    studies = as_json(capsys, storage)
    assert [(name, study["state"]) for name, study in studies.items()] == [
        ("two-objectives", "died"),
        ("one-trial", "unfinished"),
        ("hurt", "unreadable"),
    ]
    assert studies["hurt"]["reason"].startswith(f"{storage}/hurt/study.toml is not valid TOML")
    assert studies["one-trial"]["address"].startswith(f"{storage}/one-trial")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]


def test_a_reader_that_is_gone_ends_it_quietly(tmp_path):
    study, events = kind("one trial")
    written(tmp_path / "results", "one", study, events)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hcpr_tune", "list"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
