"""From a program: what is loaded is what was recorded, and bad input is refused before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hcpr_tune
from hcpr_tune.errors import HcprTuneError, InputError
from hcpr_tune.search.record.metrics import best_metrics
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.training.recipe import recipe_to_toml
from hcpr_tune.views.report.figures import ALL_FIGURES
from tests.views.recorded import written


@pytest.fixture
def study(tmp_path):
    written(tmp_path / "results" / "old", read_study(find_space("default"), [("budget.trials", 20)]), 20)
    return hcpr_tune.load(tmp_path / "results" / "old")


def test_trials_are_a_frame_with_the_columns_of_the_table(study, tmp_path):
    frame = study.trials
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == list(range(20))
    assert {"status", "robust_accuracy_validation", "robust_accuracy_validation_low", "hcpr.scale", "seconds"} <= set(
        frame.columns
    )
    scores = {number: trial.score for number, trial in study.history.trials.items()}
    for number, score in scores.items():
        shown = frame.loc[number, "robust_accuracy_validation"]
        assert pd.isna(shown) if score is None else shown == pytest.approx(score)


def test_curves_are_a_frame_by_trial_and_epoch(study):
    curves = study.curves
    assert curves.index.names == ["trial", "position"]
    one = study.history.trials[0]
    assert list(curves.loc[0].index) == sorted(one.epochs)
    assert curves.loc[(0, 3), "robust_accuracy_validation"] == pytest.approx(one.rungs[3])
    assert pd.isna(curves.loc[(0, 1), "robust_accuracy_validation"])


def test_the_best_recipe_and_its_numbers(study):
    assert study.best == best_metrics(study.spec, study.history)
    assert study.recipe.hcpr.scale == study.history.trials[study.best["trial"]].params.get("hcpr.scale", 8.0)
    assert "[hcpr]" in recipe_to_toml(study.recipe)


def test_figures_are_objects(study):
    assert study.figures == list(ALL_FIGURES)
    for name in study.figures:
        figure = study.figure(name)
        assert figure.data
        assert figure.layout.title.text == ALL_FIGURES[name][0]
    with pytest.raises(InputError, match=r'there is no figure "curve"; did you mean curves\?'):
        study.figure("curve")


def test_the_report_goes_where_it_is_wanted(study, tmp_path):
    assert study.report() == tmp_path / "results" / "old" / "report.html"
    other = study.report(tmp_path / "sent.html")
    assert other.stat().st_size > 4e6


def test_a_study_without_a_score_says_so(tmp_path):
    written(tmp_path / "new", read_study(find_space("default")), 0)
    study = hcpr_tune.load(tmp_path / "new")
    assert study.trials.empty
    assert study.curves.empty
    with pytest.raises(InputError, match=r"no trial of .*new has reached a rung yet"):
        _ = study.best
    with pytest.raises(InputError, match="there is no accuracy to show"):
        study.figure("accuracies")


def test_bad_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no study in"):
        hcpr_tune.load(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="trails"):
        hcpr_tune.tune(trails=3)
    with pytest.raises(InputError, match=r"early_stopping\.reduction_factor must be above 1"):
        hcpr_tune.tune(settings={"early_stopping.reduction_factor": 0.5})
    with pytest.raises(AttributeError):
        _ = hcpr_tune.something
    assert not (tmp_path / "results").exists()
    assert issubclass(InputError, HcprTuneError)


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import hcpr_tune, sys; print([m for m in ('torch', 'ray', 'pandas', 'plotly', 'optuna') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_settings_that_are_tables_are_laid_over_as_tables(tmp_path, space_file):
    with pytest.raises(InputError, match=r"recipe.pace.ramp must be at least 0 and at most 1, got 7"):
        hcpr_tune.tune(space_file, storage=tmp_path / "results", settings={"pace": {"ramp": 7}})


@pytest.mark.parametrize("space", [{"budget": {"trials": None}}, {"description": "\udcff"}, {3: {}}])
def test_a_space_that_no_file_can_hold_is_refused(space, tmp_path):
    with pytest.raises(InputError, match="the space cannot be written as TOML"):
        hcpr_tune.tune(space, storage=tmp_path / "results")


def test_its_status_is_what_the_command_prints(study, tmp_path, monkeypatch, capsys):
    from hcpr_tune.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["status", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(hcpr_tune.Study.open("results/old").status, allow_nan=False)
    )
    assert not study.is_running


def test_requests_are_left_for_the_next_search_and_checked_first(study, tmp_path):
    study.enqueue({"hcpr.scale": 8.5})
    with pytest.raises(InputError, match=r"hcpr\.scale"):
        study.enqueue({"hcpr.scale": 1e9})
    with pytest.raises(InputError, match="kill old 999: "):
        study.kill(999)
    with pytest.raises(InputError, match="is not being searched; there is nothing to stop"):
        study.stop()
    asked = [json.loads(path.read_text()) for path in (tmp_path / "results" / "old" / "inbox").iterdir()]
    assert [one["params"] for one in asked] == [{"hcpr.scale": 8.5}]


def test_it_is_exported_to_optuna(study, tmp_path):
    import optuna

    study.export(tmp_path / "trials.db")
    loaded = optuna.load_study(study_name="old", storage=f"sqlite:///{tmp_path / 'trials.db'}")
    assert len(loaded.trials) == 20
    with pytest.raises(InputError, match=r"trials\.db"):
        study.export(tmp_path / "trials.db")


def test_a_study_without_a_model_says_so(study):
    with pytest.raises(InputError, match="holds no model yet"):
        study.load_model()


def test_a_study_is_created_once_and_only_from_good_input(tmp_path, space_file):
    study = hcpr_tune.Study.create(
        space_file, name="new", storage=tmp_path / "results", settings={"budget.trials": np.int64(3), "hcpr.scale": 8}
    )
    assert (study.name, study.spec.settings.budget.trials, study.spec.recipe.hcpr.scale) == ("new", 3, 8)
    assert "hcpr.scale" not in study.spec.space
    assert study.status["state"] == "not begun"
    assert hcpr_tune.Study.open(tmp_path / "results" / "new").spec.fingerprint == study.spec.fingerprint
    with pytest.raises(InputError, match="is taken"):
        hcpr_tune.Study.create(space_file, name="new", storage=tmp_path / "results")
    for settings in ({"hcpr.scale": None}, {"hcpr.scale": -1}, {"nothing": 1}):
        with pytest.raises(InputError):
            hcpr_tune.Study.create(space_file, name="bad", storage=tmp_path / "results", settings=settings)
    assert not (tmp_path / "results" / "bad").exists()


def test_a_study_is_simulated_from_its_own_record(study):
    result = study.simulate(vary={"workers": [2, 4]}, repeats=2)
    assert [one["workers"] for one in result.plain["variants"]] == [2, 4]
    assert result.plain["curves"]["from"].endswith("old (20 trials)")
    slow, fast = (one["wall_clock_seconds"]["mean"] for one in result.plain["variants"])
    assert fast < slow
    with pytest.raises(InputError, match="cannot vary"):
        study.simulate(vary={"hcpr.scale": [1, 2]})


def test_a_verdict_checks_its_input_before_any_work(study, tmp_path):
    with pytest.raises(InputError, match="finalists must be"):
        study.verdict(settings={"finalists": 0})
    with pytest.raises(InputError, match="got nothing"):
        study.verdict(compare=["nothing"])
    with pytest.raises(InputError, match="holds no verdict"):
        _ = study.verdict_result
    assert not (tmp_path / "results" / "old" / "verdict").exists()


def test_warm_start_is_for_a_study_without_trials(study, tmp_path):
    with pytest.raises(InputError, match="has trials already"):
        study.search(warm_start=tmp_path / "results" / "old")


def test_a_recipe_is_trained_and_evaluated_from_a_program(tmp_path, small_study, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = small_study.recipe.replace({"epochs": 1, "segment_ends": [], "hcpr.scale": 6})
    with pytest.raises(InputError, match=r"hcpr\.scale must be above 0"):
        recipe.replace({"hcpr.scale": 0})
    reports = []
    result = hcpr_tune.train(recipe, "trained", on_epoch=reports.append)
    assert result.folder == Path("trained")
    assert hcpr_tune.Recipe.load("trained/recipe.toml") == recipe
    assert [report["epoch"] for report in reports] == [1]
    with pytest.raises(InputError, match="exists"):
        hcpr_tune.train(recipe, "trained")
    found = hcpr_tune.evaluate("trained", images=50)
    assert (found.split, found.robust.total) == ("validation", 50)
    model = hcpr_tune.load_model("trained").train()
    assert hcpr_tune.evaluate(model, recipe=recipe, images=50) == found
    assert model.training
    with pytest.raises(InputError, match="attack must be one of margin"):
        hcpr_tune.evaluate("trained", attack="none")
    with pytest.raises(InputError, match="needs a recipe"):
        hcpr_tune.evaluate(model)


def test_what_is_exported_is_listed():
    assert {"Study", "StudySpec", "Recipe", "train", "evaluate", "tune"} <= set(dir(hcpr_tune))
    for name in dir(hcpr_tune):
        assert getattr(hcpr_tune, name) is not None


def test_a_verdict_is_simulated_before_it_is_paid_for(study, tmp_path, monkeypatch, capsys):
    from hcpr_tune.cli.main import main

    one, four = (study.simulate_verdict(workers=workers, settings={"finalists": 1}) for workers in (1, 4))
    assert one.trainings >= 2
    assert one.finished
    assert 0 < four.hours < one.hours
    assert not (tmp_path / "results" / "old" / "verdict").exists()
    monkeypatch.chdir(tmp_path)
    assert main(["verdict", "old", "--dry-run", "--workers", "4", "--finalists", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == four.to_plain()
    assert main(["verdict", "old", "--compare", "trades", "--dry-run"]) == 2
    assert "their costs are not known" in capsys.readouterr().err
