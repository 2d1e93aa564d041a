"""Learning from an earlier study of the same task."""

from __future__ import annotations

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.record.record import Record
from hcpr_tune.search.spec.study import study_to_plain
from hcpr_tune.search.spec.study_file import study_from_plain
from hcpr_tune.search.storage.studies import check_new, create
from hcpr_tune.search.suggestion.warm_start import warm_start
from tests.search.histories import lost, reached, suggested


def changed(study, **tables):
    plain = study_to_plain(study)
    for name, more in tables.items():
        plain[name] = {**plain[name], **more} if isinstance(more, dict) else more
    return study_from_plain(plain, "new.toml")


@pytest.fixture
def old(small_study, tmp_path):
    """A study with three trials, of which one ran to the end and one diverged."""
    folder = check_new(tmp_path, "old")
    record = Record(folder.record, create(folder, small_study).history)
    begin = {"event": "begin", "time": 0.0, "versions": {}, "workers": 1, "fingerprint": small_study.fingerprint}
    points = [{"hcpr.scale": scale, "pace.shape": "linear"} for scale in (5.0, 8.0, 15.0)]
    events = [begin, suggested(0, points[0]), *reached(0, 0, 1, 300), *reached(0, 1, 2, 400), *reached(0, 2, 4, 500)]
    events += [suggested(1, points[1]), *reached(1, 0, 1, 200), suggested(2, points[2]), *lost(2, 0, 1)]
    for event in events:
        record.append(event)
    record.close()
    return folder.root


def test_trials_come_over_with_their_fidelity(old, small_study):
    trials = warm_start(old, small_study, 0.0)["trials"]
    assert [
        (trial["params"]["hcpr.scale"], list(trial["scores"]), trial["completed"], trial["lost"]) for trial in trials
    ] == [
        (5.0, ["1", "2", "4"], True, False),
        (8.0, ["1"], False, False),
        (15.0, [], False, True),
    ]


def test_dimensions_that_the_earlier_study_held_fixed_come_over_and_what_lies_outside_does_not(old, small_study):
    search = {"hcpr.scale": {"low": 4.0, "high": 10.0}, "hcpr.margin": {"low": 0.0, "high": 0.4}}
    new = changed(small_study, search={}, recipe={"pace": {"shape": "constant"}})
    plain = study_to_plain(new) | {"search": search}
    trials = warm_start(old, study_from_plain(plain, "new.toml"), 0.0)["trials"]
    assert [trial["params"] for trial in trials] == [
        {"hcpr.scale": 5.0, "hcpr.margin": 0.2},
        {"hcpr.scale": 8.0, "hcpr.margin": 0.2},
    ]


def test_rungs_of_another_lr_schedule_mean_something_else_and_stay_behind(old, small_study):
    new = changed(small_study, recipe={"lr_schedule": {"mode": "restarted", "shape": "cosine"}})
    trials = warm_start(old, new, 0.0)["trials"]
    assert [(trial["lost"], list(trial["scores"])) for trial in trials] == [(True, [])]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"task": {"epsilon": 0.1}}, "its task.epsilon is 0.15, here it is 0.1"),
        ({"recipe": {"model": {"width": 5}}}, "its model.width is 4, here it is 5"),
        ({"recipe": {"batch_size": 64}}, "its batch_size is 128, here it is 64"),
        ({"task": {"split_seed": 7}}, "its task.split_seed is 0, here it is 7"),
        (
            {"recipe": {"evaluation": {"steps": 7, "relative_step_size": 0.5}}},
            "its evaluation.steps is 3, here it is 7",
        ),
        (
            {"search": {"hcpr.scale": {"low": 6.0, "high": 7.0}}, "recipe": {"hcpr": {"scale": 6.5}}},
            "none of its 3 trials lies inside",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(old, small_study, tables, words):
    with pytest.raises(InputError) as caught:
        warm_start(old, changed(small_study, **tables), 0.0)
    assert words in str(caught.value)
