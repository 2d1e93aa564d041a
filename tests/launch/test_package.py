"""What `pip install hcpr_tune` brings: a wheel, installed where no checkout is, searches in an empty folder."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built by what is installed here: nothing is downloaded."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel, and with the other packages of this one but no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # What is on the path by a .pth file has its own .pth files ignored: those of editable installs.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    subprocess.run(
        [*command, "--no-deps", "--no-index", "--ignore-installed", wheel], check=True, capture_output=True, timeout=120
    )
    return folder / "bin"


def test_the_wheel_says_what_it_is_and_its_readme_needs_no_file_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
    assert {"hcpr_tune/py.typed", "hcpr_tune/search_spaces/default.toml"} <= set(names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    for field in ("Author", "Keywords", "Classifier", "Project-URL", "License-Expression", "Requires-Python"):
        assert said[field], field
    links = re.findall(r"\]\(([^)\s]+)\)", str(said.get_payload()))
    assert links
    assert all(re.match(r"https?:|#", link) for link in links), links
    assert any(re.search(r"/raw/HEAD/docs/\w+\.png$", link) for link in links)


@pytest.mark.cluster
def test_it_searches_in_an_empty_folder(installed, tmp_path):
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    small = ["budget.trials=1", "recipe.epochs=2", "early_stopping.first_rung=1", "early_stopping.calibration=1"]
    small += ["replication.replicates=0", "verdict.seconds_at_end=0", "model.width=4", "first_points=[]"]
    more = [word for one in small for word in ("--set", one)]
    done = subprocess.run(
        [installed / "hcpr_tune", "tune", "--name", "first", "--dashboard-host", "none", *more],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study        results/first" in done.stdout
    assert (tmp_path / "results/first/best/model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
    place = subprocess.run(
        [installed / "python", "-c", "import hcpr_tune; print(hcpr_tune.__file__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert place.stdout.startswith(str(installed.parent))


def pins(file: str) -> dict[str, str]:
    """The versions of a constraints file by normal name."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): pinned for name, _, pinned in found}


def test_both_files_of_versions_lie_within_the_bounds():
    tested, lowest = pins("constraints.txt"), pins("constraints-lowest.txt")
    for text in PROJECT["dependencies"]:
        needed = Requirement(text)
        name = canonicalize_name(needed.name)
        assert needed.specifier.contains(tested[name]), name
        (least,) = (one.version for one in needed.specifier if one.operator == ">=")
        assert lowest[name] == least or lowest[name].startswith(f"{least}."), name
