"""TensorBoard's own reader finds every recorded epoch once, live and after a resume; values, recipes, pictures too."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.util.tensor_util import make_ndarray

from hcpr_tune.errors import StorageError
from hcpr_tune.search.record.results import StoredStudy, StudyFolder
from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study import study_to_toml
from hcpr_tune.search.spec.study_file import find_space, read_study
from hcpr_tune.training.recipe import recipe_from_plain
from hcpr_tune.views.tensorboard.hparams import METRICS
from hcpr_tune.views.tensorboard.writer import CONFUSION, CURVES, EXAMPLES, RATE, TensorBoardView
from tests.search.histories import begin, epoch, history_of, job, job_end, lost, published, reached, suggested
from tests.views.boards import board, checkpoint_with, curves, picture, rung, tell


@pytest.fixture
def study():
    return read_study(find_space("default"))


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "one")


def shown(folder, number, tag):
    """The pictures of a trial: steps and files."""
    reader = board(folder.trial(number))
    if tag not in reader.Tags()["images"]:
        return []
    return [(one.step, one.encoded_image_string) for one in reader.Images(tag)]


def told(path, tag):
    """What a run says to the HParams plugin by a tag."""
    return board(path).SummaryMetadata(tag).plugin_data.content


def ended(folder, number):
    """How a trial's file ends; None where it does not say."""
    if metadata.SESSION_END_INFO_TAG not in board(folder.trial(number)).Tags()["tensors"]:
        return None
    return metadata.parse_session_end_info_plugin_data(told(folder.trial(number), metadata.SESSION_END_INFO_TAG)).status


def words(path, tag):
    """A text."""
    (tensor,) = board(path).Tensors(tag)
    return make_ndarray(tensor.tensor_proto).item().decode()


def test_a_curve_is_there_as_soon_as_its_epoch_is_recorded(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), job(0, 0, 3), epoch(0, 1), epoch(0, 2, 500))
    seen = curves(folder.trial(0))
    assert set(seen) == {*CURVES.values(), "accuracy_validation/robust", "accuracy_validation/clean", RATE, *METRICS}
    assert seen["loss/total"] == [(1, 1.0), (2, 1.0)]
    assert seen["accuracy_validation/robust"] == [(2, 0.5)]
    assert seen[RATE] == [(1, pytest.approx(1079 / 0.75)), (2, pytest.approx(1079 / 0.75))]
    view.close()


def test_a_record_without_counts_of_images_has_no_rate(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    old = {name: value for name, value in epoch(0, 1).items() if name != "images"}
    instant = epoch(0, 2) | {"seconds_attack": 0.0, "seconds_update": 0.0}
    tell(view, history, suggested(0), job(0, 0, 3), old, instant)
    assert RATE not in curves(folder.trial(0))
    view.close()


@pytest.mark.parametrize("names", [["cat", "猫", "dog"], ["0", "1", "2"]])
def test_the_first_rungs_picture_gets_its_classes_names_when_they_are_known(study, folder, names):
    """That is when the first job has ended, in the same search."""
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), job(0, 0, 3), epoch(0, 1), epoch(0, 2), rung(0, 3, 60))
    ((_, before),) = shown(folder, 0, CONFUSION)
    inputs = {"channels": 1, "classes": 3, "image_size": [8, 8], "class_names": names}
    tell(view, history, job_end(0, 0, 3) | {"model_inputs": inputs})
    ((step, after),) = shown(folder, 0, CONFUSION)
    assert step == 3
    assert (before == after) == (names[0] == "0")
    words = board(folder.trial(0)).SummaryMetadata(CONFUSION).summary_description
    assert words.endswith("Class 1 is 猫.") == (names[0] == "cat")
    assert [at for at, _ in curves(folder.trial(0))["loss/total"]] == [1, 2, 3]
    tell(view, history, job(0, 3, 9), epoch(0, 4))
    assert [at for at, _ in curves(folder.trial(0))["loss/total"]] == [1, 2, 3, 4]
    view.close()


def test_a_promoted_trial_goes_on_in_its_curves(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), *reached(0, 0, 3, 500), *reached(0, 3, 9, 600))
    assert curves(folder.trial(0))["accuracy_validation/robust"] == [(3, 0.5), (9, pytest.approx(0.6))]
    assert [step for step, _ in curves(folder.trial(0))["loss/total"]] == list(range(1, 10))
    view.close()


