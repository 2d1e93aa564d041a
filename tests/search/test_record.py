"""The record: appended whole, folded to the same history however often it is read, robust against a truncated line."""

from __future__ import annotations

import copy
import errno
import os
import time
import zlib
from pathlib import Path

import pytest

from hcpr_tune.errors import InputError, StorageError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.lines import sealed, sealed_row, unsealed
from hcpr_tune.search.record.record import Record, read_history
from hcpr_tune.search.record.segments import SEGMENT_BYTES, WAIT_SECONDS, Segments, read_segments
from hcpr_tune.search.storage.object_store import FolderObjectStore
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, reached, suggested
from tests.search.odd_records import resealed


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


def test_a_record_that_was_cut_off_anywhere_counts_up_to_its_last_whole_line_and_says_so(tmp_path):
    whole = tmp_path / "record.jsonl"
    write(whole, EVENTS)
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for length in range(ends[-3], len(data)):
        cut.write_bytes(data[:length])
        lines = sum(end <= length for end in ends)
        history = read_history(cut, 27)
        assert bool(history.damage) == (length not in ends)
        if history.damage:
            assert (
                history.damage
                == f"line {lines + 1} of {cut}, the last one, was cut off; what it recorded is done again"
            )
            history.damage = ""
        assert history == history_of(*EVENTS[1:lines])
        record = Record(cut, history)
        record.append(begin(1.0))
        record.close()
        assert [unsealed(line)["event"] for line in cut.read_bytes().splitlines()][lines:] == ["begin"]


