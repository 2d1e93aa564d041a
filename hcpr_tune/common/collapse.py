"""When a model has collapsed: it gives the same answer for every image, which a low score alone does not say."""

from __future__ import annotations

import math

STANDARD_ERRORS = 3.0


def has_collapsed(clean_correct: float, total: int, largest_class: int | None) -> bool:
    """Whether clean accuracy cannot be told from always answering the most frequent class (3 standard errors).

    `largest_class`: its number of images; None if it is not known, which is then no collapse.
    """
    if largest_class is None or not total:
        return False
    majority = largest_class / total
    return clean_correct / total <= majority + STANDARD_ERRORS * math.sqrt(majority * (1 - majority) / total)
