"""Whether a model has collapsed: it always gives nearly the same answer, so that its robust accuracy means nothing."""

from __future__ import annotations

import math

STANDARD_ERRORS = 3.0


def has_collapsed(clean_correct: int, total: int, largest_class: float) -> bool:
    """Whether a model's clean accuracy cannot be told from that of always answering the most frequent class.

    largest_class: the number of images of the most frequent class; total / classes where it is not known. Up to three
    standard errors above that, which 1 of 700 such guesses exceeds. False without images.
    """
    if total <= 0:
        return False
    share = min(1.0, largest_class / total)
    error = math.sqrt(share * (1 - share) / total)
    return clean_correct / total <= share + STANDARD_ERRORS * error
