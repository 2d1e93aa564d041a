"""What `benchmarks/search.py arms` makes of its runs and scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

from arms import pooled, running, scoring, summary
from arms.tasks import as_scored

from hcpr_tune.search.spec.study_file import find_space, read_study


def run(arm, seed, choice, timeline=(), seconds=100.0):
    final = timeline[-1][1] if timeline else None
    found = {"arm": arm, "seed": seed, "choice": choice, "seconds": seconds}
    return found | {"timeline": list(timeline), "final_best": final}


def scored(choice, *robust, collapsed=()):
    """The three trainings of a choice, of 100 images; those at the places `collapsed` did."""
    return [
        {"choice": choice, "seed": seed, "robust_correct": count, "total": 100, "collapsed": place in collapsed}
        for place, (seed, count) in enumerate(zip(scoring.SEEDS, robust, strict=True))
    ]


A, B, C = {"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}


def test_differences_are_paired_by_study_seed_with_students_interval():
    runs = [run("ours", 0, A), run("ours", 1, B), run("random", 0, C), run("random", 1, A), run("ours", 2, A)]
    scores = [*scored(A, 60, 60, 60), *scored(B, 62, 64, 66), *scored(C, 56, 57, 58)]
    found = summary.summary_of_arms(runs, scores)
    paired = found["ours_minus"]["random"]
    assert (paired["seeds"], paired["values"]) == ([0, 1], pytest.approx([0.03, 0.04]))
    # Two differences: standard deviation 0.01 / sqrt(2), standard error 0.005, t(0.975, 1) = 12.7062.
    assert paired["interval"] == pytest.approx([0.035 - 0.063531, 0.035 + 0.063531], abs=1e-5)
    assert found["true_score"]["ours"]["mean"] == pytest.approx((0.6 + 0.64 + 0.6) / 3)


def test_collapsed_trainings_are_counted_apart_and_shown():
    runs = [run("ours", 0, A), run("random", 0, B), run("random", 1, None)]
    scores = [*scored(A, 60, 62, 10, collapsed={2}), *scored(B, 10, 10, 10, collapsed={0, 1, 2})]
    found = summary.summary_of_arms(runs, scores)
    assert found["true_score"]["ours"]["mean"] == pytest.approx(0.61)
    assert found["true_score"]["random"]["n"] == 0
    assert found["ours_minus"]["random"]["n"] == 0
    ours, random = (found["trainings_of_choices"][arm] for arm in ("ours", "random"))
    assert (ours["trainings"], ours["collapsed"]) == (3, 1)
    assert ours["mean_with_collapsed"] == pytest.approx(0.44)
    assert (random["collapsed"], random["runs_without_a_choice"]) == (3, 1)


def test_a_run_counts_once_all_its_trainings_are_scored():
    assert summary.true_value(run("ours", 0, A), scored(A, 60, 60, 60)[:2]) is None


def test_equal_choices_are_trained_once():
    runs = [run("ours", 0, A), run("random", 0, A), run("optuna", 0, B), run("stock_ray", 0, None)]
    todo = scoring.missing(runs, scored(B, 1, 2, 3)[:1])
    assert todo == [(A, seed) for seed in scoring.SEEDS] + [(B, seed) for seed in scoring.SEEDS[1:]]


def test_never_is_later_than_half_of_the_time():
    other = [run("stock_ray", seed, A, [[50.0, 0.7]]) for seed in range(3)]
    ours = [run("ours", seed, A, [[20.0, 0.6], [at, 0.7]]) for seed, at in ((0, 40.0), (1, 60.0))]
    ours.append(run("ours", 2, A, [[20.0, 0.6]]))
    found = summary.summary_of_arms([*ours, *other], [])["ours_reaches_final_best_of"]["stock_ray"]
    assert [entry["fraction"] for entry in found["by_seed"]] == [0.4, 0.6, None]
    assert (found["median_fraction"], found["in_half_of_the_time"]) == (0.6, 1)


def test_the_time_line_has_trainings_to_the_end_only():
    scores = [(1, 3, 0.9), (2, 9, 0.5), (3, 9, 0.4), (4, 9, 0.6)]
    events = [{"time": 100.0 + at, "trial": at, "epoch": end, "score": one, "seconds": 1} for at, end, one in scores]
    assert running.outcome(events, 100.0, 9)["timeline"] == [[2.0, 0.5], [4.0, 0.6]]
    assert running.best_report(events)["trial"] == 1
    assert running.best_report(events, 9)["trial"] == 4


def test_a_choice_is_scored_under_the_published_schedule_whatever_it_was_found_under():
    recipe = as_scored(read_study(find_space("default")).recipe, 7)
    assert (recipe.lr_schedule.mode, recipe.lr_schedule.shape, recipe.seed) == ("single", "steps", 7)
    assert (recipe.segment_ends, recipe.last_epoch) == ((), recipe.epochs)


def test_no_search_at_all_is_an_arm_too():
    options = argparse.Namespace(task="digits", root=Path(), set=[], seed=3)
    published = running.run_arm("published", options)
    assert published["choice"]["hcpr"]["scale"] == read_study(find_space("default")).recipe.hcpr.scale
    runs = [run("ours", 3, A), published]
    scores = [*scored(A, 60, 60, 60), *scored(published["choice"], 50, 50, 53)]
    found = summary.summary_of_arms(runs, scores)
    assert found["ours_minus"]["published"]["mean"] == pytest.approx(0.09)


def test_arms_that_need_syne_tune_are_left_out_without_it(capsys):
    assert running.can_run(["ours", "syne_tune_mobster"], None) == ["ours"]
    assert "pip install" in capsys.readouterr().err


def test_images_are_averaged_over_blocks_of_2x2(tmp_path):
    import gzip

    import numpy as np

    drawn = np.random.default_rng(0)
    for part, count in pooled.IMAGES.items():
        images = drawn.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = bytes(16)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes(), 1))
        classes = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(bytes(8) + classes.tobytes())
    pooled.write(tmp_path, tmp_path / "out")
    small, labels = pooled.load(str(tmp_path / "out"), train=False)
    assert (small.shape, labels[13]) == ((1000, 14, 14), 3)
    assert small[5, 2, 3] == round(float(images[5, 4:6, 6:8].mean()))
