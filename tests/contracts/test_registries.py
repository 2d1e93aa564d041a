"""What every registered data set, method, network, sampler and stopping rule keeps, a user's own included."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from hcpr_tune.api.search import check_own_methods
from hcpr_tune.api.trust import named_in_study
from hcpr_tune.common.settings import read, to_plain
from hcpr_tune.errors import InputError
from hcpr_tune.search.record.history import Job
from hcpr_tune.search.scheduling.asha import next_decision
from hcpr_tune.search.scheduling.config import AshaConfig
from hcpr_tune.search.scheduling.stoppers import STOPPERS, check_stopper
from hcpr_tune.search.spec.objectives import Goal
from hcpr_tune.search.spec.settings import EarlyStopping, Sampler
from hcpr_tune.search.spec.study_file import read_study
from hcpr_tune.search.suggestion.registry import SAMPLERS
from hcpr_tune.search.suggestion.sampler import Suggester, check_sampler
from hcpr_tune.training.data.dataset import load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.data.registry import DATASETS, is_own
from hcpr_tune.training.data.sources import dataset_spec, has_test_part, open_pool
from hcpr_tune.training.loop import attack, initial_state, train
from hcpr_tune.training.methods.method import method_of, spec_of
from hcpr_tune.training.methods.registry import METHODS
from hcpr_tune.training.models.architectures import CosineHead
from hcpr_tune.training.models.classifier import build_model
from hcpr_tune.training.models.registry import ARCHITECTURES
from hcpr_tune.training.plugins import PluginError, only_vouched
from hcpr_tune.training.recipe import (
    Attack,
    Evaluation,
    Model,
    Recipe,
    Schedule,
    Task,
    recipe_from_plain,
    recipe_to_toml,
)
from hcpr_tune.training.size import checkpoint_bytes
from hcpr_tune.views.status import state_of
from tests.conftest import ROOT, SMALL_SPACE
from tests.search.histories import history_of, job, job_end, reached, suggested
from tests.search.one_worker import search, summary
from tests.simulation.plays import simulation
from tests.training.test_folders import write_idx

OWN_DATA = tuple(f"tests.search.own:{name}" for name in ("digits", "one_part", "Digits", "SPEC"))
WITH_FILES = {"digits": None, "fashion_mnist": lambda root: write_idx(root, 400, 100), **dict.fromkeys(OWN_DATA)}
"""Data sets whose files are here, or can be written small in their own format."""


@pytest.fixture(params=WITH_FILES)
def task(request, tmp_path):
    write = WITH_FILES[request.param]
    if write is not None:
        write(tmp_path)
    return Task(request.param, str(tmp_path))


def parts_of(task):
    data = load_data(task)
    return {"train": data.train, "validation": data.validation, "test": open_test(task)}


def test_images_and_labels_are_what_the_data_set_says(task):
    spec, pool, parts = dataset_spec(task.dataset), open_pool(task), parts_of(task)
    assert spec.shape in (None, pool.shape)
    assert spec.classes in (0, len(pool.class_names))
    assert len(set(pool.class_names)) == len(pool.class_names) >= 2
    assert pool.white == spec.white
    for split in parts.values():
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), *pool.shape)
        assert split.labels.dtype == torch.int64
        assert torch.unique(split.labels).tolist() == list(range(len(pool.class_names)))
        assert 0.0 <= float(split.to_unit(split.images).min()) < float(split.to_unit(split.images).max()) <= 1.0


def test_it_is_the_same_each_time(task):
    once, again = parts_of(task), parts_of(task)
    for name in once:
        assert torch.equal(once[name].images, again[name].images)
        assert torch.equal(once[name].labels, again[name].labels)
        assert once[name].index_hash == again[name].index_hash


def test_no_image_is_in_two_splits(task):
    parts = parts_of(task)
    train, validation, test = (set(split.indices.tolist()) for split in parts.values())
    assert not train & validation
    assert len(train | validation) + (0 if has_test_part(task) else len(test)) == len(open_pool(task).labels)
    # A test part of its own is counted by itself.
    assert has_test_part(task) or not test & (train | validation)


def test_its_checkpoints_can_be_measured(task):
    assert checkpoint_bytes(Recipe(task=task)) > 10_000


@pytest.mark.parametrize("name", DATASETS)
def test_a_registered_data_set_is_documented_and_says_how_it_is_fetched(name, tmp_path):
    spec = DATASETS[name]
    assert not is_own(name)
    assert name in Task.__dataclass_fields__["dataset"].metadata["doc"]
    assert f"`{name}`" in (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    assert spec.shape is not None
    assert spec.classes
    assert all(images > 0 for images in spec.images[: len(spec.parts)])
    assert (spec.download is None) == (spec.files == "")
    if spec.files:
        with pytest.raises(InputError, match=f"run: hcpr_tune data {name} --root"):
            load_data(Task(name, str(tmp_path)))


def space_of(tmp_path: Path, *settings: tuple[str, object]):
    path = tmp_path / "own.toml"
    path.write_text(SMALL_SPACE, encoding="utf-8")
    return read_study(path, [("budget.trials", 6), ("recipe.epochs", 2), ("recipe.batch_size", 256), *settings])


@pytest.mark.parametrize("name", OWN_DATA[:3])
def test_a_search_on_a_data_set_of_ones_own(name, tmp_path):
    study = space_of(tmp_path, ("task.dataset", name), ("budget.trials", 2))
    assert study.recipe.task.root == str(Path.cwd() / "data")
    found = [summary(search(study, tmp_path / place, "own")) for place in ("one", "two")]
    assert found[0] == found[1]
    assert found[0]["best"]


def test_the_same_images_by_another_road_train_the_same_weights(tmp_path):
    weights = [
        summary(search(space_of(tmp_path, ("task.dataset", name), ("budget.trials", 1)), tmp_path / name, "own"))
        for name in OWN_DATA
        if name.endswith(("digits", "Digits"))
    ]
    assert weights[0]["events"] == weights[1]["events"]
    tensors = [[*one["best"].values()] for one in weights]
    assert tensors[0] == tensors[1]


def test_pools_hold_the_very_same_images():
    own, spec = open_pool(Task(OWN_DATA[0])), open_pool(Task(OWN_DATA[2]))
    chosen = np.arange(len(own.labels))
    np.testing.assert_array_equal(own.decode(chosen), spec.decode(chosen))
    assert dataclasses.replace(own, decode=None, labels=None) == dataclasses.replace(spec, decode=None, labels=None)


METHOD_NAMES = (*METHODS, *(f"tests.search.own:{name}" for name in ("MIXED", "ON_COSINES", "adversarial_only")))
NETWORK_NAMES = (
    *(pytest.param(one, marks=pytest.mark.long) if one.startswith("wide") else one for one in ARCHITECTURES),
    *("torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"),
    *(f"tests.search.own:{name}" for name in ("PERCEPTRON", "softmax_regression")),
)
TINY = Recipe(
    task=Task(images=96, epsilon=0.1),
    model=Model(width=4),
    epochs=1,
    batch_size=32,
    attack=Attack(epsilon=0.1, steps=Schedule(2, 2), step_size=0.05),
    evaluation=Evaluation(images=10, steps=1, masking_images=0),
)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_methods_attack_is_finite_and_its_gradient_reaches_every_weight(name):
    recipe = dataclasses.replace(TINY, method=name)
    data, method = load_data(recipe.task), method_of(recipe)
    state = initial_state(recipe, data)
    images, labels = data.train.fetch(torch.arange(32)), data.train.labels[:32]
    moved = attack(recipe, method, state, images, labels, 2, torch.Generator().manual_seed(0))
    assert moved.isfinite().all()
    assert 0 < (moved - images).abs().max() <= recipe.attack.epsilon + 1e-6
    natural = state.model(images) if method.spec.uses_natural else None
    with torch.no_grad():
        assert method.objective(state.model(images), labels)(state.model(moved)).isfinite().all()
    terms = method.terms(natural, state.model(moved), labels, 0.5)
    (terms.classification + terms.consistency).mean().backward()
    for parameter in state.model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    (epoch,) = train(recipe, data, state)
    assert np.isfinite(epoch.loss)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_methods_coefficients_are_typed_and_are_read_back_from_toml(name):
    spec = spec_of(name)
    written = tomllib.loads(tomli_w.dumps(to_plain(spec.coefficients())))
    assert read(spec.coefficients, written, "it") == spec.coefficients()
    recipe = dataclasses.replace(TINY, method=name)
    if name not in METHODS:
        recipe = recipe.replace({f"coefficients.{one}": value for one, value in written.items()})
    assert recipe_from_plain(tomllib.loads(recipe_to_toml(recipe)), "it") == recipe
    assert method_of(recipe).coefficients == spec.coefficients()
    with pytest.raises(InputError, match="no_such_thing"):
        read(spec.coefficients, {"no_such_thing": 1}, "it")


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_method_on_cosines_has_a_cosine_head(name):
    on_cosines, linear = spec_of(name).needs_cosine_head, dataclasses.replace(TINY.model, head="linear")
    if on_cosines:
        with pytest.raises(InputError, match=r'model\.head must be "cosine" for method'):
            method_of(dataclasses.replace(TINY, method=name, model=linear))
    else:
        method_of(dataclasses.replace(TINY, method=name, model=linear))
    if name in METHODS:
        published = dataclasses.replace(TINY, method=name, model=dataclasses.replace(TINY.model, head="auto"))
        assert published.network.head == ("cosine" if on_cosines else "linear")


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_pace_changes_the_loss_of_the_methods_that_say_so(name):
    method, drawn = method_of(dataclasses.replace(TINY, method=name)), torch.Generator().manual_seed(0)
    natural, adversarial = (torch.randn(8, 10, generator=drawn) for _ in range(2))
    losses = [torch.stack(method.terms(natural, adversarial, torch.arange(8), pace)) for pace in (0.0, 1.0)]
    assert torch.equal(*losses) == (not method.spec.paced)


@pytest.mark.parametrize("name", [*METHODS, *ARCHITECTURES])
def test_a_registered_method_or_network_is_documented(name):
    settings, key = (Recipe, "method") if name in METHODS else (Model, "name")
    assert name in settings.__dataclass_fields__[key].metadata["doc"]
    assert f"`{name}`" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_a_network_gives_logits_and_its_gradient_reaches_every_weight(name, channels):
    # torchvision's networks halve small images until nothing is left.
    side, heads = (64, ("linear",)) if name.startswith("torchvision:") else (8, ("cosine", "linear"))
    for head in heads:
        model = build_model(Model(name=name, width=4, head=head), channels, 7, 0, (side, side))
        again = build_model(Model(name=name, width=4, head=head), channels, 7, 0, (side, side))
        weights = [list(one.state_dict().values()) for one in (model, again)]
        assert all(map(torch.equal, *weights))
        logits = model(torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(0)))
        assert logits.shape == (4, 7)
        logits.square().sum().backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())
        own_factory = name.endswith(":softmax_regression")
        assert own_factory or any(isinstance(one, CosineHead) for one in model.modules()) == (head == "cosine")


OWN_METHOD = (
    ("recipe.model.name", "tests.search.own:PERCEPTRON"),
    ("recipe.model.head", "linear"),
    ("recipe.method", "tests.search.own:MIXED"),
    ("recipe.coefficients.alpha", 0.5),
    ("search", {"coefficients.alpha": {"low": 0.25, "high": 0.75}}),
)


def test_a_search_of_the_coefficient_of_ones_own_method(tmp_path):
    study = space_of(tmp_path, *OWN_METHOD, ("budget.trials", 3))
    check_own_methods(study)
    found = [summary(search(study, tmp_path / place, "own")) for place in ("one", "two")]
    assert found[0] == found[1]
    tried = [event[3]["coefficients.alpha"] for event in found[0]["events"] if event[0] == "trial"]
    assert tried[0] == 0.5
    assert len(set(tried)) == 3
    assert all(0.25 <= alpha <= 0.75 for alpha in tried)
    assert found[0]["best"]


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ({"coefficients.alpha": {"low": 0.25, "high": 1.5}}, r"coefficients\.alpha must be .* at most 1, got 1.5"),
        ({"coefficients.beta": {"low": 0.25, "high": 0.5}}, r"search\.coefficients\.beta has no value in the recipe"),
        ({"method": {"choices": ["trades", "tests.search.own:missing"]}}, "has no such name"),
        ({"method": {"choices": ["trades", "tests.search.own:ON_COSINES"]}}, 'model.head must be "cosine"'),
    ],
)
def test_a_space_that_its_method_does_not_take_is_refused_before_a_search(dimensions, words, tmp_path):
    method = "trades" if "method" in dimensions else "tests.search.own:MIXED"
    with pytest.raises(InputError, match=words):
        check_own_methods(space_of(tmp_path, *OWN_METHOD[:-1], ("recipe.method", method), ("search", dimensions)))


def test_a_coefficient_that_is_written_as_a_whole_number_is_searched_as_one(tmp_path):
    whole = ("recipe.coefficients.steps", 2)
    study = space_of(tmp_path, *OWN_METHOD, whole, ("search", {"coefficients.steps": {"low": 1, "high": 4}}))
    assert study.space["coefficients.steps"].at(0.3) == 2
    with pytest.raises(InputError, match=r"recipe\.coefficients\.alpha = 1 makes .* write 1\.0 if it is not one"):
        space_of(tmp_path, *OWN_METHOD, ("recipe.coefficients.alpha", 1), *OWN_METHOD[-1:])


def test_what_only_looks_at_a_study_imports_no_method_and_no_network(tmp_path):
    names = ("recipe.method", "no_such_module:METHOD"), ("recipe.model.name", "no_such_module:network")
    study = space_of(tmp_path, *OWN_METHOD, *names)
    assert study.space["coefficients.alpha"].ends() == (0.25, 0.75)
    assert named_in_study(study) == {"no_such_module:METHOD", "no_such_module:network"}


SAMPLER_NAMES = (*SAMPLERS, "tests.search.own:sampler", "tests.search.own:MIDDLE", "optuna.samplers:TPESampler")
RULES = (*STOPPERS, *(f"tests.search.own:{name}" for name in ("above_median", "like_asha")))


def documented(name, setting, settings):
    assert name in settings.__dataclass_fields__[setting].metadata["doc"]
    assert f"`{name}`" in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_sampler_suggests_points_of_the_space_and_each_time_the_same(name, tmp_path):
    study = space_of(tmp_path, ("sampler.name", name), ("sampler.startup_trials", 3))
    check_sampler(study)
    points = []
    for _ in range(2):
        history, suggester = history_of(goal=study.goal), Suggester(study)
        for number in range(7):
            params, source = suggester.suggest(number, history)
            assert source == ("published" if number == 0 else name)
            for key, dimension in study.space.items():
                assert dimension.holds(params[key])
            for event in (suggested(number, params, source), *reached(number, 0, 1, 100 * number % 700)):
                history.apply(event)
        points.append([trial.params for trial in history.trials.values()])
    assert points[0] == points[1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_registered_sampler_is_documented(name):
    documented(name, "name", Sampler)


@pytest.mark.parametrize("name", ["tests.search.own:sampler", "tests.search.own:MIDDLE"])
def test_a_search_with_a_sampler_of_ones_own(name, tmp_path):
    study = space_of(tmp_path, ("sampler.name", name), ("budget.trials", 3))
    found = [summary(search(study, tmp_path / place, "own")) for place in ("one", "two")]
    assert found[0] == found[1]
    assert [event[2] for event in found[0]["events"] if event[0] == "trial"] == ["published", name, name]


@pytest.mark.parametrize("objective", [("robust_accuracy",), ("robust_accuracy", "clean_accuracy")], ids=["one", "two"])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_promotes_trials_that_are_there_whatever_the_order_in_which_they_came(name, objective):
    config, decided = AshaConfig((1, 2, 4), 12, method=name, min_rank_correlation=-1.0), []
    for order in (range(12), reversed(range(12))):
        history = history_of(*map(suggested, range(12)), last_epoch=4, goal=Goal(objective))
        for number in order:
            for event in reached(number, 0, 1, 70 * number % 830, clean=900 - number):
                history.apply(event)
            next_decision(history, config)
        promoted = []
        while isinstance(decision := next_decision(history, config), Job):
            assert (decision.start, decision.end) == (1, 2)
            assert history.trials[decision.trial].status == "waiting"
            promoted.append(decision.trial)
            for event in (job(decision.trial, 1, 2), job_end(decision.trial, 1, 2, "diverged")):
                history.apply(event)
        decided.append(promoted)
    assert decided[0] == decided[1]
    assert 0 < len(decided[0]) <= 12
    assert (len(decided[0]) == 12) == (name == "none")


@pytest.mark.parametrize("name", STOPPERS)
def test_a_registered_rule_is_documented(name):
    documented(name, "method", EarlyStopping)


def test_a_search_with_a_rule_of_ones_own(tmp_path):
    settings = ("early_stopping.method", "tests.search.own:above_median"), ("early_stopping.min_rank_correlation", -1.0)
    study = space_of(tmp_path, *settings)
    check_stopper(study.asha_config)
    found = [summary(search(study, tmp_path / place, "own")) for place in ("one", "two")]
    assert found[0] == found[1]
    promoted = {event[1] for event in found[0]["events"] if event[0] == "job" and event[2]}
    assert {0} < promoted < set(range(6))


def test_a_rule_that_does_what_asha_does_makes_the_same_search(tmp_path):
    found = [
        summary(search(space_of(tmp_path, ("early_stopping.method", name)), tmp_path / str(place), "own"))
        for place, name in enumerate(("asha", "tests.search.own:like_asha"))
    ]
    assert found[0]["events"] == found[1]["events"]


def test_it_is_played_in_a_simulation(small_study):
    histories = []
    for name in ("asha", "tests.search.own:like_asha", "tests.search.own:no_one"):
        stopping = dataclasses.replace(small_study.settings.early_stopping, method=name)
        settings = dataclasses.replace(small_study.settings, early_stopping=stopping)
        histories.append(simulation(dataclasses.replace(small_study, settings=settings)).run())
    rungs = [[sorted(trial.rungs) for trial in history.trials.values()] for history in histories]
    assert rungs[0] == rungs[1] == [[1, 2, 4], [1, 2], [1], [1]]
    assert rungs[2] == [[1, 2, 4], [1], [1], [1]]


def test_a_rule_that_will_not_do_is_refused_before_a_search_begins_and_ends_one_with_its_name(tmp_path):
    config = AshaConfig((1, 2), 4, method="tests.search.own:breaks")
    with pytest.raises(PluginError, match="own:breaks: choosing from 4 trials raised ValueError: it must"):
        check_stopper(config)
    history = history_of(suggested(0), *reached(0, 0, 1, 500), last_epoch=2)
    with pytest.raises(PluginError, match="choosing from 1 trials raised ValueError: it must return trials of"):
        next_decision(history, config)
    with pytest.raises(InputError, match=r"early_stopping\.method tests\.search\.own:missing: .* has no such name"):
        check_stopper(dataclasses.replace(config, method="tests.search.own:missing"))
    with pytest.raises(InputError, match=r"early_stopping\.method must be one of asha, random, none, package\.module:"):
        space_of(tmp_path, ("early_stopping.method", "median"))


def test_what_only_looks_at_a_study_imports_no_rule(small_study):
    stopping = dataclasses.replace(small_study.settings.early_stopping, method="no_such_module:rule")
    study = dataclasses.replace(
        small_study, settings=dataclasses.replace(small_study.settings, early_stopping=stopping)
    )
    end = {"event": "end", "time": 0.0, "reason": "finished"}
    trials = [event for number in range(4) for event in (suggested(number), *reached(number, 0, 1, 500))]
    for events, state in ((trials[:4], "unfinished"), (trials, "finished")):
        assert state_of(study, history_of(*events, end, last_epoch=4), None) == state


def test_all_code_of_ones_own_is_named_where_trust_is_asked_for(tmp_path):
    names = [
        f"tests.search.own:{one}" for one in ("digits", "sampler", "above_median", "adversarial_only", "PERCEPTRON")
    ]
    keys = ["task.dataset", "sampler.name", "early_stopping.method", "recipe.method", "recipe.model.name"]
    study = space_of(tmp_path, *zip(keys, names, strict=True))
    assert named_in_study(study) == {*names}
    assert named_in_study(space_of(tmp_path)) == set()
    with only_vouched():
        for refused in (
            lambda: load_data(study.recipe.task),
            lambda: check_sampler(study),
            lambda: check_stopper(study.asha_config),
            lambda: method_of(study.recipe),
            lambda: build_model(study.recipe.model, 1, 10, 0, (8, 8)),
        ):
            with pytest.raises(InputError, match="is code from a file that is not trusted"):
                refused()
