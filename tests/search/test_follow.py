"""A record is followed while another process appends to it."""

from __future__ import annotations

import os

import pytest

from hcpr_tune.search.record.follow import Follower, Rewritten
from hcpr_tune.search.record.lines import sealed_row
from hcpr_tune.search.storage.studies import reopen
from tests.search.histories import begin
from tests.views.recorded import recorded
from tests.written import written


@pytest.fixture
def study(tmp_path, small_study):
    """Its record, line by line."""
    one = written(tmp_path, "one", small_study, recorded(small_study, 6, running=2))
    lines = one.folder.record.read_bytes().splitlines(keepends=True)
    return one, lines


def followed(tmp_path):
    stored = reopen(tmp_path, "one", "status ")
    return stored, Follower(stored)


def test_what_is_appended_gives_the_same_as_reading_it_all(study, tmp_path):
    one, lines = study
    whole = reopen(tmp_path, "one", "status ").history
    for begun in range(len(lines) + 1):
        one.folder.record.write_bytes(b"".join(lines[:begun]))
        stored, follower = followed(tmp_path)
        assert list(follower.news()) == []
        told = []
        for line in lines[begun:]:
            with one.folder.record.open("ab") as file:
                file.write(line[:9])
                file.flush()
                assert list(follower.news()) == []  # half a line
                file.write(line[9:])
            told += follower.news()
        assert stored.history == whole
        assert len(told) == len(lines) - begun


def test_a_damaged_end_is_waited_out_until_it_is_cut_off(study, tmp_path):
    one, lines = study
    one.folder.record.write_bytes(b"".join(lines[:9]) + lines[9][:20] + b"\n")
    stored, follower = followed(tmp_path)
    assert list(follower.news()) == []
    os.truncate(one.folder.record, sum(map(len, lines[:9])))
    with one.folder.record.open("ab") as file:
        file.writelines(lines[9:])
    assert len(list(follower.news())) == len(lines) - 9
    assert stored.history.trials.keys() == set(range(6))


def test_a_record_that_is_another_one_is_read_again(study, tmp_path):
    one, lines = study
    _, follower = followed(tmp_path)
    one.folder.record.write_bytes(b"".join(lines[:3]))
    with pytest.raises(Rewritten):
        list(follower.news())
    one.folder.record.write_bytes(b"".join([*lines, *lines[-1:]]))
    with pytest.raises(Rewritten):
        list(follower.news())
    one.folder.record.unlink()
    with pytest.raises(Rewritten):
        list(follower.news())


def test_an_extended_study_is_read_again(study, tmp_path, small_study):
    one, _ = study
    events = [*recorded(small_study, 6), begin(1e3), {"event": "extend", "time": 1e3, "budget": {"trials": 9}}]
    one.folder.record.unlink()
    _, follower = followed(tmp_path)
    assert list(follower.news()) == []
    one.folder.record.write_bytes(sealed_row(events))
    with pytest.raises(Rewritten):
        list(follower.news())
