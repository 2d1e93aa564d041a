"""Format values for people: durations, shares with their intervals, searched values, untrusted text."""

from __future__ import annotations

from typing import Any

NUMBER_WIDTH = 6
"""The most characters that `brief` uses for a searched number."""
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def age(seconds: float | None) -> str:
    """A duration in its largest unit; `?` for None."""
    if seconds is None:
        return "?"
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"{int(seconds // size)} {unit}"


def lasting(seconds: float) -> str:
    """An estimated duration: two digits, in a suitable unit."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 1.5 * size), UNITS[-1])
    value = seconds / size
    return f"{value:.1f} {unit}" if 0 < value < 9.95 and unit != "s" else f"{value:.0f} {unit}"


def amount(value: float) -> str:
    """A mean of counts or hours, with a sensible number of digits."""
    if abs(value) >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"


def counted(count: int, what: str) -> str:
    """`3 trials`, `1 trial`."""
    return f"{count} {what}" + "s" * (count != 1)


def working(seconds: float) -> str:
    """Workers' time, in hours or minutes."""
    return f"{amount(seconds / 3600)} worker-hours" if seconds >= 3600 else f"{amount(seconds / 60)} worker-minutes"


def disk(size: float) -> str:
    """Bytes in a suitable unit."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= 0.9995 * scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.0f} kB"


def printable(text: str) -> str:
    """Text from a file or an error, without terminal control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def with_interval(accuracy: dict[str, float]) -> str:
    """A share in per cent with its interval."""
    low, share, high = (100 * accuracy[name] for name in ("low_95", "share", "high_95"))
    return f"{share:.1f} % ({low:.1f} to {high:.1f})"


def brief(value: Any) -> str:
    """A searched value in few characters: three digits if they fit, else two."""
    if not isinstance(value, float):
        return printable(str(value))
    texts = [f"{value:.3g}", f"{value:.2g}", f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")]
    return next((text for text in texts if len(text) <= NUMBER_WIDTH), texts[-1])


def number(count: int, what: str) -> str:
    """A count in words: `1 trial`, `2 trials`."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def percent(share: float) -> str:
    """A share in percent, with one digit."""
    return f"{100 * share:.1f} %"
