"""What Ray's own dashboard, its metrics port and experiment trackers show of real searches. One Ray for all of them."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hcpr_tune.execution import runner
from hcpr_tune.execution.capacity import Share
from hcpr_tune.execution.cluster import Cluster
from hcpr_tune.execution.ray_metrics import STATES, RayMetrics
from hcpr_tune.search.record.history import Event, History
from hcpr_tune.search.record.record import read_history
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study import StudySpec, extend
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.views.trackers.trackers import TrackerView
from tests.cluster.here import NAME, shared_ray
from tests.cluster.test_detach import asked
from tests.cluster.test_search import in_folder
from tests.execution.test_ray_metrics import names_in_board
from tests.views.test_trackers import as_recorded, mlflow_runs, wandb_runs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # SQLAlchemy's, of MLflow
]

SHARE = Share(workers=1, cpus_per_trial=1.0, gpus_per_trial=0.0)
GPUS = 0.5
"""As if trials had a share of a GPU."""


@pytest.fixture(scope="module")
def here() -> Cluster:
    cluster = shared_ray()
    while asked(cluster.dashboard_url, "") != 401:
        time.sleep(0.1)
    return cluster


@dataclass
class Searched:
    """A study that is searched in this process, in one session or several."""

    folder: StudyFolder
    study: StudySpec
    history: History
    listeners: list[Any] = field(default_factory=list)

    @property
    def stored(self) -> StoredStudy:
        return StoredStudy(self.folder, self.study, self.history)

    def go_on(self, *listeners: Any, requests: Sequence[Event] = ()) -> None:
        """Search to the end of the budget; each listener is made from the study."""

        def made() -> list[Any]:
            self.listeners = [one(self.stored) for one in listeners]
            return self.listeners

        runner.run(self.stored, SHARE, made, requests)

    def extend(self, trials: int, *listeners: Any) -> None:
        """Another session, with a larger budget, from the record as it is on disk."""
        budget = {"trials": trials}
        self.study = extend(self.study, budget)
        self.history = read_history(self.folder.record, self.study.recipe.epochs, self.study.goal)
        self.go_on(*listeners, requests=[{"event": "extend", "time": time.time(), "budget": budget}])


def begun(folder: Path, name: str, *overrides: tuple[str, Any]) -> Searched:
    study = read_study(in_folder(folder) / "small.toml", [("resources.workers", 1), *overrides])
    study_folder = check_new(folder / "results", name)
    return Searched(*create(study_folder, study))


def metrics(stored: StoredStudy) -> RayMetrics:
    return RayMetrics(stored, GPUS)


def mirrored(name: str) -> Any:
    """Makes the listener of `--log-to NAME`."""
    return lambda stored: TrackerView(name, stored)


@pytest.fixture(scope="module")
def first(here, tmp_path_factory) -> Iterator[Searched]:
    """One whole search with a name of its own, and with trackers."""
    pytest.importorskip("mlflow", reason="no MLflow: pip install 'hcpr_tune[mlflow]'")
    package = pytest.importorskip("wandb", reason="no W&B: pip install 'hcpr_tune[wandb]'")
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MODE", "offline"), ("DIR", str(folder))):
            patch.setenv(f"WANDB_{name}", value)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
        searched = begun(folder, "named-2026")
        searched.go_on(*LISTENERS)
        yield searched
        package.teardown()


LISTENERS = (metrics, mirrored("mlflow"), mirrored("wandb"))


def exported(name: str) -> dict[tuple[str, ...], float]:
    """This study's metrics at the nodes' metrics ports, as Prometheus sees them: (name, second tag) -> value."""
    import ray

    found = {}
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        for line in lines:
            match = re.fullmatch(r"ray_(hcpr_tune_\w+)\{(.*)\} (\S+)", line)
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match[2])) if match else {}
            if match and tags["study"] == name:
                found[match[1], tags.get("state", tags.get("purpose", ""))] = float(match[3])
    return found


def exported_when(name: str, **wanted: float) -> dict[tuple[str, ...], float]:
    """The same once these are right: Ray's processes report every 10 s."""
    until = time.monotonic() + 60
    while True:
        found = exported(name)
        if all(found.get((metric, "")) == pytest.approx(value) for metric, value in wanted.items()):
            return found
        assert time.monotonic() < until, found
        time.sleep(1)


