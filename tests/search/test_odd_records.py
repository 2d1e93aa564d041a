"""A record that was sealed rightly and says odd things gives its numbers or one clear line, and never a traceback."""

from __future__ import annotations

import json
import random
import re
from io import StringIO

import pytest
from rich.console import Console

from hcpr_tune.api.listing import told
from hcpr_tune.cli.studies.list import row
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.ledger import ledger
from hcpr_tune.search.record.lines import sealed_row
from hcpr_tune.search.record.metrics import best_metrics, trials_csv
from hcpr_tune.search.record.results import StudyFolder, kept_checkpoints, trained_recipe
from hcpr_tune.search.scheduling.asha import next_decision
from hcpr_tune.search.spec.points import with_params
from hcpr_tune.search.storage.lease import living_lease_holder
from hcpr_tune.search.storage.studies import create, reopen
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.search.suggestion.warm_start import warm_start
from hcpr_tune.simulation.curves.recorded import measured, read_old, recorded_curves
from hcpr_tune.simulation.replay import driver_waits
from hcpr_tune.verdict.decision.conclusion import conclude
from hcpr_tune.verdict.state import read_state
from hcpr_tune.views.forecast import plan_lines
from hcpr_tune.views.report.report import ReportContext, report_html
from hcpr_tune.views.status import answer
from hcpr_tune.views.terminal.live_view import view_of
from tests.search.histories import history_of
from tests.search.odd_records import base_events, mutated, resealed
from tests.verdict.facts import judged, plan_of

SEED = 15


@pytest.fixture
def folder(tmp_path, small_study) -> StudyFolder:
    made = StudyFolder(tmp_path / "results" / "odd")
    create(made, small_study)
    return made


def look(folder: StudyFolder, page: bool) -> None:
    """All that reads a study: `list`, `status`, the report, and what goes on with it. Raises `InputError`."""
    _, study, history = reopen(folder.root.parent, folder.root.name)
    one = told(str(folder.root.parent), folder.root.name)
    assert one is not None
    assert row(one)
    json.dumps(one, allow_nan=False)
    assert one["state"] != "unreadable", one["reason"]
    json.dumps(answer(folder, study, history, alive=False), allow_nan=False)
    Console(file=StringIO(), width=100).print(view_of(study, history, living_lease_holder(folder.objects) is not None))
    trials_csv(study, history)
    json.dumps(ledger(history, study.asha_config), allow_nan=False)
    list(plan_lines(study))
    for trial in history.trials.values():
        with_params(study.recipe, trial.params)
    if (best := history.best_trial) is not None:
        json.dumps(best_metrics(study, history), allow_nan=False)
        trained_recipe(study, best)
    kept_checkpoints(study, history)
    if page:
        report_html(ReportContext(folder, study, history))
        warm_start(folder.root, study, 0.0)
        old = read_old(folder.root)
        measured(old, study)
        recorded_curves([old], study)
        driver_waits(old.events)
    next_decision(history, study.asha_config)
    if page:
        Suggester(study).suggest(len(history.trials), history)


def is_clear(line: str) -> bool:
    """Fails for a message that is none for people: of several lines, without end, or with the name of an exception."""
    assert "\n" not in line
    assert len(line) < 1000, line
    assert not re.search(r"makes no sense to this version: \w+(Error|Iteration)", line), line
    return True


def odd_looks(folder: StudyFolder, study, count: int, seed: int, page_every: int) -> int:
    """How many of `count` odd records were refused; fails at the first that ends in anything but a clear line."""
    draws, refused = random.Random(seed), 0
    events = base_events(study)
    for number in range(count):
        odd = mutated(events, draws)
        folder.record.write_bytes(resealed(odd))
        try:
            look(folder, page=number % page_every == 0)
        except InputError as error:
            refused += is_clear(str(error))
        except Exception as error:
            pytest.fail(f"seed {seed}, record {number}: {type(error).__name__}: {error}\n{resealed(odd)!r}")
    return refused


def test_the_record_that_is_made_odd_is_none_before(folder, small_study):
    folder.record.write_bytes(sealed_row(base_events(small_study)))
    look(folder, page=True)
    _, _, history = reopen(folder.root.parent, "odd")
    assert len(history.trials) == 7
    assert (history.test_accesses[0]["numbers"], history.losses) == ({"trial 1": 0.5}, ["a line", "a checkpoint"])


def test_odd_records_give_one_clear_line(folder, small_study):
    assert odd_looks(folder, small_study, 40, SEED, 20) > 15


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(10))
def test_many_odd_records_give_one_clear_line(folder, small_study, part):
    assert odd_looks(folder, small_study, 300, SEED + 1 + part, 10) > 100


def odd_verdicts(folder: StudyFolder, study, count: int, seed: int) -> int:
    """The same of a verdict's record."""
    draws, refused = random.Random(seed), 0
    facts = judged(plan_of("a", "b"), {"a": 0.8, "b": 0.6})
    record = folder.root / "verdict" / "record.jsonl"
    record.parent.mkdir()
    for number in range(count):
        record.write_bytes(resealed(mutated(facts.events, draws)))
        try:
            state = read_state(record)
            json.dumps(conclude(study, history_of(), "x", facts.plan, state), allow_nan=False)
        except InputError as error:
            refused += is_clear(str(error))
        except Exception as error:
            pytest.fail(f"seed {seed}, record {number}: {type(error).__name__}: {error}")
    return refused


def test_odd_records_of_a_verdict_give_one_clear_line(folder, small_study):
    assert odd_verdicts(folder, small_study, 60, SEED) > 20


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_odd_records_of_a_verdict_give_one_clear_line(folder, small_study):
    assert odd_verdicts(folder, small_study, 1000, SEED + 1) > 300


def test_a_study_with_an_odd_record_does_not_end_the_list_of_the_others(folder, small_study, capsys):
    from hcpr_tune.cli import main as cli

    storage = folder.root.parent
    for name in ("a", "z"):
        one = StudyFolder(storage / name)
        create(one, small_study)
        one.record.write_bytes(sealed_row(base_events(small_study)))
    events = base_events(small_study)
    for place, event in enumerate(events):
        if event["event"] == "epoch":
            events[place] = event | {"seconds_attack": 10**400}
    folder.record.write_bytes(resealed(events))
    assert cli.main(["list", "--storage", str(storage)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^a .*^z ", out, re.MULTILINE | re.DOTALL)
    assert "odd cannot be read: " in out
    assert "record.jsonl, line 4 makes no sense to this version: seconds_attack must be a finite number" in out
