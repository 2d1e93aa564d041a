"""The leaderboard: the best trials, the published recipe, and as many of the searched values as fit."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from hcpr_tune.search.spec.dimensions import Choice, Space
from hcpr_tune.views.status import Plain
from hcpr_tune.views.wording import NUMBER_WIDTH, brief, printable, with_interval


@dataclass(frozen=True)
class Column:
    """A searched dimension. Its width does not depend on the leaders' values, so that the view does not jump."""

    name: str
    title: str
    values: int
    """The length of its longest value."""

    def heading(self, folded: bool) -> tuple[str, str]:
        """The title in two lines, folded after a dot or an underscore to be narrow; the first is empty if unfolded."""
        title = self.title
        places = [place for place, letter in enumerate(title[:-1], 1) if letter in "._"] if folded else []
        folds = [(title[:place], title[place:]) for place in places]
        return min([("", title), *folds], key=lambda lines: max(map(len, lines)))

    def width(self, folded: bool) -> int:
        """The column's width, including the space before it."""
        return 1 + max(self.values, *map(len, self.heading(folded)))


def columns_of(space: Space) -> tuple[Column, ...]:
    """A column for each dimension, titled by the shortest unambiguous end of its dotted name."""
    columns = []
    for name, dimension in space.items():
        parts = name.split(".")
        endings = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        alone = [end for end in endings if sum(f".{other}".endswith(f".{end}") for other in space) == 1]
        values = [len(brief(value)) for value in dimension.ends()] if isinstance(dimension, Choice) else [NUMBER_WIDTH]
        columns.append(Column(name, printable(alone[0] if alone else name), max(values)))
    return tuple(columns)


def fitting(columns: tuple[Column, ...], width: int, folded: bool) -> list[Column]:
    """As many columns as fit, in their order, preferring narrow ones; leaves room for the number of hidden ones."""
    if sum(column.width(folded) for column in columns) <= width:
        return list(columns)
    left, chosen = width - len(f" +{len(columns)}"), set()
    for column in sorted(columns, key=lambda column: column.width(folded)):
        if column.width(folded) <= left:
            chosen.add(column.name)
            left -= column.width(folded)
    return [column for column in columns if column.name in chosen]


def leader_lines(leaders: list[Plain], columns: tuple[Column, ...], width: int, most: int) -> list[Text]:
    """The best trials so far, and the published recipe at any rank, in at most `most` lines."""
    if not leaders:
        return []
    left = width - len(row("", "", "", "", ""))
    folded = most > 3 and len(fitting(columns, left, folded=False)) < len(columns)
    chosen = fitting(columns, left, folded)
    shown = leaders[: max(1, most - 1 - folded)]
    if leaders[-1]["trial"] == 0 and leaders[-1] not in shown and len(shown) > 1:
        shown[-1] = leaders[-1]
    above, below = (
        "".join(f"{column.heading(folded)[line]:>{column.width(folded)}}" for column in chosen) for line in (0, 1)
    )
    more = f" +{len(columns) - len(chosen)}" if len(chosen) < len(columns) else ""
    lines = [Text((row("", "", "", "", "") + above).rstrip(), style="bold")] if above.strip() else []
    lines.append(Text(row("", "trial", "epoch", "robust accuracy", "clean") + below + more, style="bold"))
    for trial in shown:
        robust, clean = (trial[f"{kind}_accuracy_validation"] for kind in ("robust", "clean"))
        places = str(trial["rank"]), str(trial["trial"]), str(trial["epoch_of_score"])
        values = "".join(f"{brief(trial['params'].get(one.name, '')):>{one.width(folded)}}" for one in chosen)
        words = row(*places, with_interval(robust), f"{100 * clean['share']:.1f} %") + values
        lines.append(Text(words.rstrip(), style="green" if trial["rank"] == 1 else ""))
    return lines[:most]


def row(rank: str, trial: str, epoch: str, robust: str, clean: str) -> str:
    """The columns that every study has."""
    return f"{rank:>3} {trial:>5} {epoch:>5}  {robust:<22} {clean:>7} "