def test_after_a_kill_no_step_is_missing_or_doubled(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), job(0, 0, 3), epoch(0, 1))
    # The driver dies after the record has the second epoch and before the view has it.
    history.apply(epoch(0, 2))
    history.apply(begin(1.0))
    again = TensorBoardView(StoredStudy(folder, study, history))
    tell(again, history, job(0, 0, 3), epoch(0, 3, 500), job_end(0, 0, 3))
    assert [step for step, _ in curves(folder.trial(0))["loss/total"]] == [1, 2, 3]
    again.close()
    view.close()


def everything(path):
    """All that a run shows, without its clock."""
    reader = board(path)
    tags = reader.Tags()
    texts = [tag for tag in tags["tensors"] if not tag.startswith("_hparams_")]
    return (
        curves(path),
        {tag: [(one.step, one.encoded_image_string) for one in reader.Images(tag)] for tag in tags["images"]},
        {tag: words(path, tag) for tag in texts},
        {tag: reader.SummaryMetadata(tag).plugin_data.content for tag in tags["tensors"]},
    )


def test_a_resumed_search_writes_the_same_again_though_its_checkpoints_are_gone(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    for at in (3, 9, 27):
        checkpoint_with(folder, study, 0, at, picture(at))
    inputs = {"model_inputs": {"class_names": ["a", "b", "c"]}}
    tell(view, history, published(), job(0, 0, 3), rung(0, 3, 50), job_end(0, 0, 3) | inputs)
    tell(view, history, job(0, 3, 9), rung(0, 9, 40), job_end(0, 3, 9), job(0, 9, 27), rung(0, 27, 60))
    tell(view, history, job_end(0, 9, 27), suggested(1), *lost(1, 0, 3))
    view.close()
    paths = (folder.trial(0), folder.trial(1), folder.root)
    before = [everything(path) for path in paths]
    for path in folder.checkpoints.rglob("*.png"):
        path.unlink()
    TensorBoardView(StoredStudy(folder, study, history)).close()
    again = [everything(path) for path in paths]
    # The first picture of all was drawn before the names of the classes were known.
    first, first_again = before[0][1].pop(CONFUSION), again[0][1].pop(CONFUSION)
    assert first[1:] == first_again[1:]
    assert [step for step, _ in first_again] == [3, 27]
    assert again == before
    assert all(len(list(path.glob("events*"))) == 1 for path in paths)


def test_the_best_so_far_stands_beside_the_values(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), job(0, 0, 27), rung(0, 3, 50, 80), rung(0, 9, 40, 95), rung(0, 27, 60, 90))
    seen = curves(folder.trial(0))
    assert seen["best/robust_accuracy_validation"] == [(3, 0.5), (9, 0.5), (27, pytest.approx(0.6))]
    assert seen["best/clean_accuracy_validation"] == [
        (3, pytest.approx(0.8)),
        (9, pytest.approx(0.8)),
        (27, pytest.approx(0.9)),
    ]
    assert seen["best/epoch"] == [(3, 3), (9, 3), (27, 27)]
    view.close()


def test_every_dimension_is_a_column_wide_enough_for_what_stands_in_it(study, folder):
    TensorBoardView(StoredStudy(folder, study, history_of())).close()
    experiment = metadata.parse_experiment_plugin_data(told(folder.root, metadata.EXPERIMENT_TAG))
    infos = {info.name: info for info in experiment.hparam_infos}
    assert infos.keys() == study.space.keys()
    assert list(infos["pace.shape"].domain_discrete) == ["constant", "linear", "cosine"]
    assert infos["pace.shape"].type == api_pb2.DATA_TYPE_STRING
    scale = infos["hcpr.scale"]
    assert (scale.domain_interval.min_value, scale.domain_interval.max_value) == (4.0, 16.0)
    assert "Searched: 4 to 16 (log)." in scale.description
    # Trials outside a domain are hidden. A constant pace has no ramp: its trials show that of the recipe.
    assert all(info.differs for info in infos.values())
    metrics = {info.name.tag: info.display_name for info in experiment.metric_infos}
    assert metrics == METRICS


