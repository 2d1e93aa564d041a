"""What the keys change in the live view: the order of the trials, and the dimensions that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from hcpr_tune.common.keyboard import DOWN, ENTER, SPACE, UP
from hcpr_tune.views.status import SORTS
from hcpr_tune.views.wording import printable

QUIT, SORT, DIMENSIONS, ALL = "q", "s", "d", "a"
"""Keys."""


@dataclass(frozen=True)
class BoardOptions:
    """`sort`: one of `SORTS`; `chosen`: the dimensions to show, in the order in which they were chosen, None for as
    many as fit; `cursor`: the place in the list of dimensions while they are being chosen, else None.
    """

    sort: str = SORTS[0]
    chosen: tuple[str, ...] | None = None
    cursor: int | None = None

    def after(self, key: str, names: Sequence[str], shown: Sequence[str]) -> BoardOptions:
        """The options after a key. `names`: all dimensions; `shown`: those that are shown now."""
        key = key.lower()
        if self.cursor is None:
            if key == SORT:
                return replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)])
            return replace(self, cursor=0) if key == DIMENSIONS and names else self
        if key in (DIMENSIONS, ENTER):
            return replace(self, cursor=None)
        if key in (UP, DOWN):
            return replace(self, cursor=(self.cursor + (1 if key == DOWN else -1)) % len(names))
        if key == ALL:
            return replace(self, chosen=None)
        if key == SPACE:
            name, now = names[self.cursor], tuple(shown) if self.chosen is None else self.chosen
            kept = tuple(one for one in now if one != name)
            return replace(self, chosen=kept if name in now else (*kept, name))
        return self


AT_FIRST = BoardOptions()


def choosing_lines(options: BoardOptions, names: Sequence[str], shown: Sequence[str], most: int) -> list[Text]:
    """The list of dimensions that are chosen from, around the cursor, in at most `most` lines."""
    cursor, room = options.cursor or 0, max(1, most - 1)
    lines = [Text("dimensions   space chooses, j and k or arrows move, a as many as fit, d ends", "bold")][: most - 1]
    first = min(max(0, cursor - room // 2), max(0, len(names) - room))
    for place, name in list(enumerate(names))[first : first + room]:
        wanted = name in shown if options.chosen is None else name in options.chosen
        words = f"{'>' if place == cursor else ' '} [{'x' if wanted else ' '}] {printable(name)}"
        words += "  (no room)" if wanted and name not in shown else ""
        lines.append(Text(words, "reverse" if place == cursor else ""))
    return lines


def keys_line(options: BoardOptions, shown: int, dimensions: int, quits: str, legend: str) -> Text:
    """The keys and what they do now; `quits`: what q does, empty where no keys are read."""
    words = [legend] if legend else []
    if quits:
        words = [f"q {quits}", f"s sort: {options.sort}", f"d dimensions: {shown} of {dimensions}", *words]
    elif shown < dimensions:
        words.append(f"{shown} of {dimensions} dimensions")
    return Text("  ".join(words), "dim")
