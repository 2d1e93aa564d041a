"""`did you mean`: the known names that are most like one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wanted: str, known: Iterable[str], most: int = 1) -> list[str]:
    """At most `most` of the known names: the most similar ones first, then those that begin or end like `wanted`."""
    names = sorted(set(known))
    if not wanted:
        return []
    found = difflib.get_close_matches(wanted, names, n=most)
    # A part of a long name is not similar to it by its letters: a study's name has its date, a setting its table.
    found += [name for name in names if name.startswith(wanted) or name.endswith(f".{wanted}")]
    return list(dict.fromkeys(found))[:most]


def did_you_mean(wanted: str, known: Iterable[str], prefix: str = "", most: int = 1) -> str:
    """The question with the nearest names, `prefix` before each; empty where no name is near."""
    names = [prefix + name for name in nearest(wanted, known, most)]
    if not names:
        return ""
    return f"did you mean {' or '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}?"
