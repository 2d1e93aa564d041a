"""A record is followed while another process appends to it."""

from __future__ import annotations

import os

import pytest

from hcpr_tune.search.record.follow import RecordFollower
from hcpr_tune.search.storage.studies import reopen
from tests.views.recorded import recorded
from tests.written import written


@pytest.fixture
def study(tmp_path, small_study):
    """Its record, line by line."""
    one = written(tmp_path, "one", small_study, recorded(small_study, 6, running=2))
    return one, one.folder.record.read_bytes().splitlines(keepends=True)


def test_what_is_appended_gives_the_same_as_reading_it_all(study, tmp_path):
    one, lines = study
    whole = reopen(tmp_path, "one", "status ").history
    for begun in range(len(lines) + 1):
        one.folder.record.write_bytes(b"".join(lines[:begun]))
        follower = RecordFollower(one.folder, one.study)
        told = list(follower.new())
        for line in lines[begun:]:
            with one.folder.record.open("ab") as file:
                file.write(line[:9])
                file.flush()
                assert list(follower.new()) == []  # half a line
                file.write(line[9:])
            told += follower.new()
        assert follower.history == whole
        assert len(told) == len(lines)


def test_a_damaged_end_is_waited_out_until_it_is_cut_off(study):
    one, lines = study
    one.folder.record.write_bytes(b"".join(lines[:9]) + lines[9][:20] + b"\n")
    follower = RecordFollower(one.folder, one.study)
    assert len(list(follower.new())) == 9
    assert list(follower.new()) == []
    os.truncate(one.folder.record, sum(map(len, lines[:9])))
    with one.folder.record.open("ab") as file:
        file.writelines(lines[9:])
    assert len(list(follower.new())) == len(lines) - 9
    assert follower.history.trials.keys() == set(range(6))
