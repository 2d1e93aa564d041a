"""Searches in MLflow and Weights & Biases, with the real packages: a database of MLflow's, and W&B offline."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.views.trackers import trackers
from hcpr_tune.views.trackers.tracked import points_of
from hcpr_tune.views.trackers.trackers import TRACKERS, Service, TrackerView, check_tracker, harmless
from tests.search.histories import begin, job, job_end
from tests.views.recorded import recorded, written
from tests.views.wandb_server import wandb_server

# SQLAlchemy warns of what MLflow does with it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine takes its time to import the packages."""
    monkeypatch.setattr(trackers, "INTERRUPTED_SECONDS", 90.0)
    monkeypatch.setattr(trackers, "FINISHED_SECONDS", 90.0)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database of MLflow's; it takes seconds to create one."""
    package = pytest.importorskip("mlflow", reason="no MLflow: pip install 'hcpr_tune[mlflow]'")
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    package.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow(empty_database, tmp_path, monkeypatch):
    """MLflow with a database of its own."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    return mlflow_runs


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """W&B without a connection, in a folder of its own."""
    package = pytest.importorskip("wandb", reason="no W&B: pip install 'hcpr_tune[wandb]'")
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true"), ("ERROR_REPORTING", "false")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield lambda: wandb_runs(tmp_path / "wandb")
    package.teardown()


@dataclass
class Found:
    """A run as the tracker has it: its values by step, its parameters, its tags, its end, and its parent or group."""

    identity: str
    name: str
    curves: dict[str, list[tuple[int, float]]]
    params: dict[str, Any]
    tags: dict[str, str]
    end: str
    belongs: str


def mlflow_runs() -> dict[str, Found]:
    from mlflow import MlflowClient

    client = MlflowClient()
    found = {}
    for run in client.search_runs([client.get_experiment_by_name("ours").experiment_id]):
        names = run.data.metrics
        curves = {n: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, n)] for n in names}
        tags = {name.removeprefix("hcpr_tune."): value for name, value in run.data.tags.items()}
        found[tags["run"]] = Found(
            run.info.run_id,
            run.info.run_name,
            {name: sorted(curve) for name, curve in curves.items()},
            dict(run.data.params),
            tags,
            f"{tags['state']}, {run.info.status}" if "state" in tags else run.info.status,
            tags.get("mlflow.parentRunId", ""),
        )
    return found


def wandb_runs(folder: Path) -> dict[str, Found]:
    """What lies in the folders that `wandb sync` would send."""
    found: dict[str, Found] = {}
    for path in folder.glob("offline-run-*/run-*.wandb"):
        run, state, exit_code, curves = None, "", None, {}
        for kind, record in records_when_ended(path):
            if kind == "run":
                run = record.run
            elif kind == "exit":
                exit_code = record.exit.exit_code
            elif kind == "summary":
                state = {one.key: json.loads(one.value_json) for one in record.summary.update}.get("state", state)
            elif kind == "history":
                values = {
                    one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in record.history.item
                }
                for name in values.keys() - {"_step", "_timestamp", "_runtime"}:
                    curves.setdefault(name, []).append((values["_step"], values[name]))
        assert run is not None
        key = run.run_id.rpartition("-")[2]
        assert key not in found, "one folder for each run"
        params = {one.key: json.loads(one.value_json) for one in run.config.update}
        tags = dict(tag.split(" ", 1) for tag in run.tags)
        found[key] = Found(run.run_id, run.display_name, curves, params, tags, f"{state}, {exit_code}", run.run_group)
    return found


def records_when_ended(path: Path) -> list[tuple[str, Any]]:
    """The records of a run that was closed. W&B's own process writes them a moment later."""
    from wandb.proto.wandb_internal_pb2 import Record

    until = time.monotonic() + 20
    while True:
        records = [Record.FromString(data) for data in leveldb_records(path.read_bytes())]
        kinds = [record.WhichOneof("record_type") for record in records]
        if "exit" in kinds:
            return list(zip(kinds, records, strict=True))
        assert time.monotonic() < until, kinds
        time.sleep(0.05)


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log: chunks of blocks, each with checksum, length and kind (whole, first, middle, last)."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def tell(view: TrackerView, history: History, *events: Event) -> None:
    for event in events:
        if history.apply(event):
            view.on_event(event, history)


def session(name: str, folder: StudyFolder, study: StudySpec, history: History, *events: Event) -> TrackerView:
    """A session of a search that is told these events, and ends."""
    view = TrackerView(name, StoredStudy(folder, study, history))
    tell(view, history, *events)
    view.close()
    return view


