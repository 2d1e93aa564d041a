"""Study files: what they may say, and the one line that each mistake gets."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from hcpr_tune.common.settings import parse_assignment
from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.dimensions import Choice, Range
from hcpr_tune.search.spec.points import params_of, with_params
from hcpr_tune.search.spec.settings import EarlyStopping
from hcpr_tune.search.spec.study import rung_epochs, study_to_plain, study_to_toml
from hcpr_tune.search.spec.study_file import find_space, read_study, study_from_plain

ROOT = Path(__file__).parent.parent.parent
SPACES = sorted((ROOT / "search_spaces").glob("*.toml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_builds_recipes_at_all_its_ends(path):
    study = read_study(path)
    for name, dimension in study.space.items():
        for end in dimension.ends():
            assert with_params(study.recipe, {name: end})
    assert with_params(study.recipe, params_of(study.recipe, study.space)) == study.recipe


def test_the_default_space_is_the_published_recipe_on_digits():
    study = read_study(find_space("default"))
    recipe = study.recipe
    assert (recipe.hcpr.scale, recipe.hcpr.margin, recipe.hcpr.kl_weight, recipe.hcpr.square_weight) == (8, 0.2, 1.2, 6)
    assert recipe.pace.shape == "constant"
    assert recipe.pace.end == 1
    assert recipe.consistency.ramp == 0
    assert (recipe.optimiser.lr, recipe.optimiser.momentum, recipe.optimiser.weight_decay) == (0.1, 0.9, 2e-4)
    assert study.rungs == (3, 9, 27)
    assert study.settings.budget.trials >= 16
    searched = {"hcpr.scale", "hcpr.margin", "pace.start", "pace.end", "pace.ramp", "pace.shape"}
    assert searched | {"hcpr.kl_weight", "hcpr.square_weight", "consistency.ramp"} == set(study.space)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_resolved_study_read_again_is_the_same_study(path, tmp_path):
    study = read_study(path)
    (tmp_path / "study.toml").write_text(study_to_toml(study), encoding="utf-8")
    again = read_study(tmp_path / "study.toml")
    assert again == study
    assert again.fingerprint == study.fingerprint


@pytest.mark.parametrize(
    ("first", "factor", "epochs", "rungs"),
    [
        (3, 3.0, 27, (3, 9, 27)),
        (3, 3.0, 20, (3, 9, 20)),
        (1, 2.0, 4, (1, 2, 4)),
        (4, 3.0, 4, (4,)),
        (1, 1.1, 4, (1, 2, 3, 4)),
        (2, 1.5, 10, (2, 3, 4, 6, 10)),
        (3, 1 + 1e-10, 7, (3, 4, 5, 6, 7)),
    ],
)
def test_rungs_are_powers_up_to_the_last_epoch(first, factor, epochs, rungs):
    assert rung_epochs(EarlyStopping(first_rung=first, reduction_factor=factor), epochs) == rungs


def test_without_early_stopping_the_last_epoch_is_the_only_rung():
    assert rung_epochs(EarlyStopping(method="none", first_rung=50), 4) == (4,)


@pytest.mark.parametrize(
    ("settings", "calibration"),
    [
        ({}, 1),
        ({"budget.trials": 100}, 1),
        # 240 trials usually take 27 + 239 * (3 + 6 / 3 + 18 / 9) = 1,700 epochs: 5 % are 3 trials of 27.
        ({"budget.trials": 240}, 3),
        ({"budget.trials": 1000}, 13),
        # Rungs trained anew: 39 + 999 * (3 + 9 / 3 + 27 / 9) = 9,030 epochs, 39 of them for one trial to the end.
        ({"budget.trials": 1000, "lr_schedule.mode": "restarted"}, 11),
        # Nobody knows how many of them fit into the time.
        ({"budget.trials": 1000, "budget.hours": 1}, 1),
        ({"budget.trials": 1000, "budget.worker_hours": 1}, 1),
        ({"budget.trials": 1000, "early_stopping.method": "none"}, 1),
        ({"budget.trials": 1000, "early_stopping.calibration": 6}, 6),
        ({"budget.trials": 1}, 1),
    ],
)
def test_calibration_takes_a_twentieth_of_the_epochs_at_most_or_the_published_recipe_alone(settings, calibration):
    study = read_study(find_space("default"), list(settings.items()))
    assert study.calibration == calibration


def overridden(space_file, *assignments):
    return read_study(space_file, [parse_assignment(text) for text in assignments], "")


def test_a_recipe_field_given_on_the_command_line_is_fixed(space_file):
    study = overridden(space_file, "hcpr.scale=6.5")
    assert study.recipe.hcpr.scale == 6.5
    assert set(study.space) == {"pace.shape"}
    assert set(overridden(space_file, "recipe.pace=0.5").space) == {"hcpr.scale"}


def test_a_dimension_can_be_changed_in_place_and_added(space_file):
    study = overridden(space_file, "search.hcpr.scale.low=5", "search.hcpr.margin={low=0.0,high=0.4}")
    assert study.space["hcpr.scale"] == Range(5.0, 16.0, log=True)
    assert study.space["hcpr.margin"] == Range(0.0, 0.4)


def test_quoted_and_nested_dimensions_are_the_same(space_file):
    text = space_file.read_text(encoding="utf-8")
    tables = tomllib.loads(text.replace('"hcpr.scale" =', "hcpr.scale ="))
    assert study_from_plain(tables, "nested") == read_study(space_file)


def test_whole_numbers_and_booleans_can_be_searched(space_file):
    study = overridden(
        space_file, "search.batch_size={low=32,high=256,log=true}", "search.model.head_bias={choices=[true,false]}"
    )
    assert study.space["batch_size"] == Range(32, 256, log=True, integer=True)
    assert study.space["model.head_bias"] == Choice((True, False))


def test_seed_threads_and_rungs_of_the_recipe_follow_from_the_study(space_file):
    recipe = overridden(space_file, "seed=7", "resources.cpus_per_trial=2").recipe
    assert (recipe.seed, recipe.threads, recipe.segment_ends) == (7, 2, (1, 2))
    assert recipe.rung_epochs == (1, 2, 4)


BAD = {
    "unknown key": ("budget.trails=3", "budget.trails is not a known setting; did you mean budget.trials?"),
    "unknown table": ("bugdet.trials=3", "bugdet.trials is not a known setting"),
    "wrong type": (
        "budget.trials='many'",
        'budget.trials must be a whole number, got "many"; the space has 4',
    ),
    "float for whole": ("budget.trials=2.5", "budget.trials must be a whole number, got 2.5"),
    "bool for whole": ("budget.trials=true", "budget.trials must be a whole number, got true"),
    "no table": ("budget=3", "budget must be a table of settings, got 3"),
    "out of range": ("early_stopping.reduction_factor=0.5", "early_stopping.reduction_factor must be above 1"),
    "reduction factor 1": ("early_stopping.reduction_factor=1", "reduction_factor must be above 1"),
    "recipe out of range": ("hcpr.margin=-1", "recipe.hcpr.margin must be at least 0"),
    "infinite": ("hcpr.scale=inf", "recipe.hcpr.scale must be a finite number"),
    "recipe choice": ("lr_schedule.mode='cyclic'", "recipe.lr_schedule.mode must be one of single, annealed"),
    "task": ("task.epsilon=0", "task.epsilon must be above 0"),
    "dataset": ("task.dataset='imagenet'", "task.dataset must be one of digits, "),
    "rung beyond the end": (
        "early_stopping.first_rung=5",
        "early_stopping.first_rung must be at most recipe.epochs = 4, got 5",
    ),
    "low above high": ("search.hcpr.scale.low=20", "search.hcpr.scale.low must be below high = 16, got 20"),
    "low equals high": ("search.hcpr.scale.low=16", "search.hcpr.scale.low must be below high = 16"),
    "log from 0": ("search.hcpr.kl_weight={low=0.0,high=2.0,log=true}", "low must be above 0 with log = true"),
    "no field": (
        "search.hcpr.scle={low=1.0,high=2.0}",
        "search.hcpr.scle is not a field of the recipe; did you mean search.hcpr.scale?",
    ),
    "short name": (
        "search.margin={low=0.1,high=0.2}",
        "search.margin is not a field of the recipe; did you mean search.hcpr.margin?",
    ),
    "bound breaks law": ("search.hcpr.margin={low=-1.0,high=0.4}", "search.hcpr.margin.low must be at least 0"),
    "ends break law": (
        "search.pace.end={low=0.0,high=3.0}",
        "search.pace.end at 3.0 is not a valid recipe: pace must be at most 1",
    ),
    "no high": ("search.hcpr.margin={low=0.1}", "search.hcpr.margin.high is missing"),
    "string bound": ("search.hcpr.margin={low='a',high=1.0}", 'search.hcpr.margin.low must be a number, got "a"'),
    "range of words": (
        "search.lr_schedule.shape={low=0.0,high=1.0}",
        "search.lr_schedule.shape is not a number and needs choices",
    ),
    "bad choice": (
        "search.lr_schedule.shape={choices=['steps','stairs']}",
        'must be one of steps, cosine, cyclic, got "stairs"',
    ),
    "one choice": ("search.lr_schedule.shape={choices=['steps']}", "at least two different values"),
    "choice of wrong type": ("search.hcpr.margin={choices=['a','b']}", "must fit the field, a float"),
    "unknown bound": (
        "search.hcpr.scale.hihg=2.0",
        "search.hcpr.scale.hihg is not a known setting; did you mean search.hcpr.scale.high?",
    ),
    "task searched": ("search.task.epsilon={low=0.1,high=0.2}", "search.task.epsilon cannot be searched"),
    "evaluation searched": ("search.evaluation.steps={low=1,high=9}", "search.evaluation.steps cannot be searched"),
    "trial 0 outside": (
        "search.hcpr.margin={low=0.3,high=0.4}",
        "recipe.hcpr.margin = 0.2 lies outside search.hcpr.margin (0.3 to 0.4)",
    ),
    "derived": ("recipe.segment_ends=[1]", "recipe.segment_ends cannot be set in a study: it follows from"),
    "recipe no table": ("recipe=3", "recipe must be a table, got 3"),
    "gpus": (
        "resources.gpus_per_trial='all'",
        'resources.gpus_per_trial must be a number or "auto", got "all"; the default is "auto"',
    ),
    "two GPUs": (
        "resources.gpus_per_trial=2",
        "resources.gpus_per_trial must be at most 1, got 2: a trial trains on one GPU; set it to 1, and the others",
    ),
    "both weights 0 in the space": (
        "search.hcpr={kl_weight={choices=[0.0,1.2]},square_weight={choices=[0.0,6.0]}}",
        "search.hcpr.kl_weight at 0.0 with search.hcpr.square_weight at 0.0 is not a valid recipe",
    ),
    "list searched": (
        "search.lr_schedule.milestones={choices=[[0.5],[0.6]]}",
        "search.lr_schedule.milestones cannot be searched: it is a list",
    ),
    "both weights 0": ("hcpr={kl_weight=0.0,square_weight=0.0}", "kl_weight and square_weight must not both be 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_is_named_with_its_file(case, space_file):
    assignment, words = BAD[case]
    with pytest.raises(InputError) as caught:
        overridden(space_file, assignment)
    assert words in str(caught.value)
    assert str(caught.value).endswith(f"({space_file})")
    assert "\n" not in str(caught.value)


def test_the_message_says_what_the_command_line_gave(space_file):
    with pytest.raises(InputError, match=r"small.toml with --trials 0\)$"):
        read_study(space_file, [("budget.trials", 0)], "--trials 0")


def test_an_unknown_space_lists_the_known_ones():
    with pytest.raises(InputError, match=r'--space "nope" is unknown; known: .*default'):
        find_space("nope")
    for name in ("no/such.toml", "x" * 300 + ".toml", "a\0b.toml"):
        with pytest.raises(
            InputError, match=r"there is no such file|a name in it has 305 characters|is not a valid path"
        ):
            find_space(name)


def test_rungs_are_bounded_before_they_are_counted():
    with pytest.raises(InputError, match=r"large enough for at most 100 rungs from epoch 3 to 1000000, got 1\.0000001"):
        rung_epochs(EarlyStopping(reduction_factor=1.0000001), 1_000_000)
    assert len(rung_epochs(EarlyStopping(first_rung=1, reduction_factor=1.0000001), 100)) == 100


def test_a_plain_value_is_not_lost_to_a_table(space_file):
    space_file.write_text(
        space_file.read_text(encoding="utf-8").replace("[recipe]", "[recipe]\npace = 0.5"), encoding="utf-8"
    )
    with pytest.raises(
        InputError, match=r"--set recipe.pace.ramp would replace recipe.pace = 0.5, which is not a table"
    ):
        overridden(space_file, "pace.ramp=0.3")


def test_a_fixed_field_is_searched_under_no_label(space_file):
    text = space_file.read_text(encoding="utf-8")
    more = '"hcpr.margin@a" = { low = 0.0, high = 0.4, when = { "pace.shape" = "linear" } }\n'
    space_file.write_text(text + more, encoding="utf-8")
    assert "hcpr.margin@a" in read_study(space_file).space
    study = overridden(space_file, "hcpr.margin=0.3")
    assert study.recipe.hcpr.margin == 0.3
    assert set(study.space) == {"hcpr.scale", "pace.shape"}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("budget.trials=0", "got 0; the space has 4 ("),
        ("budget.hours=-1", "got -1.0; the default is 0.0 ("),
        ("batch_size=1", "got 1; the space has 128 ("),
        ("early_stopping.calibration=0", "got 0; the space has 1 ("),
    ],
)
def test_the_way_out_is_what_the_space_has(assignment, words, space_file):
    with pytest.raises(InputError) as caught:
        overridden(space_file, assignment)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["'a\udcffb'", '"a\\u0000b"'])
def test_text_that_no_file_holds_is_refused(value, space_file):
    for name in ("description", "task.root"):
        with pytest.raises(InputError, match=r"must be text without null bytes that UTF-8 can encode"):
            overridden(space_file, f"{name}={value}")


def test_a_study_that_would_not_open_again_is_not_begun(tmp_path, small_study):
    from hcpr_tune.search.storage.studies import check_new, create

    wrong = replace(small_study, space={"hcpr.scale": Choice((8.0, 8.0))})
    folder = check_new(tmp_path / "results", "wrong")
    with pytest.raises(InputError, match=r"this study could not be opened again: .*at least two different values"):
        create(folder, wrong)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ('dataset = "folder:my images"', "folder:{here}/my images"),
        ('dataset = "folder:../images"', "folder:{here}/../images"),
        ('dataset = "folder:~/images"', "folder:~/images"),
        ('dataset = "folder:/images"', "folder:/images"),
        ('dataset = "fashion_mnist"', "{here}/data"),
        ('dataset = "svhn"\nroot = "~/data"', "~/data"),
        ('dataset = "digits"', "data"),
    ],
)
def test_the_path_of_the_images_is_absolute(task, path, space_file, monkeypatch, tmp_path):
    """Workers run in folders of their own."""
    text = space_file.read_text(encoding="utf-8").replace('dataset = "digits"', task)
    space_file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    study = read_study(space_file)
    here = path.format(here=tmp_path)
    assert (study.recipe.task.dataset if here.startswith("folder:") else study.recipe.task.root) == here
    (tmp_path / "study.toml").write_text(study_to_toml(study), encoding="utf-8")
    monkeypatch.chdir("/")
    assert read_study(tmp_path / "study.toml") == study


def test_a_study_begun_with_a_relative_path_is_the_same_with_the_path_that_it_means(space_file, monkeypatch, tmp_path):
    from hcpr_tune.search.record.record import Record
    from hcpr_tune.search.storage.studies import budget_of_file, check_new, create, reopen

    text = space_file.read_text(encoding="utf-8").replace('dataset = "digits"', 'dataset = "folder:images"')
    space_file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    old = study_from_plain(tomllib.loads(text), "old")
    assert old.recipe.task.dataset == "folder:images"
    folder = check_new("results", "old")
    record = Record(folder.record, create(folder, old).history)
    begin = {"event": "begin", "time": 0.0, "versions": {}, "workers": 1, "fingerprint": old.fingerprint}
    record.append(begin | {"study": study_to_plain(old)})
    record.close()
    folder, study, history = reopen("results", "old")
    assert study.recipe.task.dataset == f"folder:{tmp_path}/images"
    assert study.fingerprint == old.fingerprint
    assert budget_of_file(read_study(space_file, [("budget.trials", 9)]), history, study, "now") == {"trials": 9}
