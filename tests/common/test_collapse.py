"""A collapsed model is told apart from a weak one by its clean accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from hcpr_tune.common.collapse import has_collapsed


@pytest.mark.parametrize(
    ("correct", "total", "largest", "collapsed"),
    [
        (36, 359, 36, True),  # the whole class and nothing else
        (35, 359, 35.9, True),  # the total over the classes, where no class is known
        (52, 359, 36, True),  # within three standard errors, 4.8 points
        (54, 359, 36, False),
        (90, 100, 90, True),  # 90 % is nothing where 90 % are of one class
        (0, 100, 50, True),
        (100, 100, 100, True),
        (0, 0, 0, False),
    ],
)
def test_a_model_has_collapsed_up_to_three_standard_errors_above_the_largest_class(correct, total, largest, collapsed):
    assert has_collapsed(correct, total, largest) == collapsed


def test_models_that_guess_one_class_are_seldom_missed():
    images = np.random.default_rng(0).binomial(359, 0.1, size=20_000)
    assert np.mean([has_collapsed(int(count), 359, 35.9) for count in images]) > 0.995
