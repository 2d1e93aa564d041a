"""An image of the confusion matrix under attack: a row per true class, a column per class under attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hcpr_tune.common.drawing import FRAME, INK, PALE, PAPER, as_png, class_word, font, shortened, width_of
from hcpr_tune.search.record.events.fields import Epoched

STAYED, LED_AWAY = np.array([11, 122, 91]), np.array([194, 65, 12])
"""Full colours of the diagonal and of all other cells."""
MOST_PIXELS, LARGEST_CELL = 720, 44
"""The largest side of all cells together, and of one cell."""
NUMBERED, NAMED = 22, 12
"""The smallest cells, in pixels, that have room for their count, and for the name of their row."""
MARGIN, MOST_NAME = 12, 110


@dataclass(frozen=True)
class Confusion:
    """Images by true class (row) and class under attack (column). An extra last column is for logits that are NaN."""

    counts: np.ndarray

    @classmethod
    def of(cls, event: Epoched) -> Confusion | None:
        """From a rung's report; None if the report has no classes."""
        if "attacked_pairs_validation" not in event or not event.get("class_totals_validation"):
            return None
        totals = np.array(event["class_totals_validation"])
        pairs = np.array(event["attacked_pairs_validation"], dtype=int).reshape(-1, 3)
        counts = np.zeros((len(totals), len(totals) + 1), dtype=int)
        # Class -1 (NaN) indexes the last column.
        counts[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
        np.fill_diagonal(counts, totals - counts.sum(axis=1))
        return cls(counts if counts[:, -1].any() else counts[:, :-1])

    @property
    def classes(self) -> int:
        return len(self.counts)

    def colours(self) -> np.ndarray:
        """One per cell, (rows, columns, 3) uint8: the larger the share of the class's images, the darker.

        Off the diagonal even few images are visible.
        """
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        diagonal = np.eye(*self.counts.shape) > 0
        depth = np.where(diagonal, 0.9 * shares, np.sqrt(shares))[..., None]
        full = np.where(diagonal[..., None], STAYED, LED_AWAY)
        colours: np.ndarray = np.rint(255 + depth * (full - 255)).astype(np.uint8)
        return colours


def confusion_png(event: Epoched, class_names: Sequence[str], heading: str) -> bytes | None:
    """The confusion matrix of a rung's report as a PNG file, titled `heading`; None if the report has no classes."""
    confusion = Confusion.of(event)
    if confusion is None:
        return None
    return as_png(draw_confusion(confusion, class_names, heading), colours=256)


def draw_confusion(confusion: Confusion, class_names: Sequence[str], heading: str) -> Image.Image:
    """Draw a cell per pair of classes, with its count if there is room."""
    rows, columns = confusion.counts.shape
    cell = max(1, min(LARGEST_CELL, MOST_PIXELS // columns))
    names = [class_word(number, class_names) for number in (*range(rows), *([-1] if columns > rows else []))]
    names = [shortened(name, MOST_NAME, 12) for name in names]
    room = max(width_of(name, 12) for name in names) if cell >= NAMED else width_of(str(rows), 12)
    left, top = 2 * MARGIN + room, 64 + (room if cell >= NAMED else 14)
    words = [
        heading,
        f"rows: true class; columns: class under attack; {confusion.counts.sum()} images, diagonal: still correct",
    ]
    width = max(left + cell * columns + MARGIN, *(2 * MARGIN + width_of(line, 12) for line in words))
    picture = Image.new("RGB", (width, top + cell * rows + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(words):
        draw.text((MARGIN, 9 + 19 * number), line, fill=PALE if number else INK, font=font(12))
    cells = Image.fromarray(confusion.colours()).resize((cell * columns, cell * rows), Image.Resampling.NEAREST)
    picture.paste(cells, (left, top))
    draw.rectangle((left - 1, top - 1, left + cell * columns, top + cell * rows), outline=FRAME)
    _draw_names(picture, names, cell, (left, top), rows)
    if cell >= NUMBERED:
        _draw_counts(draw, confusion, cell, (left, top))
    return picture


def _draw_names(picture: Image.Image, names: Sequence[str], cell: int, corner: tuple[int, int], rows: int) -> None:
    """Draw the names of rows and columns or, if there is no room, the number of every nth."""
    left, top = corner
    draw = ImageDraw.Draw(picture)
    flat = max(width_of(name, 12) for name in names) <= cell
    every = 1 if cell >= NAMED else next(step for step in (5, 10, 20, 50, 100, 200, 500, 10**6) if step * cell >= 30)
    for number in range(0, len(names), every):
        name = names[number] if every == 1 else str(number)
        middle = cell * number + cell / 2
        if number < rows:
            draw.text((left - 6, top + middle), name, fill=INK, font=font(12), anchor="rm")
        if every > 1 or flat:
            draw.text((left + middle, top - 5), name, fill=INK, font=font(12), anchor="mb")
        else:
            upright = Image.new("RGB", (width_of(name, 12) + 2, 16), PAPER)
            ImageDraw.Draw(upright).text((0, 8), name, fill=INK, font=font(12), anchor="lm")
            turned = upright.rotate(90, expand=True)
            picture.paste(turned, (round(left + middle - 8), top - 5 - turned.height))


def _draw_counts(draw: ImageDraw.ImageDraw, confusion: Confusion, cell: int, corner: tuple[int, int]) -> None:
    """Draw the counts that are not 0, light on dark cells."""
    dark = confusion.colours().mean(axis=2) < 150
    for row, column in np.argwhere(confusion.counts):
        at = corner[0] + cell * column + cell / 2, corner[1] + cell * row + cell / 2
        colour = PAPER if dark[row, column] else INK
        draw.text(at, str(confusion.counts[row, column]), fill=colour, font=font(12 if cell >= 30 else 10), anchor="mm")
