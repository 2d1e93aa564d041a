"""Printed commands: a shell and our own parser read them as meant, wherever the study is and whatever it is called."""

from __future__ import annotations

import argparse
import html
import io
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hcpr_tune.api.search import options_again, resume_command
from hcpr_tune.cli import main as cli
from hcpr_tune.cli.options import ray_of
from hcpr_tune.common.buckets.location import Location
from hcpr_tune.common.shell import command, option, same_again, study_command, typed
from hcpr_tune.execution.connection.ray_options import RayOptions
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.settings import Budget
from hcpr_tune.search.storage.studies import reopen
from hcpr_tune.views.next_commands import about
from hcpr_tune.views.report.report import ReportContext, report_html
from hcpr_tune.views.terminal.search_output import print_plan, print_result, print_verdict
from tests.views.recorded import recorded
from tests.written import written

STORAGE = "my results"
WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda word: word != "--"
)
"""Without `--`, which argparse drops from any value."""
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
VERBS = ("status", "report", "stop", "logs", "clean", "verdict", "tune --resume")


def parsed(line: str) -> argparse.Namespace:
    """What our own parser makes of a command as a shell splits it."""
    program, *words = shlex.split(line)
    assert Path(program).name == "hcpr_tune"
    return cli.parser().parse_args(words)


@pytest.mark.parametrize("verb", VERBS)
@given(name=NAMES, storage=WORDS)
@settings(deadline=None, database=None, max_examples=40)
def test_a_command_about_a_study_means_that_study(verb, name, storage):
    read = parsed(study_command(verb, name, storage))
    assert (read.resume if verb == "tune --resume" else read.name) == name
    assert Path(read.storage) == Path(storage)


@given(path=WORDS)
@settings(deadline=None, database=None, max_examples=40)
def test_a_path_stays_what_it_is(path):
    assert parsed(command("tune", option("--space", path))).space == path
    assert parsed(command("train", option("--recipe", path), "--resume")).recipe == path


@given(storage=WORDS, name=NAMES)
@settings(deadline=None, database=None, max_examples=40)
def test_an_address_has_its_storage_and_its_name(storage, name):
    location = Location.parse(str(Path(storage) / name))
    assert (Path(str(location.parent)), location.name) == (Path(storage), name)


@pytest.mark.parametrize(
    ("address", "storage"),
    [
        ("s3://b/p/one", "s3://b/p"),
        ("s3://b/one?endpoint_override=http://h:9/x&scheme=http", "s3://b?endpoint_override=http://h:9/x&scheme=http"),
        ("/one", "/"),
        ("one", "."),
    ],
)
def test_the_storage_of_an_address(address, storage):
    location = Location.parse(address)
    assert (str(location.parent), location.name) == (storage, "one")


def test_a_program_whose_path_has_a_space_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my tools" / "python"))
    monkeypatch.setenv("PATH", "")
    assert shlex.split(typed("hcpr_tune")) == [str(tmp_path / "my tools" / "hcpr_tune")]
    monkeypatch.setattr(sys, "argv", ["x", "verdict", "one", "--storage", STORAGE])
    assert parsed(same_again()).storage == STORAGE


def test_the_way_on_after_an_interruption_has_all_that_it_needs(small_study):
    words = ["tune", "--storage", STORAGE, "--address", "h:1", "--wait", "9", "--dashboard-host", "none"]
    options = cli.parser().parse_args([*words, "--log-to", "mlflow"])
    stored = StoredStudy(StudyFolder(Path(STORAGE) / "one"), small_study, History(4))
    read = parsed(resume_command(stored, ray_of(options), options.log_to))
    for name in ("storage", "address", "wait", "dashboard_host", "log_to"):
        assert getattr(read, name) == getattr(options, name)
    assert read.resume == "one"


ABOUT_ONE = re.compile(
    r"hcpr_tune (?:tune --resume|verdict|status|report|stop|export|logs|clean|kill|enqueue|transfer) (?:one|none)\b(.*)"
)


def check_commands(text: str) -> None:
    """Every command about the study says where it lies."""
    found = ABOUT_ONE.findall(text)
    assert found, text
    for rest in found:
        assert html.unescape(rest).startswith(" --storage 'my results'"), rest


def check_whole(text: str) -> None:
    """Every command ends its line, and is one that can be given so; it is in quotes where it has to be."""
    check_commands(text)
    for line in text.splitlines():
        for begin in (found.start() for found in re.finditer(r"(?<!\S)\S*hcpr_tune [a-z]", line)):
            read = parsed(line[begin:])
            # `train` names a recipe by its path, which needs no storage.
            assert read.command == "train" or getattr(read, "storage", STORAGE) == STORAGE


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, small_study):
    monkeypatch.chdir(tmp_path)
    written(Path(STORAGE), "one", small_study, recorded(small_study, 6))
    return tmp_path


COMMANDS = (
    ["status", "one"],
    ["clean", "one", "--dry-run"],
    ["kill", "one", "3"],
    ["enqueue", "one", "--set", "hcpr.scale=8"],
    ["export", "one", "--onnx", "new.onnx"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_a_command_advises_is_complete(words, elsewhere, capsys):
    cli.main([*words, "--storage", STORAGE])
    out, err = capsys.readouterr()
    if "trial 3 has ended" in err:
        return
    check_whole((out + err).replace("hcpr_tune: error: ", ""))


def test_what_is_written_is_quoted(elsewhere, capsys):
    to = str(elsewhere / "small.toml")
    assert cli.main(["transfer", "one", "--storage", STORAGE, "--to", to, "--out", "a new one.toml"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert parsed(line.partition("then: ")[2]).space == "a new one.toml"


def test_what_a_search_says_is_complete_and_not_folded(elsewhere):
    """On a narrow terminal too, with the cluster that it ran on."""
    said = io.StringIO()
    console = Console(file=said, width=40, force_terminal=True, color_system=None)
    study = reopen(STORAGE, "one")
    more = options_again(study, RayOptions("h:1", 9, "none"))
    spent = replace(study.spec, settings=replace(study.spec.settings, budget=Budget(hours=1e-9)))
    print_plan(console, study)
    print_result(console, study._replace(spec=spent), about("report", study.folder), more)
    print_verdict(console, study, None, "no time", more)
    check_whole(said.getvalue())
    lines = said.getvalue().splitlines()
    for verb in ("verdict one", "tune --resume one"):
        (line,) = (line for line in lines if f"hcpr_tune {verb}" in line)
        assert line.endswith(" --address h:1 --wait 9 --dashboard-host none")


def test_a_report_and_a_status_are_complete(elsewhere):
    folder, study, history = reopen(STORAGE, "one")
    page = report_html(ReportContext(folder, study, history))
    check_commands(page)
    assert "--recipe &#x27;my results/one/best/recipe.toml&#x27;" in page or "best/recipe.toml" not in page
    check_commands(about("tune --resume", folder))


def test_the_holder_s_refusal_is_complete():
    from hcpr_tune.search.storage.lease import LeaseHolder, refusal

    holder = LeaseHolder("host", 1, "m", "began", "t", 0.0)
    check_whole(str(refusal(f"{STORAGE}/one", holder)))
    check_whole(str(refusal(f"--resume one: {STORAGE}/one", holder, f"{STORAGE}/one")))