def test_a_last_line_with_any_byte_altered_does_not_count_and_is_named(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, EVENTS)
    data = path.read_bytes()
    begins = data[:-1].rfind(b"\n") + 1
    for position in range(begins, len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        history = read_history(path, 27)
        assert f"line {len(EVENTS)} of {path}, the last one, was" in history.damage
        history.damage = ""
        assert history == history_of(*EVENTS[1:-1])
    Record(path, history).close()
    assert path.read_bytes() == data[:begins]
    assert path.with_suffix(".damaged").read_bytes()[:10] == data[begins : begins + 10]


@pytest.mark.parametrize("how", ["cut", "altered"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, how):
    path = tmp_path / "record.jsonl"
    write(path, EVENTS)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3][:20] + "\n" if how == "cut" else lines[3].replace('"trial": 0', '"trial": 7')
    path.write_text("".join(lines))
    with pytest.raises(InputError, match=r"record.jsonl, line 4 is damaged .* restore the file from a copy"):
        read_history(path, 27)


def test_an_event_that_could_not_be_written_leaves_nothing_and_did_not_happen(tmp_path, monkeypatch):
    path = tmp_path / "record.jsonl"
    record = Record(path, History(27))
    record.append(begin())
    before = path.read_bytes()
    written = os.write

    def half(file, data):
        written(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StorageError, match=r"cannot be written: No space left on device; make space there"):
        record.append(suggested(0))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert record.history.trials == {}
    record.append(suggested(0))
    record.close()
    assert list(read_history(path, 27).trials) == [0]


def test_who_lost_the_lead_writes_nothing(tmp_path):
    def lost_lead():
        raise StorageError("taken over")

    record = Record(tmp_path / "record.jsonl", History(27), leading=lost_lead)
    with pytest.raises(StorageError, match="taken over"):
        record.append(begin())
    record.close()
    assert (tmp_path / "record.jsonl").read_bytes() == b""


def test_a_record_in_segments_reads_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr("hcpr_tune.search.record.segments.SEGMENT_BYTES", 1500)
    place = FolderObjectStore(tmp_path / "bucket")
    for session in range(2):
        record = Record(tmp_path / "record.jsonl", History(27), segments=Segments(place))
        for event in EVENTS:
            record.append({**event, "time": float(session)})
        record.close()
    assert len(place.keys("record")) > 4
    assert all(len(place.read(key)) <= 1500 for key in place.keys("record"))
    assert read_segments(place) == (tmp_path / "record.jsonl").read_bytes()


class Counted(FolderObjectStore):
    """A place that knows how often it was written."""

    writes = 0

    def write(self, key, data):
        object.__setattr__(self, "writes", self.writes + 1)
        super().write(key, data)


def in_segments(path, place, leading=lambda: None):
    return Record(path, History(10**6), segments=Segments(place, leading), leading=leading)


def test_in_a_bucket_epochs_wait_for_each_other_and_a_jobs_end_for_nobody(tmp_path):
    place, path = Counted(tmp_path / "bucket"), tmp_path / "record.jsonl"
    record = in_segments(path, place)
    for event in (begin(), suggested(0), job(0, 0, 300)):
        record.append(event)
    assert read_segments(place) == path.read_bytes()
    before, began = place.writes, time.monotonic()
    for number in range(1, 301):
        record.append(epoch(0, number))
    assert place.writes - before <= 1 + (time.monotonic() - began) / WAIT_SECONDS + path.stat().st_size / SEGMENT_BYTES
    record.append(job_end(0, 0, 300))
    assert read_segments(place) == path.read_bytes()
    record.close()
    assert read_history(path, 10**6).trials[0].last_epoch == 300


def test_in_a_bucket_an_epoch_is_there_soon_though_nothing_follows(tmp_path):
    place, path = FolderObjectStore(tmp_path / "bucket"), tmp_path / "record.jsonl"
    record = in_segments(path, place)
    for event in (begin(), suggested(0), job(0, 0, 3), epoch(0, 1), epoch(0, 2)):
        record.append(event)
    deadline = time.monotonic() + 20
    while read_segments(place) != path.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read_segments(place) == path.read_bytes()
    record.close()


def test_what_waits_is_not_written_once_another_process_leads_the_study(tmp_path):
    place, path, lost_to = FolderObjectStore(tmp_path / "bucket"), tmp_path / "record.jsonl", []

    def leading():
        if lost_to:
            raise StorageError("taken over")

    record = in_segments(path, place, leading)
    for event in (begin(), suggested(0), job(0, 0, 3), epoch(0, 1)):
        record.append(event)
    lost_to.append("another")
    known = read_segments(place)
    time.sleep(2 * WAIT_SECONDS)
    assert read_segments(place) == known
    lost_to.clear()
    with pytest.raises(StorageError, match="taken over"):
        record.append(epoch(0, 2))
    record.close()
    assert read_segments(place) == known


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


def test_workers_that_come_and_go_are_accounted_for():
    events = [
        begin(0.0),
        {"event": "workers", "time": 10.0, "workers": 5},
        {"event": "end", "time": 14.0, "reason": "x"},
    ]
    history = History(27)
    for event in events:
        history.apply(event)
    assert history.worker_seconds_offered == 2 * 10 + 5 * 4
    assert (history.workers, history.ended) == (5, "x")


def test_time_runs_on_over_sessions_but_not_between_them():
    events = [suggested(0, time=2.0), begin(1000.0), job(0, 0, 3, time=1005.0), job_end(0, 0, 3, "failed", "x", 1007.0)]
    assert history_of(*events).seconds == 9.0


def test_deaths_are_counted_for_the_present_job_and_those_of_dead_processes_apart():
    def died(failed_start, time):
        return {**job_end(0, 0, 3, "worker died", "x", time), "failed_start": failed_start}

    events = [suggested(0), job(0, 0, 3), epoch(0, 1, time=5.0), died(False, 6.0), job(0, 0, 3, time=6.0)]
    events += [died(True, 6.1), job(0, 0, 3, time=6.2), epoch(0, 1, time=9.2)]
    trial = history_of(*events).trials[0]
    assert (trial.deaths, trial.failed_starts, trial.status, trial.fresh) == (1, 1, "running", False)
    assert len(trial.epochs) == 1
    assert trial.startup == pytest.approx(4.0 + 3.0)
    ended = history_of(*events, epoch(0, 2), epoch(0, 3, 500), job_end(0, 0, 3)).trials[0]
    assert (ended.deaths, ended.failed_starts) == (0, 0)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-9] + b"?" + data[-8:]])
def test_a_damaged_last_line_of_a_segment_is_cut_before_the_next_one(tmp_path, damage):
    place, path = FolderObjectStore(tmp_path / "bucket"), tmp_path / "record.jsonl"
    record = Record(path, History(27), segments=Segments(place))
    for event in EVENTS:
        record.append(event)
    record.close()
    key = place.keys("record")[-1]
    data = place.read(key)
    place.write(key, damage(data))
    path.write_bytes(read_segments(place))
    history = read_history(path, 27)
    assert history.damage
    record = Record(path, history, segments=Segments(place))
    record.append(begin(1.0))
    record.close()
    assert read_segments(place) == path.read_bytes()
    assert not read_history(path, 27).damage
    assert place.read("record.damaged")