@pytest.mark.parametrize("base", [0.05, 0.9])
def test_a_domain_takes_in_the_value_of_a_recipe_that_has_no_use_for_it(study, folder, base):
    outside = replace(study, recipe=replace(study.recipe, pace=replace(study.recipe.pace, ramp=base)))
    TensorBoardView(StoredStudy(folder, outside, history_of(published({"pace.shape": "constant"})))).close()
    experiment = metadata.parse_experiment_plugin_data(told(folder.root, metadata.EXPERIMENT_TAG))
    (ramp,) = (info.domain_interval for info in experiment.hparam_infos if info.name == "pace.ramp")
    assert ramp.min_value <= base <= ramp.max_value
    start = metadata.parse_session_start_info_plugin_data(told(folder.trial(0), metadata.SESSION_START_INFO_TAG))
    assert start.hparams["pace.ramp"].number_value == base


def test_a_trial_has_a_value_in_every_column(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    params = params_of(study.recipe, study.space) | {"hcpr.scale": 5.5, "pace.shape": "linear", "pace.ramp": 0.25}
    tell(view, history, published(params_of(study.recipe, study.space)), suggested(1, params, time=7.0))
    for number, scale, shape, ramp in ((0, 8.0, "constant", 0.4), (1, 5.5, "linear", 0.25)):
        content = told(folder.trial(number), metadata.SESSION_START_INFO_TAG)
        start = metadata.parse_session_start_info_plugin_data(content)
        assert start.hparams.keys() == study.space.keys()
        assert start.hparams["hcpr.scale"].number_value == scale
        assert start.hparams["pace.shape"].string_value == shape
        assert start.hparams["pace.ramp"].number_value == ramp
        assert start.group_name == f"trial_{number:04d}"
        assert start.start_time_secs == 7.0 * number
    view.close()


def test_it_says_how_a_trial_ended(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), *reached(0, 0, 3, 500), suggested(1), *lost(1, 0, 3), suggested(2), job(2, 0, 3))
    tell(view, history, suggested(3), job(3, 0, 27), epoch(3, 27, 500), job_end(3, 0, 27))
    tell(view, history, suggested(4), *lost(4, 0, 3, "failed"), suggested(5), *lost(5, 0, 3, "killed"))
    ends = {number: ended(folder, number) for number in range(6)}
    good, bad = api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE
    assert ends == {0: good, 1: bad, 2: None, 3: good, 4: bad, 5: good}
    view.close()
    history.apply(begin(9.0))
    TensorBoardView(StoredStudy(folder, study, history)).close()
    assert {number: ended(folder, number) for number in range(6)} == ends


def test_a_trial_that_was_stopped_and_is_lost_after_its_promotion_has_failed(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), *reached(0, 0, 3, 500))
    assert ended(folder, 0) == api_pb2.STATUS_SUCCESS
    tell(view, history, job(0, 3, 9), epoch(0, 4), job_end(0, 3, 9, "diverged", "not finite"))
    assert ended(folder, 0) == api_pb2.STATUS_FAILURE
    assert [step for step, _ in curves(folder.trial(0))["loss/total"]] == [1, 2, 3, 4]
    view.close()


def test_recipe_and_study_are_there_as_they_are_written_to_files(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0, {"hcpr.scale": 5.5}))
    text = words(folder.trial(0), "recipe")
    fenced = re.fullmatch(r"~~~\n(.*)\n~~~", text, re.DOTALL)
    assert recipe_from_plain(tomllib.loads(fenced[1]), "the text").hcpr.scale == 5.5
    assert words(folder.root, "study") == f"~~~\n{study_to_toml(study).rstrip()}\n~~~"
    view.close()


def test_pictures_come_with_the_rungs_that_were_the_best_when_they_were_reached(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    for at in (3, 9, 27):
        checkpoint_with(folder, study, 0, at, picture(at))
    tell(view, history, suggested(0), job(0, 0, 27), epoch(0, 1), rung(0, 3, 50), rung(0, 9, 40), rung(0, 27, 60))
    assert shown(folder, 0, EXAMPLES) == [(3, picture(3)), (27, picture(27))]
    pairs = shown(folder, 0, CONFUSION)
    assert [step for step, _ in pairs] == [3, 27]
    assert Image.open(io.BytesIO(pairs[0][1])).format == "PNG"
    view.close()


def test_where_each_rung_is_a_training_of_its_own_its_picture_is_found(study, folder):
    restarted = replace(
        study, recipe=replace(study.recipe, lr_schedule=replace(study.recipe.lr_schedule, mode="restarted"))
    )
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, restarted, history))
    for at in (3, 9):
        checkpoint_with(folder, restarted, 0, at, picture(at))
    tell(view, history, suggested(0), *reached(0, 0, 3, 500), *reached(0, 0, 9, 600))
    assert shown(folder, 0, EXAMPLES) == [(3, picture(3)), (12, picture(9))]
    view.close()


