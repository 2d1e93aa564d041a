"""Numbers of any size in any option: a law and one line, at once."""

from __future__ import annotations

import time

import pytest

from hcpr_tune.cli import main as cli
from tests.conftest import SMALL_SPACE
from tests.views.recorded import recorded
from tests.written import written

HUGE = ("9" * 5000, "1" + "0" * 400, "1e999", "inf", "-inf", "nan", "\u00b2", "", "1e400", "0x10", "-" + "9" * 5000)
PLAN = ["plan", "--space", "small.toml", "--curves", "curves.csv"]
OPTIONS = {
    "--wait": ["stop", "one"],
    "TRIAL": ["kill", "one"],
    "--trial": ["transfer", "one", "--to", "small.toml"],
    "--images": ["evaluate", "--model", "results/one/best"],
    "--workers": PLAN,
    "--repeats": PLAN,
    "--seconds": PLAN,
    "--deaths": PLAN,
    "--back": PLAN,
    "--join-over": PLAN,
    "--speeds": PLAN,
    "--epoch-seconds": PLAN,
    "--driver-rate": PLAN,
    **{
        name: ["tune", "--resume", "one", "--dry-run"]
        for name in ("--trials", "--epochs", "--hours", "--worker-hours", "--audit")
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from hcpr_tune.search.spec.study_file import read_study

    root = tmp_path_factory.mktemp("numbers")
    (root / "small.toml").write_text(SMALL_SPACE, encoding="utf-8")
    lines = [f"{run},{epoch},0.{epoch + run}" for run in range(2) for epoch in range(1, 5)]
    (root / "curves.csv").write_text("\n".join(["run,epoch,score", *lines, ""]), encoding="utf-8")
    study = read_study(root / "small.toml")
    written(root / "results", "one", study, recorded(study, 6))
    return root


@pytest.mark.parametrize("option", OPTIONS)
def test_it_is_one_line_with_the_law(option, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for text in HUGE:
        given = [f"{option}={text}"] if option.startswith("--") else [text]
        began = time.monotonic()
        try:
            code = cli.main([*OPTIONS[option], *given])
        except SystemExit as done:
            code = done.code
        said = capsys.readouterr().err
        assert (code, said.count("\n")) == (2, 1), (text, said)
        assert option in said or "required: TRIAL" in said or "arguments: -" in said, said
        assert len(said) < 400, said
        assert time.monotonic() - began < 20
    assert sorted(path.name for path in folder.iterdir()) == ["curves.csv", "results", "small.toml"]