def test_what_a_session_is_begun_with_is_in_one_line(tmp_path):
    path = tmp_path / "record.jsonl"
    extended = {"event": "extend", "time": 1.0, "budget": {"trials": 9}}
    events = [{**begin(1.0), "requests": [{"event": "loss", "what": "a line"}, extended]}]
    history = write(path, events)
    assert (history.losses, history.extensions) == (["a line"], [{"trials": 9}])
    assert read_history(path, 27).extensions == [{"trials": 9}]


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    write(tmp_path / "record.jsonl", EVENTS)
    assert len(read_history(tmp_path / "record.jsonl", 27).trials) == 2


def test_a_listener_that_cannot_write_is_named_and_all_are_closed(tmp_path):
    closed = []

    class Broken:
        def on_event(self, event, history):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            closed.append(self)
            raise OSError(errno.ENOSPC, "No space left on device")

    record = Record(tmp_path / "record.jsonl", History(27), [Broken(), Broken()])
    with pytest.raises(StorageError, match="the results cannot be written: No space left"):
        record.append(begin())
    with pytest.raises(StorageError, match="the results cannot be written: No space left"):
        record.close()
    assert len(closed) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:4], lines[3], *lines[4:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], *lines],
        lambda lines: [*lines[:3], *lines[4:]],
        lambda lines: lines[1:],
        lambda lines: [*lines[:-2], lines[-1]],
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        lambda lines: [lines[0], sealed(suggested(0)), *lines[1:]],
        lambda lines: [*lines, sealed(begin(1.0))],
    ],
    ids=["doubled", "last doubled", "first doubled", "deleted", "first deleted", "last but one deleted", "swapped",
         "foreign", "unchained"],
)  # fmt: skip
def test_a_line_that_was_doubled_deleted_or_moved_is_noticed(tmp_path, change):
    path = tmp_path / "record.jsonl"
    write(path, EVENTS)
    data = b"".join(change(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"record.jsonl, line \d+ does not follow the line before it: one was duplicated"
    ):
        read_history(path, 27)
    with pytest.raises(InputError, match="does not follow"):
        Record(path, History(27))
    assert path.read_bytes() == data


def test_a_record_of_an_earlier_version_is_refused(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, [begin() | {"versions": {"hcpr_tune": "0.1.0"}}, *EVENTS[1:]])
    data = path.read_bytes()
    with pytest.raises(
        InputError,
        match=r"record.jsonl was begun by hcpr_tune 0.1.0, whose studies this version, \S+, cannot read; continue it",
    ):
        read_history(path, 27)
    assert path.read_bytes() == data


def test_events_sealed_in_a_row_are_what_a_record_writes(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, EVENTS)
    assert path.read_bytes() == sealed_row(EVENTS)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_of_windows_and_a_byte_order_mark_do_no_harm(tmp_path, mark):
    path = tmp_path / "record.jsonl"
    path.write_bytes(mark + sealed_row(EVENTS).replace(b"\n", b"\r\n"))
    history = read_history(path, 27)
    assert history == history_of(*EVENTS[1:])
    record = Record(path, history)
    record.append(begin(1.0))
    record.close()
    assert read_history(path, 27) == record.history
    path.write_bytes(path.read_bytes()[:-5])
    assert "was cut off" in read_history(path, 27).damage


def _moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.jsonl"))


def _folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _replaced(path: Path) -> None:
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)


def _appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"{}\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_moved, "was moved or deleted"),
        (_folder_moved, "was moved or deleted"),
        (_replaced, "was replaced by another file"),
        (_appended, "bytes long and not"),
        (lambda path: os.truncate(path, 10), "is 10 bytes long and not"),
    ],
)
def test_a_record_that_is_moved_or_replaced_is_noticed_before_the_next_event_takes_effect(tmp_path, change, words):
    path = tmp_path / "one" / "record.jsonl"
    path.parent.mkdir()
    record = Record(path, History(27))
    for event in EVENTS[:4]:
        record.append(event)
    before, version = path.read_bytes(), record.history.version
    change(path)
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{words}.* while it was in use; .* then continue with --resume"):
            record.append(EVENTS[4])
    assert record.history.version == version
    record.close()
    left = [one for one in tmp_path.rglob("*.jsonl") if one.read_bytes() == before]
    assert left or words.endswith("not"), "nothing was written to it after that"


def test_what_goes_wrong_first_is_told_though_the_files_cannot_be_closed_either(tmp_path):
    class Broken:
        def on_event(self, event, history):
            pass

        def close(self):
            raise OSError(errno.ENOENT, "No such file or directory")

    record = Record(tmp_path / "record.jsonl", History(27), [Broken()])
    with pytest.raises(StorageError, match="was moved or deleted"), record:
        record.append(begin())
        _moved(tmp_path / "record.jsonl")
        record.append(suggested(0))


