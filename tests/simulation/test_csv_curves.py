"""Curves of a file: what is read, and that every mistake is named with its line."""

from __future__ import annotations

import numpy as np
import pytest

from hcpr_tune.errors import InputError
from hcpr_tune.simulation.curves.csv_curves import noise_between_neighbours, read_curves

HEAD = "run,epoch,score\n"
GOOD = "a,1,0.1\na,2,0.2\na,3,0.25\nb,1,0.2\nb,2,0.3\nb,3,0.45\n"

MISTAKES = {
    "missing epoch": ("a,1,0.1\na,3,0.2\nb,1,0.1\nb,2,0.2\nb,3,0.3\n", "line 3: epoch 2 of run a is missing"),
    "a run that ends early": ("a,1,0.1\na,2,0.2\nb,1,0.1\nb,2,0.2\nb,3,0.3\n", "line 3: epoch 3 of run a is missing"),
    "an epoch between": (
        "a,2,0.1\na,4,0.2\nb,2,0.1\nb,3,0.2\nb,4,0.3\n",
        "line 5: epoch 3 of run b does not belong there; each run needs the multiples of 2 up to 4",
    ),
    "nan": ("a,1,0.1\na,2,nan\nb,1,0.1\nb,2,0.2\n", "line 3: score must be a number from 0 to 1, got nan; "),
    "no number": ("a,1,0.1\na,2,high\n", "line 3: score must be a number from 0 to 1, got high"),
    "empty score": ("a,1,\n", "line 2: score must be a number from 0 to 1, got nothing"),
    "per cent": ("a,1,34.2\n", "line 2: score must be a number from 0 to 1, got 34.2; divide percentages by 100"),
    "one run": ("a,1,0.1\na,2,0.2\n", "line 3: there is only one run in it"),
    "no run": ("", "line 1: there is no run in it"),
    "unsorted epochs": ("a,2,0.2\na,1,0.1\n", "line 3: epoch 1 of run a comes after its epoch 2; sort the rows"),
    "an epoch twice": ("a,1,0.2\na,1,0.1\n", "line 3: epoch 1 of run a comes after its epoch 1"),
    "runs mixed": ("a,1,0.1\nb,1,0.1\na,2,0.2\n", "line 4: run a continues here, after run b; sort the rows"),
    "far apart": ("a,1,0.1\na,200000000,0.2\nb,1,0.1\nb,200000000,0.2\n", "line 3: epoch 2 of run a is missing"),
    "no run's name": (",1,0.1\n", "line 2: run is empty"),
    "epoch 0": ("a,0,0.1\n", "line 2: epoch must be a whole number of at least 1, got 0"),
    "epoch 1.5": ("a,1.5,0.1\n", "line 2: epoch must be a whole number of at least 1, got 1.5"),
}


def read(tmp_path, text):
    path = tmp_path / "curves.csv"
    path.write_text(text, encoding="utf-8")
    return read_curves(path)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_the_way_out(mistake, tmp_path):
    rows, words = MISTAKES[mistake]
    with pytest.raises(InputError) as raised:
        read(tmp_path, HEAD + rows)
    assert f"--curves {tmp_path / 'curves.csv'}, {words}" in str(raised.value)
    assert "; " in str(raised.value)


def test_a_missing_column_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r"line 1: the column score is missing; its columns are run, epoch, score"):
        read(tmp_path, "run,epoch\na,1\n")
    with pytest.raises(InputError, match="there is no such file"):
        read_curves(tmp_path / "none.csv")


def test_names_may_have_spaces_and_stand_once(tmp_path):
    assert read(tmp_path, "run, epoch, score\na,1,0.1\na,2,0.2\nb ,1,0.1\nb,2,0.2\n").scores.shape == (2, 2)
    with pytest.raises(InputError, match="line 1: the column score appears twice"):
        read(tmp_path, "run,epoch,score,score\na,1,0.1,0.2\n")


def test_a_line_is_counted_as_in_the_file_and_numbers_are_exact(tmp_path):
    rows = "a,1,0.1\n\n , ,\na,2,0.30000000000000004\nb,1,0.123456789012345678\nb,2,1e-3\n"
    assert read(tmp_path, HEAD + rows).scores.tolist() == [[0.1, 0.1 + 0.2], [0.123456789012345678, 0.001]]
    with pytest.raises(InputError, match=r"line 5: score must be a number from 0 to 1, got 2;"):
        read(tmp_path, HEAD + "a,1,0.1\n\n\na,2,2\n")
    draws = np.random.default_rng(0).random(2000)
    rows = "".join(f"{run},{epoch + 1},{draws[1000 * run + epoch]!r}\n" for run in (0, 1) for epoch in range(1000))
    assert (read(tmp_path, HEAD + rows.replace("np.float64(", "").replace(")", "")).scores.ravel() == draws).all()