def begun(tmp_path: Path, study: StudySpec) -> tuple[StudyFolder, History]:
    """A study that has just been begun."""
    folder = written(tmp_path / "results" / "mine", study, 0)
    history = History(study.recipe.epochs, study.goal)
    history.apply(begin())
    return folder, history


ENDS = {
    "mlflow": {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"},
    "wandb": {"completed": "0", "stopped": "0", "diverged": "1", "failed": "1"},
}


def as_recorded(
    history: History, found: dict[str, Found], name: str, study: StudySpec, study_name: str = "mine"
) -> None:
    """Every run is there once, with every point of the record once."""
    assert set(found) == {"study", *(f"trial_{number:04d}" for number in history.trials)}
    for trial in history.trials.values():
        run = found[f"trial_{trial.number:04d}"]
        points = points_of(history, trial)
        wanted: dict[str, list[Any]] = {}
        for point in points:
            for tag, value in point.values.items():
                wanted.setdefault(tag, []).append((point.step, pytest.approx(value)))
        assert run.curves == wanted
        assert run.params.items() >= {k: str(v) if name == "mlflow" else v for k, v in trial.params.items()}.items()
        assert run.params["source"] == trial.source
        assert run.tags.items() >= {"study": study_name, "trial": str(trial.number)}.items()
        assert study.fingerprint.startswith(run.tags["fingerprint"][:40])
        assert run.end == f"{trial.state}, {ENDS[name][trial.state]}"
    steps = [step for step, _ in found["study"].curves["best/robust_accuracy_validation"]]
    assert steps == sorted(set(steps))
    last = found["study"].curves["best/robust_accuracy_validation"][-1][1]
    assert last == pytest.approx(history.ranked()[0].score)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_search_is_copied_with_a_run_for_the_study_and_one_for_each_trial(name, request, small_study, tmp_path):
    runs = request.getfixturevalue(name)
    folder, history = begun(tmp_path, small_study)
    view = session(name, folder, small_study, history, *list(recorded(small_study, 9, lost=0.4))[1:])
    assert view.trouble == ""
    found = runs()
    as_recorded(history, found, name, small_study)
    assert {trial.state for trial in history.trials.values()} > {"completed", "stopped"}
    parent = found["study"].identity if name == "mlflow" else "mine"
    assert {run.belongs for key, run in found.items() if key != "study"} == {parent}
    assert found["study"].end.startswith("finished, ")
    assert found["study"].params["rungs"] == "1, 2, 4"


@pytest.mark.parametrize("name", TRACKERS)
def test_after_a_kill_the_same_runs_go_on_and_no_step_is_missing_or_doubled(name, request, small_study, tmp_path):
    runs = request.getfixturevalue(name)
    folder, history = begun(tmp_path, small_study)
    events = list(recorded(small_study, 7, lost=0.0))[1:]
    cut = next(n for n, event in enumerate(events) if event["event"] == "epoch" and event["trial"] == 5) + 1
    first = TrackerView(name, StoredStudy(folder, small_study, history))
    tell(first, history, *events[: cut - 2])
    # The driver dies after the record has two more events, and before the tracker has them.
    first.close()
    before = {key: run.identity for key, run in runs().items()}
    for event in events[cut - 2 : cut]:
        history.apply(event)
    history.apply(begin(events[cut]["time"]))
    again = [job(5, 0, 1, events[cut]["time"]), *events[cut:]]
    view = session(name, folder, small_study, history, *again)
    assert (first.trouble, view.trouble) == ("", "")
    found = runs()
    as_recorded(history, found, name, small_study)
    assert {key: run.identity for key, run in found.items()}.items() >= before.items()


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_there_already_is_left_alone(name, request, small_study, tmp_path, monkeypatch):
    runs = request.getfixturevalue(name)
    folder, history = begun(tmp_path, small_study)
    session(name, folder, small_study, history, *list(recorded(small_study, 6))[1:])
    opened = []
    made = TRACKERS[name].make

    def watched(*arguments):
        tracker = made(*arguments)
        original = tracker.open
        tracker.open = lambda run, points: (opened.append(run.key), original(run, points))
        return tracker

    monkeypatch.setitem(trackers.TRACKERS, name, Service(watched))
    history.apply(begin(99.0))
    session(name, folder, small_study, history, {"event": "end", "time": 100.0, "reason": "finished"})
    assert opened == ["study"]
    as_recorded(history, runs(), name, small_study)


@pytest.mark.parametrize("name", TRACKERS)
def test_another_study_of_the_same_name_has_runs_of_its_own(name, request, small_study, tmp_path):
    runs = request.getfixturevalue(name)
    identities = set()
    for n in range(2):
        folder, history = begun(tmp_path / str(n), small_study)
        folder.record.write_bytes(f"the first line of another record, {n}\n".encode())
        view = session(name, folder, small_study, history, *list(recorded(small_study, 1))[1:])
        assert view.trouble == ""
        identities |= {view._study.identity}
    assert len(identities) == 2
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient()
        assert len(client.search_runs([client.get_experiment_by_name("ours").experiment_id])) == 4
    else:
        assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4
    assert runs


@pytest.mark.parametrize("name", TRACKERS)
def test_an_interrupted_search_says_so_of_what_was_running(name, request, small_study, tmp_path):
    runs = request.getfixturevalue(name)
    folder, history = begun(tmp_path, small_study)
    (suggested, given, *_) = list(recorded(small_study, 1))[1:]
    end = {"event": "end", "time": 9.0, "reason": "interrupted"}
    view = session(name, folder, small_study, history, suggested, given, end)
    assert view.trouble == ""
    found = runs()
    assert found["trial_0000"].end == ("interrupted, KILLED" if name == "mlflow" else "interrupted, 0")
    assert found["study"].end.startswith("interrupted, ")


def test_a_dimension_of_one_method_can_be_told_to_mlflow(mlflow, small_study, tmp_path):
    folder, history = begun(tmp_path, small_study)
    given = {"event": "trial", "time": 1.0, "trial": 0, "params": {"optimiser.lr@mart": 0.01}, "source": "tpe"}
    view = session("mlflow", folder, small_study, history, given, job(0, 0, 1), job_end(0, 0, 1, "failed", "x"))
    assert view.trouble == ""
    assert mlflow()["trial_0000"].params["optimiser.lr:mart"] == "0.01"


@pytest.fixture
def server(tmp_path, mlflow, monkeypatch):
    """A server of MLflow's, in a process group of its own."""
    pytest.importorskip("flask", reason="no Flask, which MLflow's server needs: pip install 'hcpr_tune[dev]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    while not answers(f"{url}/health"):
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_where_the_server_goes_away_the_search_goes_on_and_says_so(server, small_study, tmp_path):
    folder, history = begun(tmp_path, small_study)
    events = list(recorded(small_study, 6))[1:]
    view = TrackerView("mlflow", StoredStudy(folder, small_study, history))
    tell(view, history, *events[:20])
    until = time.monotonic() + 60
    while view._tasks.qsize():
        assert time.monotonic() < until
        time.sleep(0.1)
    before = mlflow_runs()
    assert before["trial_0000"].curves["loss/total"]
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(timeout=20)
    tell(view, history, *events[20:])
    view.close()
    assert view.trouble.startswith("the copy in mlflow: it stopped: MlflowException: ")
    assert view.trouble.endswith("; --resume with --log-to mlflow completes it")
    assert "\n" not in view.trouble


@pytest.fixture
def online(wandb, monkeypatch):
    """W&B with a server."""
    with wandb_server() as (kept, server):
        for name, value in (("MODE", "online"), ("BASE_URL", kept.url), ("API_KEY", "a1" * 20)):
            monkeypatch.setenv(f"WANDB_{name}", value)
        yield kept, server
        # Its process must end before the server does.
        import wandb as package

        package.teardown()


def test_with_a_server_wandb_goes_on_with_the_same_runs(online, small_study, tmp_path):
    kept, _ = online
    folder, history = begun(tmp_path, small_study)
    events = list(recorded(small_study, 4, lost=0.0))[1:]
    first = TrackerView("wandb", StoredStudy(folder, small_study, history))
    tell(first, history, *events[:9])
    first.close()
    history.apply(events[9])
    history.apply(begin(events[9]["time"]))
    running = next(event for event in reversed(events[:9]) if event["event"] == "job")
    view = session("wandb", folder, small_study, history, running, *events[10:])
    assert (first.trouble, view.trouble) == ("", "")
    for trial in history.trials.values():
        (run,) = (one for one in kept.rows if one.endswith(f"trial_{trial.number:04d}"))
        points = points_of(history, trial)
        assert [row["_step"] for row in kept.rows[run]] == [point.step for point in points]
        assert [row["loss/total"] for row in kept.rows[run]] == [point.values["loss/total"] for point in points]
        assert kept.exits[run][-1] == 0
        assert (kept.begun[run]["groupName"], kept.begun[run]["project"]) == ("mine", "hcpr_tune")
    (run,) = (one for one in kept.rows if one.endswith("study"))
    steps = [row["_step"] for row in kept.rows[run]]
    assert steps == sorted(set(steps))
    assert len(kept.begun) == 5


def test_where_wandb_s_server_goes_away_the_search_goes_on_and_says_so(online, small_study, tmp_path, monkeypatch):
    from hcpr_tune.views.trackers import wandb_tracker

    monkeypatch.setattr(wandb_tracker, "FINISH_SECONDS", 1.0)
    kept, server = online
    folder, history = begun(tmp_path, small_study)
    events = list(recorded(small_study, 4, lost=0.0))[1:]
    view = TrackerView("wandb", StoredStudy(folder, small_study, history))
    tell(view, history, *events[:3])
    until = time.monotonic() + 60
    while len(kept.begun) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    server.shutdown()
    server.server_close()
    tell(view, history, *events[3:])
    view.close()
    assert view.trouble.startswith("the copy in wandb: it stopped: ")


ONLINE = """
import sys, time
from pathlib import Path
from hcpr_tune.search.record.history import History
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.views.trackers.trackers import TrackerView
from tests.views.recorded import recorded
from tests.search.histories import begin
study = read_study(Path(sys.argv[1]))
history = History(study.recipe.epochs, study.goal)
history.apply(begin())
view = TrackerView("wandb", StoredStudy(StudyFolder(Path(sys.argv[2])), study, history))
for event in list(recorded(study, 3))[1:]:
    if history.apply(event):
        view.on_event(event, history)
view.close()
print(view.trouble)
"""


def outside(folder: Path, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Code in a process of its own, with a home where nobody has logged in."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    path = os.pathsep.join(
        one for one in (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH")) if one
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**clean, "HOME": str(folder), "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_where_wandb_s_server_does_not_answer_the_search_goes_on_and_says_so(small_study, space_file, tmp_path):
    pytest.importorskip("wandb", reason="no W&B: pip install 'hcpr_tune[wandb]'")
    folder, _ = begun(tmp_path, small_study)
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a1" * 20, "WANDB_INIT_TIMEOUT": "3"}
    done = outside(tmp_path, ONLINE, str(space_file), str(folder.root), **away)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the copy in wandb: it stopped: CommError: ")
    assert "a1a1" not in done.stdout
    assert done.stdout.count("\n") == 1


def test_without_a_key_wandb_is_refused_before_anything_begins(tmp_path):
    pytest.importorskip("wandb", reason="no W&B: pip install 'hcpr_tune[wandb]'")
    code = "from hcpr_tune.views.trackers.trackers import check_tracker\ncheck_tracker('wandb')"
    done = outside(tmp_path, code)
    assert "InputError: --log-to wandb: there is no key for W&B; `wandb login` first" in done.stderr
    for allowed in ({"WANDB_MODE": "offline"}, {"WANDB_API_KEY": "a1" * 20}):
        done = outside(tmp_path, code, **allowed)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("found", [None, ModuleSpec("a folder of that name", None)])
def test_without_the_package_the_way_to_it_is_named(name, found, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    with pytest.raises(InputError, match=rf"--log-to {name} needs .*; pip install 'hcpr_tune\[{name}\]'"):
        check_tracker(name)


class Hanging:
    """A tracker whose server takes a connection and says nothing."""

    def __init__(self, release: threading.Event) -> None:
        self.release = release

    def open(self, run, points):
        self.release.wait(60)


def test_the_end_of_a_search_does_not_wait_for_a_server_that_hangs(small_study, tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Service(lambda *_: Hanging(release)))
    monkeypatch.setattr(trackers, "INTERRUPTED_SECONDS", 0.2)
    folder, history = begun(tmp_path, small_study)
    began = time.monotonic()
    view = session("mlflow", folder, small_study, history, *list(recorded(small_study, 2))[1:-1])
    assert time.monotonic() - began < 10
    assert view.trouble.startswith("the copy in mlflow: it does not keep up: ")
    release.set()


def test_what_is_said_of_an_error_holds_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "very-secret")
    error = ValueError("https://me:hidden@host/api and very-secret said no\nmore")
    assert harmless(error) == "ValueError: https://...@host/api and ... said no"
