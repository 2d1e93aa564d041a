"""The image and the containers of compose.yaml, as far as they can be known without a Docker daemon."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from hcpr_tune.version import VERSION
from tests.conftest import ROOT
from tests.launch.conftest import CLUSTER

IMAGE = f"hcpr_tune:{VERSION}"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and arguments, without comments, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


@pytest.fixture(scope="module")
def context(instructions, tmp_path_factory) -> Path:
    """What the image has in /opt/hcpr_tune: what is copied from the checkout and not ignored."""
    folder = tmp_path_factory.mktemp("image")
    for name, words in instructions:
        if name == "COPY":
            *sources, target = words.split()
            for source in sources:
                assert not ignored(source), f"{source} is in .dockerignore"
                place = folder / target / Path(source).name if target == "./" else folder / target
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, place)
    return folder


def ignored(path: str) -> bool:
    """By the last line of .dockerignore that fits; what lies in a folder that is not ignored is not ignored either."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and (fnmatch(path, pattern) or path.startswith(f"{pattern}/")):
            found = not line.startswith("!")
    return found


def test_the_context_is_what_is_copied_and_nothing_else(instructions):
    copied = {word for name, words in instructions if name == "COPY" for word in words.split()[:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
    assert all(map(ignored, ("results", ".git", ".venv", "tests", "launch/grafana")))


def test_what_the_package_needs_is_installed_before_it_by_pinned_versions(instructions, context):
    commands = [words for name, words in instructions if name == "RUN"]
    assert len(commands) == 3
    listing, redirected, _ = commands[1].partition(" >requirements.txt ")
    assert redirected
    # The command of the image, run on its files.
    written = subprocess.run(
        [sys.executable, *shlex.split(listing)[1:]], cwd=context, capture_output=True, text=True, check=True
    ).stdout.split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert written == project["dependencies"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert {re.split(r"[\[<>=]", line)[0].lower() for line in written} <= pinned
    assert commands[1].endswith("--constraint constraints.txt --requirement requirements.txt")
    assert commands[2] == "pip install --no-cache-dir --no-deps ."


def test_what_a_build_of_the_package_reads_is_copied(context):
    project = tomllib.loads((context / "pyproject.toml").read_text())
    readme = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]
    needed = [*(one["path"] for one in readme), *project["project"]["license-files"]]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed += [*wheel["packages"], *wheel["force-include"]]
    for path in needed:
        assert (context / path).exists(), path


def test_the_image_runs_the_command_line_as_nobody_in_particular(instructions, context):
    last = dict(instructions)
    assert last["USER"] == "1000:1000"
    command = json.loads(last["CMD"])
    assert tomllib.loads((context / "pyproject.toml").read_text())["project"]["scripts"][command[0]]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=context, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: hcpr_tune")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


SERVICE = {
    *("build", "command", "depends_on", "deploy", "environment", "healthcheck", "hostname", "image", "init"),
    *("ports", "profiles", "restart", "shm_size", "stop_grace_period", "volumes"),
}
"""The fields of a service that are used, by the names in the Compose specification."""


def test_the_containers_are_a_head_workers_and_the_live_page(compose, context):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    services = compose["services"]
    assert set(services) == {"head", "worker", "gpu-worker", "watch"}
    for name, service in services.items():
        assert set(service) <= SERVICE, name
        assert service["image"] == IMAGE, name
        script = service["command"][0].removeprefix("/opt/hcpr_tune/")
        assert script == "hcpr_tune" or (context / script).exists(), script
        for volume in service["volumes"]:
            assert volume.split(":")[0] in compose["volumes"], name
    assert [name for name, service in services.items() if "build" in service] == ["head"]
    assert services["head"]["environment"] == {"NUM_CPUS": "0", "NUM_GPUS": "0"}
    for name in ("worker", "gpu-worker"):
        assert services[name]["command"][-1] == "head:6379"
        assert services[name]["depends_on"] == {"head": {"condition": "service_healthy"}}
        # The token that the head has made.
        assert "token:/home/ray/.ray" in services[name]["volumes"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert services["gpu-worker"]["profiles"] == ["gpu"]


def test_nothing_but_the_page_is_reached_and_that_from_this_machine_alone(compose):
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["watch"]
    assert services["watch"]["ports"] == ["127.0.0.1:8501:8501"]
    command = services["watch"]["command"]
    assert command[:4] == ["hcpr_tune", "watch", "--storage", "/shared/results"]
    assert "shared:/shared" in services["watch"]["volumes"]
    # It cannot read the cluster's token, and its own is on no command line.
    assert not any(volume.startswith("token:") for volume in services["watch"]["volumes"])
    assert "token" not in " ".join(command)
    assert "RAY_AUTH_TOKEN" not in (ROOT / "compose.yaml").read_text()


def test_the_commands_at_the_top_of_the_recipes_name_this_version():
    for path in (ROOT / "Dockerfile", CLUSTER / "kubernetes" / "rayjob.yaml", ROOT / "docs" / "cluster.md"):
        assert IMAGE in path.read_text(), path
        assert set(re.findall(r"hcpr_tune:(\d\S+)", path.read_text())) == {VERSION}, path


def test_docker_s_own_parsers_find_no_fault():
    """`docker compose config` and `hadolint` need no daemon."""
    checks = [["docker", "compose", "config", "--quiet"], ["hadolint", "Dockerfile"]]
    there = [command for command in checks if shutil.which(command[0]) and works(command[:2])]
    if not there:
        pytest.skip("neither docker compose nor hadolint is here")
    for command in there:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def works(command: list[str]) -> bool:
    question = [command[0], "--version"] if command[0] == "hadolint" else [*command, "version"]
    return not subprocess.run(question, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
