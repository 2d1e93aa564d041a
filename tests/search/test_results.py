"""What the results folder says of a history, and which checkpoints are kept."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from hcpr_tune.common.files import new_name
from hcpr_tune.common.intervals import Proportion
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History, Trial
from hcpr_tune.search.record.metrics import trials_csv
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.record.results import ResultFiles, StoredStudy, StudyFolder, kept_checkpoints, training_name
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import extend
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.studies import check_new, create, reopen
from hcpr_tune.training import manifest
from tests.search.histories import history_of, job, lost, reached, suggested


def events_of(study):
    params = params_of(study.recipe, study.space)
    events = [suggested(0, params, "published"), *reached(0, 0, 1, 300), *reached(0, 1, 2, 400), *reached(0, 2, 4, 500)]
    for number, score in ((1, 450), (2, 350), (3, 250)):
        events += [suggested(number, params), *reached(number, 0, 1, score)]
    return [*events, *reached(1, 1, 2, 600), suggested(4, params), *lost(4, 0, 1)]


def test_the_table_has_a_row_per_trial_with_shares_and_intervals(small_study):
    history = history_of(*events_of(small_study), last_epoch=4)
    rows = list(csv.DictReader(io.StringIO(trials_csv(small_study, history))))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["status"] for row in rows] == ["completed", "stopped", "stopped", "stopped", "diverged"]
    assert rows[1]["robust_accuracy_validation"] == "0.600000"
    low, high = Proportion(600, 1000).interval
    assert (rows[1]["robust_accuracy_validation_low"], rows[1]["robust_accuracy_validation_high"]) == (
        f"{low:.6f}",
        f"{high:.6f}",
    )
    assert rows[1]["epoch_of_score"] == "2"
    assert rows[0]["hcpr.scale"] == "8.0"
    assert rows[4]["reason"] == "the loss is not finite"
    assert rows[4]["robust_accuracy_validation"] == ""


def test_checkpoints_are_kept_for_promotable_and_best_trials_only(small_study):
    history = history_of(*events_of(small_study), last_epoch=4)
    # 1, 2 and 3 may still be promoted from their latest rung; the best rung of trial 0 is its last one, and 4 has none.
    assert kept_checkpoints(small_study, history) == {(0, 4), (1, 2), (2, 1), (3, 1)}


def fake_checkpoint(folder, trial, epoch):
    path = folder.checkpoints / training_name(Trial(trial, {}, "tpe"), epoch, restarted=False) / f"epoch_{epoch:04d}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(f"weights {trial} {epoch}".encode())
    manifest.write(path)


def test_files_follow_the_history_and_are_rebuilt_from_it(small_study, tmp_path):
    folder = StudyFolder(tmp_path / "study")
    create(folder, small_study)
    history = history_of(last_epoch=4)
    files = ResultFiles(StoredStudy(folder, small_study, history))
    for trial, epoch in ((0, 1), (0, 2), (0, 4), (1, 1), (1, 2), (2, 1), (3, 1)):
        fake_checkpoint(folder, trial, epoch)
    for event in events_of(small_study):
        if history.apply(event):
            files.on_event(event, history)
    files.on_event({"event": "end"}, history)
    assert (folder.best / "model.safetensors").read_bytes() == b"weights 1 2"
    metrics = json.loads((folder.best / "metrics.json").read_text())
    assert (metrics["trial"], metrics["published"]["trial"], metrics["chosen_from"]) == (1, 0, 4)
    left = {(int(p.parent.name[-4:]), int(p.name[-4:])) for p in folder.checkpoints.glob("*/*")}
    assert left == kept_checkpoints(small_study, history)
    before = {path: path.read_bytes() for path in folder.root.rglob("*.jsonl")} | {
        folder.table: folder.table.read_bytes()
    }
    assert before
    for path in before:
        path.unlink()
    ResultFiles(StoredStudy(folder, small_study, history))
    assert {path: path.read_bytes() for path in before} == before
    lines = [json.loads(line) for line in (folder.trial(0) / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[3]["robust_accuracy_validation"] == 0.5


def test_a_search_that_goes_on_writes_only_what_is_not_there_yet(small_study, tmp_path):
    folder, history = StudyFolder(tmp_path), history_of(*events_of(small_study), last_epoch=4)
    ResultFiles(StoredStudy(folder, small_study, history))
    files = {path: path.stat() for path in folder.root.glob("trials/*/*")}
    assert len(files) == 10
    cut = folder.trial(1) / "metrics.jsonl"
    whole = cut.read_text()
    cut.write_text(whole[:-20])
    ResultFiles(StoredStudy(folder, small_study, history))
    assert cut.read_text() == whole
    for path, before in files.items():
        assert path == cut or (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_running_trial_keeps_what_it_goes_on_from(small_study):
    events = [*events_of(small_study), job(1, 2, 4)]
    assert (1, 2) in kept_checkpoints(small_study, history_of(*events, last_epoch=4))


def test_a_taken_name_and_an_unwritable_storage_are_refused(small_study, tmp_path):
    create(check_new(tmp_path, "one"), small_study)
    with pytest.raises(
        InputError, match=r'--name "one" is taken: .* continue it with --resume one, or choose another --name'
    ):
        check_new(tmp_path, "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--storage .*file/below cannot be written: .*file is not a folder"):
        check_new(tmp_path / "file" / "below", "two")
    for name in ("../up", "", ".hidden", "a/b", "x" * 101):
        with pytest.raises(InputError, match="a study's name must be"):
            check_new(tmp_path, name)


def test_a_study_that_was_extended_twice_keeps_every_rung(small_study, tmp_path):
    study = replace(
        small_study, recipe=replace(small_study.recipe, pace=replace(small_study.recipe.pace, over="segment"))
    )
    folder = check_new(tmp_path, "one")
    record = Record(folder.record, create(folder, study).history)
    budgets = [{"epochs": 8, "trials": 9}, {"epochs": 16}, {"hours": 2.0}]
    for budget in budgets:
        record.append({"event": "extend", "time": 0.0, "budget": budget})
    record.close()
    _, again, history = reopen(tmp_path, "one")
    assert again.rungs == (1, 2, 4, 8, 16)
    assert (again.settings.budget.trials, again.settings.budget.hours) == (9, 2.0)
    assert again.fingerprint == study.fingerprint
    assert history.last_epoch == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr_schedule.mode": "single"}, "its lr_schedule.mode is single"),
        ({"pace.over": "trial"}, "its pace.over is trial"),
    ],
)
def test_a_top_rung_that_would_change_what_was_trained_is_refused(space_file, change, words):
    study = read_study(space_file, [("pace.over", "segment"), *change.items()])
    with pytest.raises(InputError, match=words):
        extend(study, {"epochs": 8})
    with pytest.raises(InputError, match="--epochs must be above the 4 epochs"):
        extend(study, {"epochs": 4})


def test_of_two_that_begin_one_study_at_once_the_second_is_refused(small_study, tmp_path):
    first, second = check_new(tmp_path, "one"), check_new(tmp_path, "one")
    create(first, small_study)
    before = first.study.read_bytes()
    with pytest.raises(InputError, match='--name "one" is taken: another process has just begun'):
        create(second, replace(small_study, settings=replace(small_study.settings, description="another")))
    assert first.study.read_bytes() == before
    assert [path.name for path in first.root.iterdir()] == ["study.toml"]


def test_default_names_of_one_second_differ(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20261124-001851")
    names = {new_name("small") for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"small-20261124-001851-[0-9a-f]{6}", name) for name in names)


def test_a_table_for_spreadsheets_guards_texts_and_leaves_numbers(small_study):
    reasons = ["=1+1", "+1", "-1", "@x", "\tx", "\r=x", "a=1", "", "\udc80"]
    events = [suggested(number, {"hcpr.scale": -0.1, "pace.shape": "-x"}) for number in range(len(reasons))]
    history = history_of(*events, last_epoch=4)
    for trial, reason in zip(history.trials.values(), reasons, strict=True):
        trial.reason = reason
    rows = list(csv.DictReader(io.StringIO(trials_csv(small_study, history), newline="")))
    assert [row["reason"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\n=x", "a=1", "", "\\udc80"]
    assert {(row["hcpr.scale"], row["pace.shape"]) for row in rows} == {("-0.1", "'-x")}


def test_only_one_process_writes_a_record(small_study, tmp_path):
    folder = check_new(tmp_path, "one")
    record = Record(folder.record, create(folder, small_study).history)
    with pytest.raises(InputError, match="is being searched by another process"):
        Record(folder.record, History(4))
    record.close()
    reopen(tmp_path, "one")


def test_a_study_is_reopened_as_it_was(small_study, tmp_path):
    create(check_new(tmp_path, "one"), small_study)
    folder, study, history = reopen(tmp_path, "one")
    assert folder.root == tmp_path / "one"
    assert study == small_study
    assert history.trials == {}
    with pytest.raises(InputError, match=r'--resume "two": there is no study in .*; known there: one'):
        reopen(tmp_path, "two")


def test_a_search_that_was_killed_before_its_study_was_written_can_be_begun_again(small_study, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".study.toml.4321").write_text("half")
    create(check_new(tmp_path, "one"), small_study)
    assert reopen(tmp_path, "one")[1] == small_study
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine.txt").write_text("something of the user's")
    with pytest.raises(InputError, match='--name "two" is taken'):
        check_new(tmp_path, "two")
