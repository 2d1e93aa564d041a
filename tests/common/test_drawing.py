"""A picture on a dark page: its paper is dark, its text light, its photos are as they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hcpr_tune.common.drawing import PAPER, PHOTOS, RIGHT, as_png, for_dark_pages

DARK = "#14171a"


def drawn(photos):
    """Green ink on white paper, and a photo of noise in a box."""
    picture = Image.new("RGB", (60, 40), PAPER)
    ImageDraw.Draw(picture).rectangle((2, 2, 20, 10), fill=RIGHT)
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    picture.paste(Image.fromarray(noise), (30, 20))
    if photos:
        picture.info[PHOTOS] = "30 20 54 36"
    return picture, noise


def test_paper_turns_dark_ink_light_and_photos_stay():
    picture, noise = drawn(photos=True)
    dark = np.asarray(Image.open(io.BytesIO(for_dark_pages(as_png(picture), DARK))).convert("RGB"))
    assert tuple(dark[0, 0]) == (0x14, 0x17, 0x1A)
    assert np.array_equal(dark[20:36, 30:54], noise)
    ink = dark[5, 5].astype(int)
    assert ink.max() > 180
    assert ink.argmax() == 1, "green stays green"


def test_a_picture_that_does_not_name_its_photos_stays_as_it_is():
    png = as_png(drawn(photos=False)[0])
    assert for_dark_pages(png, DARK) == png


def test_the_boxes_survive_a_reduction_of_the_colours():
    with Image.open(io.BytesIO(as_png(drawn(photos=True)[0], colours=16))) as image:
        assert image.info[PHOTOS] == "30 20 54 36"


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_what_is_no_picture_is_an_error(data):
    with pytest.raises(OSError, match="identify"):
        for_dark_pages(data, DARK)
