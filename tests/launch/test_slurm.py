"""The Slurm scripts with stubs for Slurm and the search, and a real Ray between them."""

from __future__ import annotations

import json
import signal

import pytest

from tests.launch.conftest import CLUSTER, eventually

pytestmark = pytest.mark.cluster

SLURM = CLUSTER / "slurm"


def sees(sandbox, nodes: int, cpus: int) -> dict:
    """What the search saw of the cluster, once it sees this."""

    def look():
        if not sandbox.note.exists():
            return None
        seen = json.loads(sandbox.note.read_text())
        return seen if (seen["nodes"], seen["cpus"]) == (nodes, cpus) else None

    return eventually(look)


def test_a_job_of_two_nodes_goes_back_into_the_queue_when_its_time_is_up(sandbox):
    job = sandbox.job()
    environment = job | {"SLURM_JOB_NODELIST": "127.0.0.1,localhost"}
    batch = sandbox.start("sbatch", SLURM / "search.sbatch", "--gpus-per-trial", "0.5", **environment)
    seen = sees(sandbox, nodes=2, cpus=2)
    address = f"127.0.0.1:{20000 + 3 * job['SLURM_JOB_ID']}"
    assert (
        seen["arguments"]
        == (
            "tune --space default --name mine --continue --storage /shared/results"
            f" --address {address} --wait 600 --gpus-per-trial 0.5"
        ).split()
    )
    secret = (sandbox.home / ".ray" / "auth_token").read_text()
    assert secret.encode() not in sandbox.command_lines()

    batch.send_signal(signal.SIGTERM)
    assert batch.wait(timeout=60) == 130
    sandbox.check_ended()
    log = sandbox.log.read_text()
    assert f"scontrol requeue {job['SLURM_JOB_ID']}\n" in log
    assert log.count("srun ") == 2
    assert "--nodelist=localhost" in log
    assert secret not in sandbox.output.read_text() + log


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [("signal", "CANCELLED", 130), ("0", "RUNNING", 0), ("2", "RUNNING", 2), ("130", "RUNNING", 130)],
    ids=["cancelled by the user", "ended", "bad input", "stopped by the user"],
)
def test_no_other_end_goes_back_into_the_queue(sandbox, monkeypatch, end, state, code):
    # Without Ray, which the other tests have: a head that only listens, and a search that only ends.
    binaries = sandbox.home.parent / "bin"
    listen = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(100)"
    (binaries / "ray").write_text(f'#!/usr/bin/env bash\nexec python -c "{listen}" "$GCS_PORT"\n')
    (binaries / "ray").chmod(0o755)
    (binaries / "hcpr_tune").write_text(
        '#!/usr/bin/env bash\necho here >"$STUB_NOTE"\ntrap "exit 130" TERM\n'
        "while [[ ! -e $STUB_NOTE.end ]]; do sleep 0.1; done\nexit $(cat $STUB_NOTE.end)\n"
    )
    batch = sandbox.start("sbatch", SLURM / "search.sbatch", **sandbox.job(), SLURM_JOB_NODELIST="127.0.0.1")
    eventually(sandbox.note.exists)
    sandbox.state.write_text(state)
    if end == "signal":
        batch.send_signal(signal.SIGTERM)
    else:
        sandbox.note.with_suffix(".json.end").write_text(end)
    assert batch.wait(timeout=30) == code
    sandbox.check_ended()
    assert "requeue" not in sandbox.log.read_text()


@pytest.mark.long
def test_workers_join_a_long_head_and_leave_it(sandbox):
    address_file = sandbox.home / ".hcpr_tune" / "mine.address"
    of_worker = sandbox.job()
    # The worker is first out of the queue and waits.
    worker = sandbox.start("sbatch", "--array=0-1", SLURM / "workers.sbatch", **of_worker)
    head = sandbox.start("sbatch", SLURM / "head.sbatch", "--set", "resources.workers=2", **sandbox.job())
    # The head has no CPUs for trials.
    seen = sees(sandbox, nodes=2, cpus=1)
    assert seen["arguments"][-2:] == ["--set", "resources.workers=2"]
    assert seen["arguments"][seen["arguments"].index("--address") + 1] == address_file.read_text().strip()

    # The short job's time is up: it leaves in an orderly way and queues again, for the search goes on.
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    sees(sandbox, nodes=1, cpus=0)
    assert f"scontrol requeue {of_worker['SLURM_JOB_ID']}\n" in sandbox.log.read_text()

    # Another one is there when the search ends: both jobs end, and nobody queues again.
    worker = sandbox.start("sbatch", "--array=0", SLURM / "workers.sbatch", **sandbox.job())
    sees(sandbox, nodes=2, cpus=1)
    sandbox.note.with_suffix(".end").write_text("0")
    assert head.wait(timeout=60) == 0
    assert worker.wait(timeout=60) == 0
    assert not address_file.exists()
    assert sandbox.log.read_text().count("scontrol requeue") == 1
    sandbox.check_ended()
