"""The size of a checkpoint is found out once for models of ours, and every time for those that may change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hcpr_tune.api import sizes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sizes, "MOST_SECONDS", 200.0)  # a busy machine takes its time to import torch


def measured(study):
    with sizes.measuring(study) as size:
        return size()


def test_a_size_is_kept_and_not_measured_again(small_study, monkeypatch):
    first = measured(small_study)
    assert first > 10_000
    assert list(sizes.cached_sizes().values()) == [first]
    monkeypatch.setattr(sizes.subprocess, "Popen", None)
    assert measured(small_study) == first


def test_a_damaged_cache_is_done_without(small_study):
    sizes.cache_file().parent.mkdir(parents=True)
    sizes.cache_file().write_text('["no", "table"', encoding="utf-8")
    assert measured(small_study) > 10_000
    assert len(sizes.cached_sizes()) == 1


def test_images_and_models_of_the_user_s_own_are_measured_every_time(small_study):
    recipe = small_study.recipe
    assert sizes.is_ours(recipe)
    assert not sizes.is_ours(replace(recipe, task=replace(recipe.task, dataset="folder:photos")))
    assert not sizes.is_ours(replace(recipe, model=replace(recipe.model, name="mine:net")))
