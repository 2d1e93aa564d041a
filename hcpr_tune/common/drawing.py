"""Helpers for small labelled images, drawn with Pillow: attacked images by workers, counts by the driver."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from hcpr_tune.common.text import ascii_of, listed, one_line

INK, PALE, FRAME, PAPER = "#24292f", "#6e7781", "#c4cad1", "#ffffff"
RIGHT, WRONG = "#0b7a5b", "#c2410c"
"""Distinguishable with colour blindness, and dark enough for text."""


MOST_IN_LEGEND, MOST_CHARACTERS = 30, 60
"""Classes that a legend names, and the length of a name in it."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font, available on every machine. ASCII only."""
    return ImageFont.load_default(size)


def width_of(words: str, size: int) -> int:
    """The width in pixels."""
    return round(font(size).getlength(words))


def class_word(number: int, names: Sequence[str]) -> str:
    """A class's name in ASCII, or its number if it has no such name; "none" for -1."""
    if number < 0:
        return "none"
    plain = " ".join(ascii_of(names[number] if number < len(names) else "").split())
    return plain if plain and plain.isascii() and plain.isprintable() else str(number)


def legend(names: Sequence[str]) -> str:
    """What the numbers in a picture stand for, where a class's name cannot be drawn; empty if all can be."""
    words = [class_word(number, names) for number in range(len(names))]
    shown = [one_line(name, MOST_CHARACTERS) for name in names]
    numbered = [f"{number} is {name}" for number, name in enumerate(shown) if words[number] == str(number) != name]
    return listed(numbered, MOST_IN_LEGEND)


def shortened(words: str, width: int, size: int) -> str:
    """As much of `words` as fits into `width` pixels."""
    if width_of(words, size) <= width:
        return words
    while words and width_of(words + "…", size) > width:
        words = words[:-1]
    return words.rstrip() + "…"


def arrow(draw: ImageDraw.ImageDraw, left: float, middle: float, length: int, colour: str) -> None:
    """Draw an arrow to the right, which the font lacks."""
    right = left + length
    draw.line([(left, middle), (right, middle)], fill=colour)
    draw.line([(right - 3, middle - 3), (right, middle), (right - 3, middle + 3)], fill=colour)


def as_png(image: Image.Image, colours: int = 0) -> bytes:
    """A PNG file; reduced to `colours` colours if given, which makes it smaller."""
    buffer = io.BytesIO()
    reduced = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) if colours else image
    reduced.save(buffer, format="PNG")
    return buffer.getvalue()


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file; None if it is invalid."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError):
        return None
