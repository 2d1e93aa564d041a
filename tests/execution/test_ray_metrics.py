"""What Ray is given: the record's own sums, from the start and after a resume; and the Grafana dashboard."""

from __future__ import annotations

import json
import re
import time

import pytest

from hcpr_tune.execution.ray_metrics import METRICS, STATES, Exported, RayMetrics, Tally, pace
from hcpr_tune.search.record.history import WORKER_DIED
from hcpr_tune.search.record.ledger import PARTS, ledger
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.study import StudySpec
from tests.conftest import ROOT
from tests.search.histories import begin, epoch, history_of, job, job_end, published, reached, suggested
from tests.views.recorded import history_like, recorded

BOARD = ROOT / "launch" / "grafana" / "hcpr_tune.json"


def told(study: StudySpec, *events, gpus: float = 0.5):
    """The values after these events, which the tally was told one by one."""
    history = history_of(last_epoch=study.recipe.epochs)
    tally = Tally(study, history, gpus)
    for event in events:
        if history.apply(event):
            tally.add(event, history)
    tally.update_best(history)
    return tally.values(events[-1]["time"]), history


def test_the_values_are_those_of_the_record(small_study):
    values, history = told(small_study, *list(recorded(small_study, 40))[1:])
    account = ledger(history, small_study.asha_config)["total"]
    for part in (*PARTS, "other", "idle"):
        assert values["hcpr_tune_worker_seconds_total", part] == pytest.approx(account[part], abs=2e-3)
    assert values["hcpr_tune_gpu_seconds_total", ""] == pytest.approx(account["held"] / 2, abs=2e-3)
    assert values["hcpr_tune_epochs_total", ""] == sum(len(trial.epochs) for trial in history.trials.values())
    best, published_one = history.ranked()[0].score, history.trials[0].score
    assert values["hcpr_tune_best_robust_accuracy", ""] == best
    assert values["hcpr_tune_gain_points", ""] == pytest.approx(100 * (best - published_one))
    assert sum(values["hcpr_tune_trials", state] for state in STATES) == 40


def test_after_a_resume_they_go_on_from_the_record(small_study):
    events = list(recorded(small_study, 12))[1:]
    values, history = told(small_study, *events)
    again = Tally(small_study, history, 0.5).values(events[-1]["time"])
    assert again == values


def test_nothing_is_best_before_the_first_rung(small_study):
    values, _ = told(small_study, published(), job(0, 0, 1))
    assert not {name for name, _ in values} & {"hcpr_tune_best_robust_accuracy", "hcpr_tune_gain_points"}
    assert values["hcpr_tune_trials", "running"] == 1
    assert set(METRICS) - {name for name, _ in values} == {
        "hcpr_tune_best_robust_accuracy",
        "hcpr_tune_gain_points",
        "hcpr_tune_epochs_per_second",
    }


def test_what_a_running_job_has_not_reported_is_not_idle(small_study):
    values, _ = told(small_study, published(), job(0, 0, 4), suggested(1), job(1, 0, 1), epoch(0, 1, time=100.0))
    assert values["hcpr_tune_worker_seconds_total", "idle"] == 0.0
    values, _ = told(small_study, published(), job(0, 0, 4), epoch(0, 1, time=100.0))
    assert values["hcpr_tune_worker_seconds_total", "idle"] == 100.0


def test_a_worker_that_died_leaves_the_sums_as_they_are(small_study):
    end = job_end(0, 0, 4, WORKER_DIED, "its worker process died", time=30.0) | {"failed_start": False}
    values, _ = told(small_study, published(), job(0, 0, 4), epoch(0, 1, time=10.0), end)
    assert values["hcpr_tune_worker_seconds_total", "other"] == 20.0
    assert values["hcpr_tune_trials", "interrupted"] == 1


def test_the_pace_falls_without_news_and_spans_long_epochs(small_study):
    history = history_of(last_epoch=4)
    tally = Tally(small_study, history, 0.0)
    assert pace(tally.latest_epochs(), 0.0) == 0.0
    for event in (published(), job(0, 0, 100), *(epoch(0, n, time=600.0 * n) for n in range(1, 9))):
        history.apply(event)
        tally.add(event, history)
    assert tally.latest_epochs() == (2400.0, 3000.0, 3600.0, 4200.0, 4800.0)
    assert pace(tally.latest_epochs(), 4800.0) == pytest.approx(1 / 600)
    assert pace(tally.latest_epochs(), 7200.0) == pytest.approx(1 / 1200)
    tally.add({"event": "end", "time": 4800.0}, history)
    assert pace(tally.latest_epochs(), 4800.0) == 0.0


