"""Files written whole or not at all, and what is left of those whose writer died."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from hcpr_tune.common.files import OLD_DRAFT_SECONDS, draft_of, sweep, write_new, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_draft_of_a_process_that_was_killed_is_swept_and_others_are_not(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from hcpr_tune.common.files import draft_of;"
        "draft_of(Path(sys.argv[1])).write_text('half'); draft_of(Path(sys.argv[1]).with_name('epoch_0001')).mkdir();"
        " os.kill(os.getpid(), 9)"
    )
    (tmp_path / "best").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "best" / "recipe.toml")], check=False)
    assert len(names(tmp_path / "best")) == 2
    own = draft_of(tmp_path / "trials.csv")
    own.write_text("being written")
    elsewhere = tmp_path / ".trials.csv.00000000-1-0123456789ab"
    old = tmp_path / ".trials.csv.00000000-1-0123456789ac"
    for path in (elsewhere, old, tmp_path / ".hidden", tmp_path / "trials.csv"):
        path.write_text("x")
    then = time.time() - OLD_DRAFT_SECONDS - 60
    os.utime(old, (then, then))
    assert len(sweep(tmp_path)) == 3
    assert names(tmp_path) == sorted([own.name, elsewhere.name, ".hidden", "best", "trials.csv"])
    assert names(tmp_path / "best") == []


def test_a_new_file_is_written_once(tmp_path):
    write_new(tmp_path / "study.toml", "one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "study.toml", "two")
    assert (tmp_path / "study.toml").read_text() == "one"
    assert names(tmp_path) == ["study.toml"]


def test_a_new_file_is_written_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    write_new(tmp_path / "study.toml", "one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "study.toml", "two")
    write_whole(tmp_path / "study.toml", "three")
    assert (tmp_path / "study.toml").read_text() == "three"
    assert names(tmp_path) == ["study.toml"]
