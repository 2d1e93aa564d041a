"""A search from a program, on a space of its own, and gone on with."""

from __future__ import annotations

import tomllib

import pytest

import hcpr_tune
from tests.cluster.here import shared_ray
from tests.conftest import SMALL_SPACE

pytestmark = pytest.mark.cluster


def test_a_search_from_a_program_on_a_space_of_its_own(tmp_path, monkeypatch):
    shared_ray()
    monkeypatch.chdir(tmp_path)
    settings = {"hcpr.scale": 8.0, "resources.workers": 1}
    study = hcpr_tune.tune(tomllib.loads(SMALL_SPACE), trials=2, name="mine", settings=settings)
    assert (len(study.trials), list(study.spec.space)) == (2, ["pace.shape"])
    assert study.best["trial"] in (0, 1)
    again = hcpr_tune.Study.open("results/mine").resume(trials=3)
    assert len(again.trials) == 3
    assert (tmp_path / "results" / "mine" / "report.html").is_file()
