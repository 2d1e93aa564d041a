"""Helpers for small labelled images, drawn with Pillow: attacked images by workers, counts by the driver."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageColor, ImageDraw, ImageFont, PngImagePlugin

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


PHOTOS = "photos"
"""Key in a picture's `info`, and text in its PNG file: the boxes (left, top, right, bottom) in which photos are, as
numbers separated by blanks. They keep their colours on a dark page.
"""


def as_png(image: Image.Image, colours: int = 0) -> bytes:
    """A PNG file; reduced to `colours` colours if given, which makes it smaller."""
    buffer, words = io.BytesIO(), PngImagePlugin.PngInfo()
    if PHOTOS in image.info:
        words.add_text(PHOTOS, image.info[PHOTOS])
    reduced = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) if colours else image
    reduced.save(buffer, format="PNG", pnginfo=words)
    return buffer.getvalue()


def for_dark_pages(png: bytes, paper: str) -> bytes:
    """The picture in light ink on dark `paper`, hues kept, and its photos as they were.

    A picture that does not say where its photos are is returned unchanged. Raises `OSError`, `SyntaxError` or
    `ValueError` for an invalid file.
    """
    import numpy as np

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        light = np.asarray(image.convert("RGB"), dtype=float)
        words = image.info.get(PHOTOS)
    if words is None:
        return png
    # HSL's lightness turned round: white becomes black, and a dark green a light one.
    dark = light + 255 - light.max(axis=2, keepdims=True) - light.min(axis=2, keepdims=True)
    ground = np.array(ImageColor.getrgb(paper), dtype=float)
    dark = ground + dark * (255 - ground) / 255
    for left, top, right, bottom in np.array(words.split(), dtype=int).reshape(-1, 4):
        dark[top:bottom, left:right] = light[top:bottom, left:right]
    return as_png(Image.fromarray(np.rint(dark).astype(np.uint8)))


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file; None if it is invalid."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError):
        return None