def test_an_event_that_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, History(27))
    record.append(begin())
    before = path.read_bytes()
    for odd, words in (
        (suggested(1), "trial: trial must be a whole number at least 0 and at most 0, got 1"),
        (job(0, 0, 3), "job: trial must be one of the 0 that are recorded before it"),
        ({"event": "x", "time": 0.0}, "event must be one of begin"),
    ):
        with pytest.raises(StorageError, match=words):
            record.append(odd)
    record.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"seconds_attack": 10**400},
            "seconds_attack must be a finite number at least 0 and at most 10000000000, got 1000",
        ),
        ({"total_validation": 0}, "total_validation must be a whole number at least 1"),
        ({"robust_correct_validation": 1001}, "robust_correct_validation must be .* at most 1000, got 1001"),
        ({"robust_correct_validation": None}, "robust_correct_validation must be a whole number .* got null"),
        ({"attacked_pairs_validation": [[0, 1]]}, r"attacked_pairs_validation\[0\] must be a list of 3"),
        (
            {"attacked_pairs_validation": [[0, 5, 1]], "class_totals_validation": [9, 9]},
            r"attacked_pairs_validation\[0\]\[1\] must be a whole number at least -1 and at most 1, got 5",
        ),
        ({"time": float("nan")}, "time must be a finite number"),
        ({"is_rung": 1}, "is_rung must be true or false, got 1"),
        ({"device": ["x"] * 1000}, r"device must be a text, got .{60,70}; it is"),
        ({"trial": True}, "trial must be a whole number"),
    ],
)
def test_an_odd_value_is_named_with_its_line_its_law_and_what_it_is(tmp_path, change, words):
    path = tmp_path / "record.jsonl"
    path.write_bytes(resealed([begin(), suggested(0), job(0, 0, 3), epoch(0, 3, 500) | change]))
    with pytest.raises(InputError, match=f"record.jsonl, line 4 makes no sense to this version: {words}"):
        read_history(path, 27)


def test_a_line_that_is_nested_without_end_is_damaged(tmp_path):
    path = tmp_path / "record.jsonl"
    body = b'{"event": "begin", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    path.write_bytes(body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body) + sealed(suggested(0)))
    with pytest.raises(InputError, match=r"line 1 is damaged .it is nested too deeply"):
        read_history(path, 27)


def test_what_a_bucket_did_not_take_is_written_before_what_follows(tmp_path, monkeypatch):
    place, path = FolderObjectStore(tmp_path / "bucket"), tmp_path / "record.jsonl"
    record = in_segments(path, place)
    record.append(begin())

    def refuse(self, key, data):
        raise StorageError("the store is away")

    monkeypatch.setattr(FolderObjectStore, "write", refuse)
    record.append(suggested(0))
    with pytest.raises(StorageError, match="away"):
        record.append(job(0, 0, 3))
    monkeypatch.undo()
    record.append({"event": "end", "time": 1.0, "reason": "storage"})
    record.close()
    assert read_segments(place) == path.read_bytes()
    assert len(read_history(path, 27).trials) == 1


def test_jobs_end_with_their_session():
    history = history_of(
        suggested(0), job(0, 0, 3), epoch(0, 1), {"event": "end", "time": 9.0, "reason": "interrupted"}
    )
    assert (history.trials[0].state, history.running) == ("interrupted", [])
    history.apply(begin(10.0))
    assert history.trials[0].state == "interrupted"


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_the_time_of_a_session_goes_on_evenly_when_the_date_is_set(tmp_path, monkeypatch, jump):
    record = Record(tmp_path / "record.jsonl", History(27))
    record.append({**begin(), "time": record.clock()})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    record.append({"event": "workers", "time": record.clock(), "workers": 3})
    record.close()
    assert 0 <= record.history.seconds < 60


def test_an_interrupt_between_a_lines_writing_and_its_note_is_no_foreign_change(tmp_path, monkeypatch):
    path = tmp_path / "record.jsonl"
    record = Record(path, History(27))
    record.append(begin())

    def interrupted(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record.append(suggested(0))
    monkeypatch.undo()
    record.append({"event": "end", "time": 1.0, "reason": "interrupted"})
    record.close()
    history = read_history(path, 27)
    assert (list(history.trials), history.ended) == ([0], "interrupted")
