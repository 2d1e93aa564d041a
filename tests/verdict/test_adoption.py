"""A small verdict attacks the models that the search has trained on fresh seeds; a full one trains its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.search.record.record import Record, read_history
from hcpr_tune.search.record.results import StoredStudy, recipe_of, training_name
from hcpr_tune.verdict.adoption import adopt
from hcpr_tune.verdict.decision.agenda import Task, next_task
from hcpr_tune.verdict.driver import training_name as model_name
from hcpr_tune.verdict.plan import full_plan, small_plan
from hcpr_tune.verdict.run import verdict_folder
from hcpr_tune.verdict.state import State
from tests.search.one_worker import search


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A real search with a finalist, trained again on two fresh seeds as the published recipe was."""
    from hcpr_tune.search.spec.study_file import read_study
    from tests.conftest import SMALL_SPACE

    folder = tmp_path_factory.mktemp("adoption")
    file = folder / "small.toml"
    file.write_text(SMALL_SPACE.replace("replicates = 0", "replicates = 2\nfinalists = 1"), encoding="utf-8")
    study = read_study(file, [("budget.trials", 3), ("verdict.seconds_at_end", 60)])
    where = search(study, folder / "results", "one")
    return StoredStudy(where, study, read_history(where.record, study.recipe.epochs, study.goal))


@pytest.fixture
def begun(searched, tmp_path):
    """The plan of the small verdict, and the record of a verdict that has just begun."""
    plan = small_plan(searched.spec, searched.history)
    with Record(tmp_path / "record.jsonl", State()) as record:
        record.append({"event": "begin", "time": record.clock(), "format": 1, "workers": 2, "versions": {}})
        yield plan, record


def test_the_searchs_own_seeds_are_planned_for_both_recipes(searched):
    plan = small_plan(searched.spec, searched.history)
    both = [searched.history.replicates_of(candidate.trial) for candidate in plan.candidates]
    common = set.intersection(*({trial.seed for trial in trials} for trials in both))
    assert set(plan.search_seeds) == common != set()
    assert plan.seeds == plan.other_seeds == len(common), "all of them, since they cost no training"
    for candidate, trials in zip(plan.candidates, both, strict=True):
        trained = {trial.seed: recipe_of(searched.spec, trial) for trial in trials if trial.seed in common}
        assert {model.seed: model.recipe for model in plan.models(candidate, plan.seeds)} == trained


def test_their_models_are_attacked_and_nothing_is_trained(searched, begun):
    plan, record = begun
    own = verdict_folder(searched.folder)
    adopt(searched, own, plan, record)
    models = [model for candidate in plan.candidates for model in plan.models(candidate, plan.seeds)]
    assert all(record.history.models[model.id].finished for model in models)
    task = next_task(plan, record.history, 0.0)
    assert isinstance(task, Task)
    assert task.kind == "attack"
    for candidate in plan.candidates:
        for trial in searched.history.replicates_of(candidate.trial):
            if trial.seed not in plan.search_seeds:
                continue
            model = candidate.model(trial.seed)
            at = f"epoch_{trial.last_rung:04d}/model.safetensors"
            theirs = searched.folder.checkpoints / training_name(trial, trial.last_rung, restarted=False) / at
            assert record.history.models[model.id].seed == trial.seed
            assert (own.checkpoints / model_name(model.id) / at).read_bytes() == theirs.read_bytes()
            assert record.history.models[model.id].scores[4] == trial.scores[4]
    events = record.history.version
    adopt(searched, own, plan, record)
    assert record.history.version == events, "a second time there is nothing to take over"


def test_a_model_whose_weights_are_gone_is_trained(searched, begun, tmp_path):
    plan, record = begun
    adopt(
        searched._replace(folder=replace(searched.folder, root=tmp_path / "empty")),
        verdict_folder(searched.folder),
        plan,
        record,
    )
    assert next_task(plan, record.history, 0.0).kind == "train"


def test_a_full_verdict_has_seeds_of_its_own(searched):
    settings = replace(searched.spec.settings.verdict, finalists=1)
    spec = replace(searched.spec, settings=replace(searched.spec.settings, verdict=settings))
    plan = full_plan(spec, searched.history, test=True)
    seeds = {model.seed for one in plan.candidates for model in (*plan.models(one, 5), *plan.fresh_models(one))}
    assert not seeds & {trial.seed for trial in searched.history.replicates}