@pytest.mark.parametrize("damage", ["missing", "cut off", "altered"])
def test_a_picture_that_is_lost_is_left_out(study, folder, damage):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    path = checkpoint_with(folder, study, 0, 3, picture())
    data = path.read_bytes()
    middle = len(data) // 2
    changed = {"cut off": data[:middle], "altered": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]}
    path.write_bytes(changed[damage]) if damage in changed else path.unlink()
    tell(view, history, suggested(0), job(0, 0, 3), rung(0, 3, 50), job_end(0, 0, 3))
    assert shown(folder, 0, EXAMPLES) == []
    assert len(shown(folder, 0, CONFUSION)) == 1
    assert curves(folder.trial(0))["accuracy_validation/robust"] == [(3, 0.5)]
    view.close()


def test_a_storage_that_does_not_answer_leaves_pictures_out(study, folder, monkeypatch):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    checkpoint_with(folder, study, 0, 3, picture())

    def refused(*arguments):
        raise StorageError("the store cannot be reached")

    with monkeypatch.context() as context:
        context.setattr("hcpr_tune.search.storage.checkpoint_store.FolderStore.read", refused)
        tell(view, history, suggested(0), job(0, 0, 3), rung(0, 3, 50))
    view.close()
    assert shown(folder, 0, EXAMPLES) == []
    # The next session finds what this one had to leave, as after a kill between the report and the picture.
    history.apply(begin(1.0))
    TensorBoardView(StoredStudy(folder, study, history)).close()
    assert shown(folder, 0, EXAMPLES) == [(3, picture())]


def test_an_old_record_without_classes_has_curves_and_no_pictures(study, folder):
    history = history_of()
    view = TensorBoardView(StoredStudy(folder, study, history))
    tell(view, history, suggested(0), *reached(0, 0, 3, 500))
    assert board(folder.trial(0)).Tags()["images"] == []
    view.close()


def test_a_trial_stays_below_a_megabyte_with_pictures_of_noise(study, folder):
    history = history_of(last_epoch=81)
    view = TensorBoardView(StoredStudy(folder, study, history))
    draws = random.Random(1)
    inputs = {"model_inputs": {"class_names": [f"class {number}" for number in range(10)]}}
    tell(view, history, published())
    start = 0
    for step, at in enumerate((3, 9, 27, 81)):
        checkpoint_with(folder, study, 0, at, picture(at, side=32, channels=3))
        pairs = [[true, led, draws.randrange(1, 99)] for true in range(10) for led in range(10) if led != true]
        top = rung(0, at, 1000 * (step + 1), 9000, 10_000) | {
            "attacked_pairs_validation": pairs,
            "class_totals_validation": [1000] * 10,
        }
        tell(view, history, job(0, start, at), *(epoch(0, number) for number in range(start + 1, at)), top)
        tell(view, history, job_end(0, start, at) | inputs)
        start = at
    view.close()
    assert len(shown(folder, 0, EXAMPLES)) == len(shown(folder, 0, CONFUSION)) == 4
    (path,) = folder.trial(0).glob("events*")
    assert 300_000 < path.stat().st_size < 1_000_000


def test_the_driver_needs_no_torch_for_it(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hcpr_tune.search.record.results import StoredStudy, StudyFolder\n"
        "from hcpr_tune.search.spec.study_file import find_space, read_study\n"
        "from hcpr_tune.views.tensorboard.writer import TensorBoardView\n"
        "from tests.search.histories import history_of, job, suggested\nfrom tests.views.recorded import recorded\n"
        "study = read_study(find_space('default'))\nhistory = history_of()\n"
        f"view = TensorBoardView(StoredStudy(StudyFolder(Path({str(tmp_path)!r})), study, history))\n"
        "for event in list(recorded(study, 3))[1:]:\n    if history.apply(event): view.on_event(event, history)\n"
        "view.close()\nprint({'torch', 'tensorflow', 'plotly'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout == "set()\n"