def epochs_of(history: History) -> int:
    return sum(len(trial.epochs) for trial in history.trials.values())


def test_ray_exports_what_the_record_says(first):
    history = first.history
    best, published = history.ranked()[0].score, history.trials[0].score
    found = exported_when("named-2026", hcpr_tune_epochs_total=epochs_of(history))
    assert first.listeners[0].trouble == ""
    assert found["hcpr_tune_best_robust_accuracy", ""] == pytest.approx(best)
    assert found["hcpr_tune_gain_points", ""] == pytest.approx(100 * (best - published))
    assert {state: found["hcpr_tune_trials", state] for state in STATES} == {
        state: sum(trial.state == state for trial in history.trials.values()) for state in STATES
    }
    assert found["hcpr_tune_workers", ""] == 1
    held = sum(value for (name, purpose), value in found.items() if "worker_seconds" in name and purpose != "idle")
    assert held == pytest.approx(history.worker_seconds, rel=0.05)
    assert found["hcpr_tune_gpu_seconds_total", ""] == pytest.approx(GPUS * history.worker_seconds)
    assert {name for name, _ in found} == names_in_board()


def check_trackers(searched: Searched) -> dict[Any, Any]:
    """MLflow's runs, if they and W&B's show what the record says."""
    assert [view.trouble for view in searched.listeners] == ["", "", ""]
    runs = mlflow_runs()
    name = searched.folder.root.name
    as_recorded(searched.history, runs, "mlflow", searched.study, name)
    wandb = searched.folder.root.parents[1] / "wandb"
    as_recorded(searched.history, wandb_runs(wandb), "wandb", searched.study, name)
    return runs


def test_after_a_resume_the_totals_and_the_trackers_go_on_and_the_terminal_shows_nothing_of_it(first, capfd):
    before, runs = epochs_of(first.history), check_trackers(first)
    capfd.readouterr()
    first.extend(6, *LISTENERS)
    assert epochs_of(first.history) > before
    found = check_trackers(first)
    assert {key: run.identity for key, run in found.items()}.items() >= {k: r.identity for k, r in runs.items()}.items()
    assert capfd.readouterr() == ("", "")
    exported_when("named-2026", hcpr_tune_epochs_total=epochs_of(first.history))


def test_the_dashboard_names_driver_workers_and_jobs(here, first):
    import ray
    from ray.util.state import get_log, list_actors, list_jobs
    from ray.util.state.exception import RayStateApiException

    (driver,) = list_jobs(address=here.dashboard_url, detail=True)
    assert driver.metadata == {"job_name": NAME}
    actors = list_actors(address=here.dashboard_url, detail=True)
    ours = [actor for actor in actors if actor.repr_name.startswith("named-2026")]
    assert {(actor.class_name, actor.repr_name) for actor in ours} == {
        ("TrainJob", f"named-2026 worker {actor.pid}") for actor in ours
    }
    assert ours
    address = ray.get_runtime_context().gcs_address
    try:
        logs = [part for actor in ours for part in get_log(address=address, actor_id=actor.actor_id, timeout=30)]
    except RayStateApiException:
        # A node's agent listens at a fixed port: beside another Ray on the machine it is not there, and the page is
        # empty. The files are.
        folder = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
        logs = [path.read_text() for path in folder.glob("worker-*.out")]
    lines = "".join(logs).splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    for trial in first.history.trials.values():
        scale = f"scale={trial.params['hcpr.scale']:.3g} shape={trial.params['pace.shape']}"
        begins = f"study named-2026: trial {trial.number}, epochs 1 to 1 \\(rung 1\\): {scale}"
        ends = f"study named-2026: trial {trial.number}, .*reached, robust accuracy {100 * trial.rungs[1]:.1f} %"
        assert any(re.fullmatch(stamp + begins, line) for line in lines), lines
        assert any(re.fullmatch(stamp + ends, line) for line in lines), lines