def test_a_row_with_too_many_values_and_an_empty_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read: .*line 3.*; its columns are run, epoch, score"):
        read(tmp_path, HEAD + "a,1,0.1\na,2,0.2,7\n")
    with pytest.raises(InputError, match="; its columns are run, epoch, score"):
        read(tmp_path, "")


def test_finals_are_of_a_run_and_all_have_one(tmp_path):
    head = "epoch,run,score,final,note\n"
    found = read(tmp_path, head + "1,a,0.1,,x\n2,a,0.2,0.15,\n1,b,0.2,0.3,\n2,b,0.3,0.3,\n")
    assert found.finals is not None
    assert found.finals.tolist() == [0.15, 0.3]
    with pytest.raises(InputError, match=r"line 3: final of run a is 0\.2 here and 0\.1 before"):
        read(tmp_path, head + "1,a,0.1,0.1,\n2,a,0.2,0.2,\n1,b,0.1,0.1,\n2,b,0.2,,\n")
    with pytest.raises(InputError, match="line 5: run b has no final, others have one"):
        read(tmp_path, head + "1,a,0.1,0.1,\n2,a,0.2,,\n1,b,0.1,,\n2,b,0.2,,\n")


def test_a_rung_beyond_the_last_epoch_or_between_two_is_refused(tmp_path):
    curves = read(tmp_path, HEAD + GOOD)
    with pytest.raises(
        InputError, match="line 7: its last epoch is 3, but the last rung is at epoch 27; plan with --set epochs=3"
    ):
        curves.play([3, 27], 5, 0)
    every = read(tmp_path, HEAD + "a,2,0.1\na,4,0.2\nb,2,0.1\nb,4,0.2\n")
    with pytest.raises(InputError, match="no score at epoch 3, where a rung is, only at multiples of 2"):
        every.play([3, 4], 5, 0)


def many_runs(tmp_path, finals=False):
    """300 runs of 12 epochs whose true scores are known, measured with noise of 0.02."""
    draws = np.random.default_rng(0)
    ends = draws.normal(0.5, 0.05, 300)
    rise = 1 - np.exp(-np.arange(1, 13) / 3)
    scores = np.clip(ends[:, None] * rise + draws.normal(0, 0.02, (300, 12)), 0, 1)
    rows = [
        f"{run},{epoch + 1},{scores[run, epoch]:.6f},{ends[run] - 0.1:.6f}" for run in range(300) for epoch in range(12)
    ]
    names = "run,epoch,score,final" if finals else "run,epoch,score,other"
    return read(tmp_path, names + "\n" + "\n".join(rows) + "\n"), scores


def test_drawn_curves_have_the_file_s_mean_spread_and_correlations(tmp_path):
    curves, scores = many_runs(tmp_path)
    play = curves.play([1, 4, 12], 20_000, 0)
    seen = np.array(play.seen)
    columns = scores[:, [0, 3, 11]]
    assert seen.mean(axis=0) == pytest.approx(columns.mean(axis=0), abs=0.003)
    assert seen.std(axis=0) == pytest.approx(columns.std(axis=0, ddof=1), rel=0.05)
    assert np.corrcoef(seen, rowvar=False) == pytest.approx(np.corrcoef(columns, rowvar=False), abs=0.04)


def test_the_noise_is_found_and_what_is_true_varies_less_than_what_is_seen(tmp_path):
    curves, scores = many_runs(tmp_path)
    assert noise_between_neighbours(scores) == pytest.approx(0.02**2, rel=0.2)
    play = curves.play([12], 20_000, 0)
    seen, true = np.array(play.seen)[:, 0], np.array(play.true)[:, 0]
    assert (seen - true).std() == pytest.approx(0.02, rel=0.1)
    best = np.argsort(seen)[-100:]
    assert true[best].mean() < seen[best].mean() - 0.01  # the winner's curse


def test_a_final_score_is_what_a_run_is_worth_at_every_rung(tmp_path):
    curves, _ = many_runs(tmp_path, finals=True)
    play = curves.play([4, 12], 5000, 0)
    true = np.array(play.true)
    assert (true[:, 0] == true[:, 1]).all()
    assert true.mean() == pytest.approx(0.4, abs=0.02)
    assert np.corrcoef(true[:, 0], np.array(play.seen)[:, 1])[0, 1] > 0.8
