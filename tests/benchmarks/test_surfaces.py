"""What `benchmarks/surfaces.py` makes of recorded trainings."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

from made_up import params_at
from surface_proposals import ARMS, Recorded, Replay, searched
from surface_scores import Pairs, candidates, scores_of, spearman
from surface_table import read_surface, table

from hcpr_tune.search.spec.points import params_of
from hcpr_tune.search.spec.study_file import find_space, read_study

RADII = [0.5, 0.75, 1.0, 1.25, 1.5]
LOST = 5
"""Seed 2 of this recipe diverges after epoch 9."""


def training(recipe, seed, robust, luck, draws):
    """One training: survivors fall with the radius, counts at epsilon are `robust` + `luck`, as is the truth."""
    at = [0.95, 0.8, 0.7, robust + luck, 0.4, 0.2]
    scores = {
        str(epoch): {name: draws.binomial(359, at).tolist() for name in ("last", "averaged")}
        for epoch in (3, 9, 25, 26, 27)
    }
    true = {name: draws.binomial(282, [0.95, robust + luck]).tolist() for name in ("last", "averaged")}
    found = {"mode": "annealed", "recipe": recipe, "seed": seed, "scores": scores, "truth": true | {"images": 282}}
    if (recipe, seed) == (LOST, 2):
        found |= {"scores": {epoch: scores[epoch] for epoch in ("3", "9")}, "truth": {}, "diverged": 'loss, "nan"'}
    return {"diverged": "", "seconds": 100 / 3} | found


def results(recipes=12, luck=0.0):
    """A file of `train`, made up: recipe n is better than recipe n - 1."""
    study, draws = read_study(find_space("default")), np.random.default_rng(0)
    points = [params_of(study.recipe, study.space)]
    points += [params_at(study.space, draws.random(len(study.space))) for _ in range(recipes - 1)]
    lucky = luck * draws.standard_normal((recipes, 2))
    trainings = [
        training(recipe, 1 + seed, 0.5 + 0.15 * recipe / recipes, lucky[recipe, seed], draws)
        for recipe in range(recipes)
        for seed in (0, 1)
    ]
    settings = {"space": "default", "epochs": 27, "epsilon": 0.2, "radii": RADII, "validation_images": 359}
    return {"settings": settings, "machine": {}, "trainings": trainings, "params": points}


def surface(tmp_path, **how):
    (tmp_path / "surfaces.json").write_text(json.dumps(results(**how)))
    return read_surface(tmp_path / "surfaces.json")


def test_a_table_has_all_that_was_recorded(tmp_path):
    recorded = surface(tmp_path, recipes=100)
    out = tmp_path / "tables" / "surface.csv"
    table(argparse.Namespace(surface=tmp_path / "surfaces.json", out=out))
    assert read_surface(out) == recorded
    assert len(recorded.trainings) == 200
    assert out.stat().st_size < 300_000


def test_validation_images_are_counted_where_the_file_does_not_say(tmp_path):
    old = results(recipes=1)
    del old["settings"]["validation_images"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_surface(tmp_path / "old.json").validation_images == 359


def test_ranks_are_correlated_row_by_row():
    from scipy.stats import spearmanr

    draws = np.random.default_rng(0)
    one, other = draws.integers(0, 5, (3, 20)), draws.random((3, 20))
    expected = [spearmanr(*rows).statistic for rows in zip(one, other, strict=True)]
    assert spearman(one, other) == pytest.approx(expected)


def test_a_score_is_compared_with_the_other_seed(tmp_path):
    recorded = surface(tmp_path)
    pairs = [pair for recipe, pair in recorded.pairs("annealed").items() if recipe != LOST]
    found = Pairs.of(candidates(27)[0], pairs, recorded)
    first, second = pairs[3]
    assert found.scores[0, 3] == first.scores[27]["last"][3] / 359
    assert found.last[0, 3] == second.truth["last"][1] / 282
    assert found.scores[1, 3] == second.scores[27]["last"][3] / 359
    assert found.last[1, 3] == first.truth["last"][1] / 282


def test_the_better_half_is_that_of_the_truth():
    scores, truth = np.array([[9.0, 1.0, 2.0, 0.0, 5.0, 6.0]] * 2), np.array([[0.0, 1.0, 2.0, 5.0, 4.0, 3.0]] * 2)
    pairs = Pairs(scores, truth, truth)
    assert pairs.correlation(np.arange(6)[None, :], "last", True)[0] == pytest.approx(-1.0)


def test_what_is_picked_is_the_truth_of_the_highest_score():
    pairs = Pairs(np.array([[1.0, 3.0, 2.0]] * 2), np.zeros((2, 3)), np.array([[0.1, 0.5, 0.6], [0.1, 0.7, 0.6]]))
    # Of the places (0, 2) in the resample (2, 1, 0), and of all.
    assert pairs.picked(np.array([[2, 1, 0]]), np.array([[0, 2], [2, 2]])) == pytest.approx([(60 + 10) / 2])
    assert pairs.picked(np.array([[0, 1, 2]]), np.array([[0, 1], [1, 2]])) == pytest.approx([60])


def test_figures_of_scores(tmp_path):
    found = scores_of(surface(tmp_path, recipes=40), "annealed", resamples=100)
    assert (found["recipes"], found["not_collapsed"]) == (39, 39)
    rows = {row["score"]: row for row in found["rows"]}
    as_is, late = rows["last, epoch 27, epsilon"], rows["last + averaged, last 3 epochs, epsilon"]
    assert (as_is["attacks"], late["attacks"]) == (1, 6)
    assert as_is["all"]["interval"] == [0.0, 0.0]
    # Six times the images of which only epsilon tells the recipes apart.
    assert late["all"]["value"] > as_is["all"]["value"] > 0.5
    assert late["all"]["interval"][0] > -0.05


def test_too_few_recipes_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="train more"):
        scores_of(surface(tmp_path, recipes=4), "annealed", resamples=10)


def test_a_search_uses_each_recorded_recipe_once(tmp_path):
    recorded = Recorded(surface(tmp_path), "annealed")
    study = recorded.surface.study()
    play = Replay(recorded, study, 0)
    trials = [params_of(study.recipe, study.space)] * 12
    seen = [play.curve(number, params) for number, params in enumerate(trials)]
    assert play.places[0] == 0
    assert sorted(play.places.values()) == list(range(12))
    assert play.curve(3, trials[3]) == seen[3]


def test_a_replicate_has_the_other_seed(tmp_path):
    recorded = Recorded(surface(tmp_path), "annealed")
    play = Replay(recorded, recorded.surface.study(), 0)
    pair = recorded.pairs[2]
    first = play.curve(0, pair[0].params)
    again = play.replicate(12, 0, pair[0].params)
    ends = {one.scores[27]["last"][3] / 359 for one in pair}
    assert {first.robust[-1], again.robust[-1]} == ends
    assert play.replicate(12, 0, pair[0].params) == again
    third = play.replicate(13, 0, pair[0].params)
    assert third.true_robust[-1] == pytest.approx(np.mean(list(ends)), abs=0.05)


def test_a_training_that_diverged_is_lost_after_its_last_score(tmp_path):
    recorded = Recorded(surface(tmp_path), "annealed")
    params = recorded.pairs[LOST][0].params
    curves = []
    for seed in range(20):
        play = Replay(recorded, recorded.surface.study(), seed)
        curves.append(play.curve(0, params))
    assert {curve.lost_at for curve in curves} == {0, 10}


@pytest.mark.parametrize("name", ["random, to the end", "tpe, asha", "random, asha, replicates"])
def test_a_search_on_recorded_trainings_chooses_one_of_them(tmp_path, name):
    recorded = Recorded(surface(tmp_path, recipes=32), "annealed")
    found = searched(recorded, ARMS[name], 216, 0, 2)
    truths = [100 * recorded.true(place) for place in range(32)]
    assert found.truth in truths
    assert found.truth > np.mean(truths)
    assert 216 - 27 < found.epochs <= 216 + 27
    assert searched(recorded, ARMS[name], 216, 0, 2) == found


def test_stopping_at_rungs_tries_more_recipes_with_the_same_epochs(tmp_path):
    recorded = Recorded(surface(tmp_path, recipes=32), "annealed")
    whole, stopped = (searched(recorded, ARMS[name], 216, 0, 2) for name in ("random, to the end", "random, asha"))
    assert whole.recipes in (8, 9)  # the last one may be cut off
    assert stopped.recipes > 2 * whole.recipes
