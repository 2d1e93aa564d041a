"""What can be known of the recipes without the systems that they are for."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.launch.conftest import CLUSTER

SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in CLUSTER.rglob("*") if path.suffix in (".sh", ".sbatch") and path.is_file()
)
KUBERNETES = CLUSTER / "kubernetes"


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck")
    if program is None:
        message = "shellcheck is not installed (Debian: apt-get install shellcheck)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    assert len(SCRIPTS) == 8
    done = subprocess.run([program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not name.endswith("common.sh")])
def test_scripts_stop_at_the_first_error(name):
    text = (ROOT / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    if name.endswith(".sbatch"):
        commands = text.index("\nset -euo")
        assert "#SBATCH --requeue" in text[:commands]
        assert "#SBATCH --signal=B:TERM@60" in text[:commands]
        assert "#SBATCH" not in text[commands:], "Slurm does not read options after the first command"
    else:
        assert os.access(ROOT / name, os.X_OK)


def test_nowhere_does_a_dashboard_listen_to_the_world_or_a_token_stand_on_a_command_line():
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "0.0.0.0" not in text, path
            assert not re.search(r"--from-literal|RAY_AUTH_TOKEN=[^\"]", text), path


@pytest.fixture
def aws() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def test_ray_accepts_the_autoscaled_cluster(aws, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(aws))
    validate_config(config)
    with pytest.raises(Exception, match="node_config"):
        broken = copy.deepcopy(config)
        del broken["available_node_types"]["gpu"]["node_config"]
        validate_config(broken)


def test_the_autoscaled_cluster_is_what_it_says(aws):
    head, worker = aws["available_node_types"]["head"], aws["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    for node in (head, worker):
        assert node["node_config"]["IamInstanceProfile"]["Name"]
        assert node["node_config"]["ImageId"] == head["node_config"]["ImageId"]
    assert aws["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in aws["setup_commands"]
    for commands in (aws["head_start_ray_commands"], aws["worker_start_ray_commands"]):
        assert "export RAY_AUTH_MODE=token" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in aws["head_start_ray_commands"][-1]
    for local in list(aws["file_mounts"].values())[1:]:
        assert (ROOT / local).exists(), local


FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "entrypoint",
        "submissionMode",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    },
    "cluster": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "head": {"serviceType", "rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "pod": {"terminationGracePeriodSeconds", "securityContext", "containers", "volumes"},
    "container": {"name", "image", "env", "resources", "volumeMounts"},
}
"""The recipe's fields, by KubeRay's and Kubernetes' names: an unknown field would be dropped silently."""


def test_the_ray_job_is_consistent():
    job = yaml.safe_load((KUBERNETES / "rayjob.yaml").read_text())
    claim = yaml.safe_load((KUBERNETES / "storage.yaml").read_text())
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for found, name in (
        (job, ""),
        (spec, "spec"),
        (cluster, "cluster"),
        (head, "head"),
        *((w, "worker") for w in workers),
    ):
        assert set(found) == FIELDS[name], name
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert spec["backoffLimit"] > 0
    assert "--continue" in spec["entrypoint"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["authOptions"]["mode"] == "token"
    assert head["rayStartParams"]["num-cpus"] == "0"

    for group in (head, *workers):
        # Ray's options are texts; a number would be refused.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert set(pod) - {"tolerations"} == FIELDS["pod"]
        (container,) = pod["containers"]
        assert set(container) - {"ports"} == FIELDS["container"]
        assert container["image"] == head["template"]["spec"]["containers"][0]["image"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "emptyDir" not in volume]
        assert claims == [claim["metadata"]["name"]]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        key = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        # The operator looks for this key.
        assert key == {"name": cluster["authOptions"]["secretName"], "key": "auth_token"}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind])
    for group in workers:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        resources = group["template"]["spec"]["containers"][0]["resources"]
        # Extended resources cannot be asked for beyond what is given.
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"]
    mounted = [mount["mountPath"] for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]]
    assert any(f"--storage {path}/" in spec["entrypoint"] for path in mounted)

    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["resources"]["requests"]["storage"]
