"""Numbers from the command line, with an upper bound on each."""

from __future__ import annotations

import math
from contextlib import suppress

from hcpr_tune.errors import InputError

MOST = 10**9
"""Of anything that is counted or waited for: thirty years in seconds."""
LONGEST = 24
"""Characters of a number that a message repeats whole."""


def whole(option: str, text: str, least: int = 0, most: int = MOST) -> int:
    """A whole number. Raises `InputError`, which names the `option`."""
    value = None
    with suppress(ValueError):
        value = int(text[: 10 * LONGEST])  # longer ones are out of range in any case
    if value is None or not least <= value <= most:
        end = f" and at most {most}" if value is not None and value > most else ""
        raise InputError(f"{option} must be a whole number of at least {least}{end}, got {short(text)}")
    return value


def real(option: str, text: str, above: float = -math.inf, most: float = MOST) -> float:
    """A number of at least 0, above `above`. Raises `InputError`, which names the `option`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= most and value > above):
        least, end = "above 0" if above == 0 else "of at least 0", f" and at most {most:g}" if value > most else ""
        raise InputError(f"{option} must be a number {least}{end}, got {short(text)}")
    return value


def short(text: str) -> str:
    """What was given, to be recognised."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
