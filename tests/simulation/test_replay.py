"""A simulated search with deaths is replayed from its record: same decisions, same time; alterations are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import History
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.suggestion.sampler import Suggester
from hcpr_tune.simulation.curves.recorded import OldStudy
from hcpr_tune.simulation.replay import replay
from hcpr_tune.simulation.worker_pool import FailureModel, WorkerPool
from tests.simulation.plays import simulation


def searched(space_file, deaths=0.0, workers=2, **more) -> OldStudy:
    """A study that was played, as if it had been recorded."""
    study = read_study(space_file, [("budget.trials", 10), ("sampler.name", "random"), *more.items()])
    worker_pool = WorkerPool(workers, deaths_per_hour=deaths)
    events: list[dict] = [{"event": "begin", "time": 0.0, "workers": workers, "versions": {}, "fingerprint": "x"}]
    lives = FailureModel(worker_pool, 5) if deaths else None
    played = simulation(
        study, worker_pool=worker_pool, lives=lives, suggester=Suggester(study), listener=events.append, lost=3
    )
    history = played.run()
    events.append({"event": "end", "time": history.seconds, "reason": "finished"})
    return OldStudy(Path("results/made"), study, history, events)


@pytest.mark.parametrize("deaths", [0.0, 200.0])
def test_a_search_is_replayed_decision_by_decision(space_file, deaths):
    old = searched(space_file, deaths)
    died = sum(event["event"] == "job_end" and event["status"] == "worker died" for event in old.events)
    assert (died > 0) == (deaths > 0)
    came = replay(old)
    assert came.departs == ""
    assert came.same == came.decisions > 20
    assert came.off == pytest.approx(0.0, abs=1e-6)


def test_another_score_or_another_point_is_found_out(space_file):
    old = searched(space_file)
    second = next(event for event in old.events if event["event"] == "trial" and event["trial"] == 7)
    second["params"] = {**second["params"], "hcpr.scale": 5.0}
    history = History(old.study.recipe.epochs, old.study.goal)
    for event in old.events:
        history.apply(event)
    came = replay(OldStudy(old.folder, old.study, history, old.events))
    assert 0 < came.same < came.decisions
    assert came.departs.startswith(f"decision {came.same + 1}: the record has ('trial', 7,")


def test_a_search_in_two_sessions_and_one_without_an_end_are_refused(space_file):
    old = searched(space_file)
    with pytest.raises(InputError, match="its record has no end"):
        replay(OldStudy(old.folder, old.study, old.history, old.events[:-1]))
    with pytest.raises(InputError, match="it was searched in 2 sessions"):
        replay(OldStudy(old.folder, old.study, old.history, [old.events[0], *old.events]))
