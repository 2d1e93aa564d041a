"""The record: appended whole, folded to the same history however often it is read, and robust against a cut-off line."""

from __future__ import annotations

import copy
import json

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record import History, Record, read_history
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, reached, suggested


def write(path, events):
    record = Record(path, History(27))
    for event in events:
        record.append(event)
    record.close()
    return record.history


EVENTS = [begin(), suggested(0), *reached(0, 0, 3, 500), suggested(1), *lost(1, 0, 3), *reached(0, 3, 9, 600)]


def test_what_is_read_back_is_what_was_written(tmp_path):
    history = write(tmp_path / "record.jsonl", EVENTS)
    again = read_history(tmp_path / "record.jsonl", 27)
    assert again == history
    assert again.trials[0].rungs == {3: 0.5, 9: 0.6}
    assert again.trials[1].status == "diverged"
    assert again.trials[1].reason == "the loss is not finite"


def test_a_line_cut_off_anywhere_counts_for_nothing_and_the_next_one_is_whole(tmp_path):
    whole = tmp_path / "record.jsonl"
    write(whole, EVENTS)
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for length in range(ends[-3], len(data)):
        cut.write_bytes(data[:length])
        lines = sum(end <= length for end in ends)
        expected = history_of(*EVENTS[1:lines])
        history = read_history(cut, 27)
        assert history == expected
        record = Record(cut, history)
        record.append(begin(1.0))
        record.close()
        assert [json.loads(line)["event"] for line in cut.read_text().splitlines()][lines:] == ["begin"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, EVENTS)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3][:20] + "\n", *lines[4:]]))
    with pytest.raises(InputError, match=r"record.jsonl, line 4 is damaged .* restore the file from a copy"):
        read_history(path, 27)


def test_an_epoch_that_ran_twice_counts_once_and_is_told_once(tmp_path):
    told = []

    class Ear:
        def on_event(self, event, history):
            told.append(event["event"])

        def close(self):
            told.append("closed")

    record = Record(tmp_path / "record.jsonl", History(27), [Ear()])
    for event in (begin(), suggested(0), job(0, 0, 3), epoch(0, 1), epoch(0, 1), epoch(0, 2)):
        record.append(copy.deepcopy(event))
    record.close()
    assert told == ["begin", "trial", "job", "epoch", "epoch", "closed"]
    assert record.history.trials[0].seconds == 2.0


def test_the_best_rung_is_the_score_and_equal_scores_prefer_more_training():
    events = [suggested(0), *reached(0, 0, 3, 700), *reached(0, 3, 9, 600)]
    events += [suggested(1), *reached(1, 0, 3, 700), suggested(2), *reached(2, 0, 3, 100), *reached(2, 3, 9, 700)]
    history = history_of(*events)
    assert (history.trials[0].score, history.trials[0].best_rung) == (0.7, 3)
    assert [trial.number for trial in history.ranked()] == [2, 0, 1]


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    record = Record(tmp_path / "record.jsonl", History(27))
    with pytest.raises(ValueError, match="JSON"):
        record.append({**begin(), "time": float("nan")})
    record.close()
    assert (tmp_path / "record.jsonl").read_text() == ""


def test_states_in_words():
    events = [suggested(0), *reached(0, 0, 3, 1), *reached(0, 3, 9, 2), *reached(0, 9, 27, 3)]
    events += [suggested(1), *reached(1, 0, 3, 1), suggested(2), job(2, 0, 3), suggested(3), *lost(3, 0, 3)]
    history = history_of(*events)
    assert [t.state for t in history.trials.values()] == ["completed", "stopped", "running", "diverged"]
    history.apply(begin(1.0))
    assert [t.state for t in history.trials.values()] == ["completed", "stopped", "interrupted", "diverged"]


def test_a_job_whose_rung_is_recorded_is_done_even_if_its_end_is_not():
    events = [suggested(0), *reached(0, 0, 3, 1), *reached(0, 3, 9, 2), *reached(0, 9, 27, 3)[:-1]]
    assert history_of(*events, begin()).trials[0].status == "completed"


def test_time_runs_on_over_sessions_but_not_between_them():
    events = [suggested(0, time=2.0), begin(1000.0), job(0, 0, 3, time=1005.0), job_end(0, 0, 3, "failed", "x", 1007.0)]
    assert history_of(*events).seconds == 9.0
