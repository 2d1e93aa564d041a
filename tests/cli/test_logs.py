"""A search's log, from its record: what was, and what comes while another process searches."""

from __future__ import annotations

import re

import pytest

from hcpr_tune.cli import main as cli
from hcpr_tune.search.record.follow import RecordFollower
from hcpr_tune.search.record.lines import sealed_row
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import StudyFolder
from hcpr_tune.search.record.segments import Segments
from hcpr_tune.search.storage.lease import Lease
from hcpr_tune.search.storage.object_store import FolderObjectStore
from hcpr_tune.search.storage.studies import reopen
from tests.cluster.here import meanwhile
from tests.views.recorded import recorded
from tests.written import folded, written


@pytest.fixture
def study(tmp_path, monkeypatch, small_study):
    """The study `one` in results/, whose search has begun three trials."""
    monkeypatch.chdir(tmp_path)
    return written(tmp_path / "results", "one", small_study, recorded(small_study, 4, running=1))


def test_the_log_of_a_search_has_a_line_for_each_event(study, capsys):
    assert cli.main(["logs", "one"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \w+", line) for line in lines)
    words = [line[9:] for line in lines]
    assert words[0] == "begin workers=4 host=node-7"
    assert words[1].startswith("trial=0 source=published hcpr.scale=")
    assert words[2] == "trial=0 epoch=0 status=running until=1"
    assert re.match(
        r"trial=0 epoch=1 loss=\S+ robust_accuracy=0\.\d+ clean_accuracy=0\.\d+ worker=10\.0\.0\.0:1000", words[3]
    )
    assert words[4].startswith("trial=0 epoch=1 status=reached robust_accuracy_validation=")
    assert words[-1] == "trial=3 epoch=0 status=running until=1"


def test_following_ends_with_the_search_and_misses_nothing(study, small_study, capsys):
    more = list(recorded(small_study, 4))[len(list(recorded(small_study, 4, running=1))) :]
    lease = Lease(study.folder.objects, study.folder.address)
    stored = reopen("results", "one")

    def searching():
        """The other process: it goes on with the search, and lets go of it."""
        with Record(study.folder.record, stored.history) as record:
            for event in more:
                record.append(event)
        lease.close()

    with meanwhile(searching):
        assert cli.main(["logs", "-f", "one"]) == 0
    followed = capsys.readouterr().out
    assert followed.splitlines()[-1].endswith("end reason=finished")
    assert cli.main(["logs", "one"]) == 0
    assert capsys.readouterr().out == followed


def test_following_one_that_has_ended_ends_at_once(study, capsys):
    assert cli.main(["logs", "--follow", "results/one"]) == 0
    assert "status=running until=1" in capsys.readouterr().out


def test_a_record_is_read_as_it_grows_line_by_line(study, small_study):
    whole = study.folder.record.read_bytes()
    study.folder.record.write_bytes(b"")
    follower, seen = RecordFollower(study.folder, small_study), []
    with study.folder.record.open("ab", buffering=0) as file:
        for begins in range(0, len(whole), 97):  # most lines come in parts
            file.write(whole[begins : begins + 97])
            seen += [event["event"] for event in follower.new()]
    assert seen == [event["event"] for event in recorded(small_study, 4, running=1)]
    assert follower.history.trials == reopen("results", "one").history.trials
    study.folder.record.write_bytes(whole + b'{"half": "a line"}\n')
    assert list(follower.new()) == []


def test_segments_of_a_bucket_are_read_as_they_grow(study, small_study, tmp_path, monkeypatch):
    monkeypatch.setattr("hcpr_tune.search.record.segments.SEGMENT_BYTES", 2000)
    place = FolderObjectStore(tmp_path / "bucket")
    follower = RecordFollower(StudyFolder(tmp_path / "copy", place), small_study)  # type: ignore[arg-type]
    segments, events = Segments(place), list(recorded(small_study, 4))
    seen = []
    for line in sealed_row(events).splitlines(keepends=True):
        segments.append(line)
        seen += [event["event"] for event in follower.new()]
    assert len(place.keys("record")) > 3
    assert seen == [event["event"] for event in events]
    assert follower.history.trials == folded(small_study, events).trials
