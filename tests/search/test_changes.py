"""What may change between the sessions of a study, and how the rest is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.search.spec.changes import differences, grown_budget, with_free_settings
from hcpr_tune.search.spec.study import extend, study_to_plain
from hcpr_tune.search.spec.study_file import read_study, study_from_plain


def test_equal_studies_do_not_differ(small_study):
    assert differences(small_study, small_study) == {}
    assert grown_budget(small_study, small_study, small_study, "here") == {}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimiser.lr", 0.3, "recipe.optimiser.lr was 0.1, is 0.3"),
        ("search.hcpr.scale.low", 5.0, "search.hcpr.scale.low was 4.0, is 5.0"),
        ("search.hcpr.margin", {"low": 0.1, "high": 0.3}, "search.hcpr.margin.high was not set, is 0.3"),
        ("early_stopping.reduction_factor", 4, "early_stopping.reduction_factor was 2.0, is 4.0"),
        ("seed", 3, "seed was 0, is 3"),
        ("task.epsilon", 0.2, "task.epsilon was 0.15, is 0.2"),
        ("budget.trials", 3, "budget.trials was 4, is 3"),
    ],
)
def test_a_change_is_refused_and_shown(space_file, small_study, key, value, words):
    now = read_study(space_file, [(key, value)])
    with pytest.raises(InputError) as refused:
        grown_budget(small_study, now, small_study, "mine.toml")
    assert str(refused.value).startswith("mine.toml was changed since the study began: ")
    assert words in str(refused.value)
    assert "begin a new study" in str(refused.value)


def test_more_budget_is_taken_once(space_file, small_study):
    now = read_study(space_file, [("budget.trials", 9), ("budget.hours", 2.0)])
    with pytest.raises(InputError, match=r"budget.hours was 0.0, is 2.0"):
        grown_budget(small_study, now, small_study, "mine.toml")  # there was no limit
    now = read_study(space_file, [("budget.trials", 9)])
    grown = grown_budget(small_study, now, small_study, "mine.toml")
    assert grown == {"trials": 9}
    assert grown_budget(small_study, now, extend(small_study, grown), "mine.toml") == {}
    # By --resume --trials it may have grown further since.
    assert grown_budget(small_study, now, extend(small_study, {"trials": 20}), "mine.toml") == {}


def test_a_limit_of_time_may_be_lifted(space_file):
    began = read_study(space_file, [("budget.hours", 2.0)])
    assert grown_budget(began, read_study(space_file), began, "here") == {"hours": 0.0}


def test_what_decides_nothing_is_taken_as_it_is_today(space_file, small_study):
    changes = [("resources.workers", 7), ("keep_weights", 2), ("resources.worker_deaths", 9), ("description", "x")]
    now = read_study(space_file, changes)
    assert differences(small_study, now) == {}
    tables = with_free_settings(study_to_plain(small_study), now)
    assert study_from_plain(tables, "here").settings == replace(now.settings)