class Recorded:
    """In the place of Ray's metrics: what was set and added, by name and tags."""

    def __init__(self):
        self.values = {}

    def made(self, name, says, tags):
        """As Ray's Gauge and Counter are made."""
        assert says
        assert tags[0] == "study"
        sink = self.values

        class One:
            def set(self, value, tagged):
                assert tuple(tagged) == tags
                sink[name, *tagged.values()] = value

            def inc(self, value, tagged):
                assert value > 0
                sink[name, *tagged.values()] = sink.get((name, *tagged.values()), 0.0) + value

        return One()


@pytest.fixture
def ray_side(monkeypatch):
    """Ray's metrics, recorded, in a process of its own."""
    import ray
    from ray.util import metrics

    side = Recorded()
    context = type("Context", (), {"get_worker_id": lambda self: "driver"})()
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(metrics, "Gauge", side.made)
    monkeypatch.setattr(metrics, "Counter", side.made)
    monkeypatch.setattr(Exported, "added", {})
    return side


def test_totals_are_told_once_however_many_searches_a_process_runs(small_study, tmp_path, ray_side):
    folder = StudyFolder(tmp_path / "one")
    for trials in (6, 6, 9):
        history = history_like(small_study, trials)
        view = RayMetrics(StoredStudy(folder, small_study, history), 0.0)
        assert view.trouble == ""
        view.close()
        epochs = sum(len(trial.epochs) for trial in history.trials.values())
        assert ray_side.values["hcpr_tune_epochs_total", "one"] == epochs
    assert ("hcpr_tune_gpu_seconds_total", "one") not in ray_side.values
    assert ray_side.values["hcpr_tune_trials", "one", "running"] == 0


def test_what_came_last_is_told_though_nothing_follows(small_study, tmp_path, ray_side):
    history = history_like(small_study, 3)
    view = RayMetrics(StoredStudy(StudyFolder(tmp_path / "one"), small_study, history), 0.0)
    events = [suggested(3), job(3, 0, 1), *(epoch(3, number) for number in (1, 2, 3))]
    for event in events:
        history.apply(event)
        view.on_event(event, history)
    deadline = time.monotonic() + 20
    while ray_side.values["hcpr_tune_trials", "one", "running"] != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    trained = sum(len(trial.epochs) for trial in history.trials.values())
    assert ray_side.values["hcpr_tune_epochs_total", "one"] == trained
    assert ray_side.values["hcpr_tune_trials", "one", "running"] == 1
    view.close()


def test_a_failure_ends_the_metrics_and_nothing_else(small_study, tmp_path, ray_side, monkeypatch):
    history = history_like(small_study, 3)
    view = RayMetrics(StoredStudy(StudyFolder(tmp_path / "one"), small_study, history), 0.0)
    monkeypatch.setattr(Tally, "values", lambda *_: 1 / 0)
    event = begin(5.0)
    view.on_event(event, history)
    view.close()
    view.on_event(event, history)
    assert view.trouble == "metrics for Ray stopped: ZeroDivisionError: division by zero"
    view.close()


def test_without_ray_there_are_no_metrics_and_the_search_goes_on(small_study, tmp_path, monkeypatch):
    import ray

    def absent():
        raise RuntimeError("no Ray\nand more")

    monkeypatch.setattr(ray, "get_runtime_context", absent)
    view = RayMetrics(StoredStudy(StudyFolder(tmp_path / "one"), small_study, history_of()), 0.0)
    view.on_event(reached(0, 0, 1, 500)[0], history_of())
    assert view.trouble == "metrics for Ray stopped: RuntimeError: no Ray"
    view.close()


def names_in_board() -> set[str]:
    """Every metric that the dashboard asks for."""
    return set(re.findall(r"\bray_(\w+)", BOARD.read_text(encoding="utf-8")))


def test_the_grafana_dashboard_asks_for_every_metric_and_for_no_other():
    assert names_in_board() == set(METRICS)


def test_the_grafana_dashboard_can_be_imported_anywhere():
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert board["schemaVersion"] >= 36
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {one["name"]: one["type"] for one in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "study": "query"}
    queries = [target for panel in panels for target in panel["targets"]]
    for one in (*panels, *queries, board["templating"]["list"][1]):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all('study=~"$study"' in query["expr"] for query in queries)
    # Ray keeps the totals of a driver that has ended: the sum over drivers would count a resumed study twice.
    totals = [query["expr"] for query in queries if "_total" in query["expr"]]
    assert all(expression.startswith("max by") or "rate(" in expression for expression in totals)
