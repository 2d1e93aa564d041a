"""What `hcpr_tune init` says of a folder of images: a table of its classes, what becomes of the files, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hcpr_tune.api.datasets.look import ClassCount, Look
from hcpr_tune.api.datasets.starter import SCORED
from hcpr_tune.common.intervals import wilson_interval
from hcpr_tune.common.statistics import smallest_difference
from hcpr_tune.common.text import listed
from hcpr_tune.search.spec.settings import Verdict
from hcpr_tune.views.verdicts import smallest_words

MOST_ROWS = 30
"""Classes; of more, the smallest and the largest half of these are shown."""
WIDEST_NAME = 40
MOST_SIZES = 3
FEWEST, FEWEST_OF_CLASS = 50, 10
"""Validation images, in all and of each class, below which there is a warning."""
MOST_UNEVEN = 20
"""How many times as many training images the largest class may have as the smallest."""


def overview(seen: Look) -> list[str]:
    """All lines: the table, sizes and colours, what was converted or skipped, what can be shown, and warnings."""
    lines = [*class_table(seen), "", *_files(seen), *_power(seen)]
    return lines + [f"WARNING      {words}" for words in warnings(seen)]


def class_table(seen: Look) -> list[str]:
    """The classes with their images in each split, and the sums."""
    counts, titles = seen.counts, ("class", "images", "train", "validation", "test")
    first, more, last = list(counts), "", list[ClassCount]()
    if len(counts) > MOST_ROWS:
        by_size = sorted(counts, key=lambda one: one.all)
        half = MOST_ROWS // 2
        first, last, left_out = by_size[:half], by_size[-half:], by_size[half:-half]
        more = f"... {len(left_out)} more classes of {left_out[0].all:,} to {left_out[-1].all:,} images"
    sums = ClassCount(f"{len(counts)} classes", seen.train, seen.validation, seen.test)
    rows = [titles, *map(_row, first), *map(_row, last), _row(sums)]
    lines = _aligned(rows)
    return [*lines[: 1 + len(first)], *filter(None, [more]), *lines[1 + len(first) :]]


def _row(one: ClassCount) -> tuple[str, ...]:
    return one.name, *(f"{count:,}" for count in (one.all, one.train, one.validation, one.test))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, names to the left, numbers to the right; as wide as a terminal shows them (猫 is two wide)."""
    from rich.cells import cell_len, set_cell_size

    names = [
        row[0] if cell_len(row[0]) <= WIDEST_NAME else set_cell_size(row[0], WIDEST_NAME - 1) + "…" for row in rows
    ]
    first = max(map(cell_len, names))
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    return [
        set_cell_size(name, first) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True))
        for name, row in zip(names, rows, strict=True)
    ]


def _files(seen: Look) -> Iterator[str]:
    """How the files are read: splits, sizes, colours, and what was converted or skipped."""
    yield f"splits       {_split_words(seen)}"
    yield f"sizes        {_size_words(seen)}"
    yield f"colour       {_colour_words(seen)}"
    for words in (*seen.converted, *seen.unusual):
        yield f"converted    {words}"
    for words in seen.skipped or ("nothing",):
        yield f"skipped      {words}"


def _split_words(seen: Look) -> str:
    own = [f"{name}/ is the {what}" for name, what in _own_parts(seen)]
    drawn = [what for what, name in (("validation", seen.own_validation), ("test", seen.own_test)) if not name]
    if drawn:
        own.append(
            f"{' and '.join(drawn)} {'are' if len(drawn) > 1 else 'is'} drawn, 20 % of each class, always the same"
        )
    return "; ".join(own)


def _own_parts(seen: Look) -> Iterator[tuple[str, str]]:
    if seen.own_validation:
        yield seen.own_validation, "validation, as a whole"
    if seen.own_test:
        yield seen.own_test, "test, of which only names and headers were read"


def _size_words(seen: Look) -> str:
    sizes = seen.sizes.most_common()
    words = ", ".join(f"{width}x{height} ({count:,})" for (height, width), count in sizes[:MOST_SIZES])
    if len(sizes) > MOST_SIZES:
        small, large = (pick(seen.sizes, key=lambda one: one[0] * one[1]) for pick in (min, max))
        words += f" and {len(sizes) - MOST_SIZES} more, from {small[1]}x{small[0]} to {large[1]}x{large[0]}"
    total, kept = seen.sizes.total(), seen.sizes[seen.size, seen.size]
    if not seen.resized:
        return f"{words}; none is resized"
    what = "test images" if kept == total else f"{total - kept:,} of {total:,}"
    stretched = sum(count for (height, width), count in sizes if height != width)
    shape = f"; {stretched:,} are no squares and are stretched" if stretched else ""
    return f"{words}; {what} resized to {seen.size}x{seen.size}, bilinear, as networks take one size{shape}"


def _colour_words(seen: Look) -> str:
    if seen.channels == 1:
        return "gray, one channel"
    gray = f"; {seen.gray:,} of {seen.sizes.total():,} are gray, and become colour" if seen.gray else ""
    return f"colour, three channels{gray}"


def _power(seen: Look) -> Iterator[str]:
    """The smallest difference that the validation and the test images can show, and what one score is worth."""
    seeds = Verdict().seeds
    for split, images in (("validation", seen.validation), ("test", seen.test)):
        if split == "validation" or images != seen.validation:
            yield f"power        {smallest_words(split, images, seeds, smallest_difference(images, seeds))}"
    scored = min(SCORED, seen.validation)
    low, high = wilson_interval(round(scored / 2), scored)
    yield f"scores       one robust accuracy on {scored:,} images is known to ± {50 * (high - low):.1f} points (95 %)"


def warnings(seen: Look) -> Iterator[str]:
    """What is wrong with the numbers of images, and what to do."""
    more = f"add images to {seen.own_validation}/" if seen.own_validation else "add images"
    drawn = "" if seen.own_validation else ", or raise task.validation_fraction"
    if seen.validation < FEWEST:
        yield (
            f"{seen.validation} validation images are few, {FEWEST} or more are wanted: which trial comes first would "
            f"be luck for the most part; {more}{drawn}"
        )
    few = [one for one in sorted(seen.counts, key=lambda one: one.validation) if one.validation < FEWEST_OF_CLASS]
    if few:
        shown = listed([f"{one.name} {one.validation}" for one in few], 5)
        yield (
            f"{len(few)} of {len(seen.counts)} classes have fewer than {FEWEST_OF_CLASS} validation images ({shown}): "
            f"accuracies by class say little about them; {more}{drawn}"
        )
    small, large = (pick(seen.counts, key=lambda one: one.train) for pick in (min, max))
    if large.train > MOST_UNEVEN * small.train:
        yield (
            f"{large.name} has {large.train / small.train:.0f} times as many training images as {small.name} "
            f"({large.train:,} and {small.train:,}; up to {MOST_UNEVEN} times is usual): accuracies are mostly those "
            f"of the large classes; add images of {small.name}, or look at the verdict's accuracies by class"
        )
