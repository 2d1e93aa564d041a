"""A search whose words nobody takes: it ends with its results."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cluster.test_search import in_folder, record_of
from tests.conftest import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.long]


def test_a_search_goes_on_on_a_full_disk_and_without_a_reader(tmp_path):
    tune = [sys.executable, str(ROOT / "launch" / "tune.py"), "--dashboard-host", "none"]
    in_folder(tmp_path)
    with open("/dev/full", "w") as full:  # noqa: PTH123
        begun = [*tune, "--space", "small.toml", "--name", "one", "--trials", "2"]
        done = subprocess.run(begun, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the work continues") == done.stderr.count("\n") == 1
    assert record_of(tmp_path, "one")[-1]["reason"] == "finished"
    process = subprocess.Popen(
        [*tune, "--resume", "one", "--trials", "+1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    _, said = process.communicate(timeout=180)
    assert (process.returncode, said) == (0, "")
    events = record_of(tmp_path, "one")
    assert events[-1]["reason"] == "finished"
    assert sum(event["event"] == "trial" for event in events) == 3
    assert (tmp_path / "results" / "one" / "report.html").is_file()
