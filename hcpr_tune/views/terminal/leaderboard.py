"""The board: trials with their states, epochs and scores, and as many of the searched values as fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.text import Text

from hcpr_tune.search.spec.dimensions import Choice, Space
from hcpr_tune.views.status import Plain
from hcpr_tune.views.wording import NUMBER_WIDTH, brief, printable, with_interval

WIDE = 100
"""Columns of a terminal on which accuracies have their intervals with decimals."""
PUBLISHED, AGAIN = "*", "+"
"""Marks of the published recipe, and of recipes that are trained again."""
LEGEND = {PUBLISHED: "published recipe", AGAIN: "trained again"}
STATE_WIDTH = 11
"""Of `interrupted`."""


@dataclass(frozen=True)
class Column:
    """A searched dimension. Its width does not depend on the trials' values, so that the view does not jump."""

    name: str
    values: int
    """The length of its longest value."""

    @property
    def heading(self) -> tuple[str, str]:
        """The whole name, folded after the dot that makes it narrowest; the first line is empty without a dot."""
        name = printable(self.name)
        places = [place for place, letter in enumerate(name[:-1], 1) if letter == "."]
        return min([("", name), *((name[:at], name[at:]) for at in places)], key=lambda lines: max(map(len, lines)))

    @property
    def width(self) -> int:
        """The column's width, including the space before it."""
        return 1 + max(self.values, *map(len, self.heading))


def columns_of(space: Space) -> tuple[Column, ...]:
    """A column for each dimension."""
    columns = []
    for name, dimension in space.items():
        values = [len(brief(value)) for value in dimension.ends()] if isinstance(dimension, Choice) else [NUMBER_WIDTH]
        columns.append(Column(name, max(values)))
    return tuple(columns)


@dataclass(frozen=True)
class Frame:
    """The columns that every study has, on a terminal `width` wide; `last_epoch`: that of the last rung."""

    width: int
    last_epoch: int

    @property
    def is_wide(self) -> bool:
        return self.width >= WIDE

    def row(self, trial: str, mark: str, state: str, epoch: str, robust: str, at: str, clean: str) -> str:
        digits = len(str(self.last_epoch))
        epoch, at = f"{epoch:>{max(5, 2 * digits + 1)}}", f"{at:>{max(3, digits)}}"
        robust = f"{robust:<{23 if self.is_wide else 15}}"
        return f"{trial:>5}{mark:1} {state:<{STATE_WIDTH}} {epoch} {robust} {at} {clean:>7}"

    @property
    def blank(self) -> str:
        return self.row(*("",) * 7)

    def fitting(self, columns: Sequence[Column], chosen: Sequence[str] | None = None) -> list[Column]:
        """The dimensions that fit beside them, in their order.

        `chosen`: names of dimensions, of which the last ones come first if not all fit. By default as many as fit, the
        narrow ones first.
        """
        left, shown = self.width - len(self.blank), set[str]()
        if chosen is None:
            candidates = sorted(columns, key=lambda column: column.width)
        else:
            known = {column.name: column for column in columns}
            candidates = [known[name] for name in reversed(chosen) if name in known]
        for column in candidates:
            if column.width <= left:
                shown.add(column.name)
                left -= column.width
        return [column for column in columns if column.name in shown]


def board_lines(
    trials: Sequence[Plain], columns: Sequence[Column], frame: Frame, most: int, best: int | None = None
) -> list[Text]:
    """The trials in their order, each with the values of `columns`, in at most `most` lines.

    The published recipe is always among them, if there is room for two. `best`: the number of the best trial.
    """
    if not trials:
        return []
    above, below = ("".join(f"{column.heading[line]:>{column.width}}" for column in columns) for line in (0, 1))
    lines = [Text(frame.blank + above, style="bold")] if above.strip() and most > 3 else []
    titles = ("trial", "", "state", "epoch", "robust accuracy", "at", "clean")
    lines.append(Text((frame.row(*titles) + below).rstrip(), style="bold"))
    shown = list(trials[: max(1, most - len(lines))])
    published = next((trial for trial in trials if trial["trial"] == 0), None)
    if published is not None and published not in shown and len(shown) > 1:
        shown[-1] = published
    return [*lines, *(trial_line(trial, columns, frame, trial["trial"] == best) for trial in shown)][:most]


def trial_line(trial: Plain, columns: Sequence[Column], frame: Frame, is_best: bool) -> Text:
    """One trial."""
    robust, clean = (trial.get(f"{kind}_accuracy_validation") for kind in ("robust", "clean"))
    words = frame.row(
        str(trial["trial"]),
        mark(trial),
        trial["status"],
        f"{trial['epochs']}/{trial['target']}" if trial["status"] == "running" else str(trial["epochs"]),
        "-" if robust is None else with_interval(robust) if frame.is_wide else short_interval(robust),
        str(trial["epoch_of_score"] or "-"),
        "-" if clean is None else f"{100 * clean['share']:.1f} %",
    )
    words += "".join(f"{brief(trial['params'].get(one.name, '')):>{one.width}}" for one in columns)
    return Text(words.rstrip(), style="green" if is_best else "cyan" if mark(trial) == PUBLISHED else "")


def mark(trial: Plain) -> str:
    """What stands beside a trial's number."""
    return PUBLISHED if trial["trial"] == 0 else "" if trial["replicate_of"] is None else AGAIN


def legend(marks: Collection[str]) -> str:
    """What the marks mean."""
    words = [f"{one} {LEGEND[one]}" for one in LEGEND if one in marks]
    return ", ".join(words).replace(" recipe, ", ", ")


def short_interval(accuracy: dict[str, float]) -> str:
    """A share in per cent with the whole numbers of its interval."""
    low, share, high = (100 * accuracy[name] for name in ("low_95", "share", "high_95"))
    return f"{share:.1f} % ({low:.0f}-{high:.0f})"
