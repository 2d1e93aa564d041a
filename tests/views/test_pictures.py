"""The picture of the classes that an attack leads to: numbers, colours, and legibility for few classes and many."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hcpr_tune.common.drawing import class_word, legend
from hcpr_tune.views.tensorboard.pictures import LARGEST_CELL, Confusion, confusion_png, draw_confusion

EVENT = {"attacked_pairs_validation": [[0, 1, 3], [1, 0, 10], [2, -1, 1]], "class_totals_validation": [10, 10, 10]}
NAMES = ("cat", "dog", "café")


def of_size(classes: int, seed: int = 0) -> Confusion:
    draws = np.random.default_rng(seed)
    return Confusion(draws.integers(0, 40, (classes, classes)) * (draws.random((classes, classes)) < 0.3))


def test_the_diagonal_is_what_stayed_right_and_no_class_has_a_column_of_its_own():
    assert Confusion.of(EVENT).counts.tolist() == [[7, 3, 0, 0], [10, 0, 0, 0], [0, 0, 9, 1]]
    without = EVENT | {"attacked_pairs_validation": [[0, 1, 3]]}
    assert Confusion.of(without).counts.tolist() == [[7, 3, 0], [0, 10, 0], [0, 0, 10]]
    unbroken = EVENT | {"attacked_pairs_validation": []}
    assert Confusion.of(unbroken).counts.tolist() == [[10, 0, 0], [0, 10, 0], [0, 0, 10]]


@pytest.mark.parametrize("name", EVENT)
def test_a_report_that_says_nothing_of_classes_has_no_picture(name):
    assert confusion_png({key: value for key, value in EVENT.items() if key != name}, NAMES, "trial 0") is None


def test_more_of_a_class_is_darker_and_right_is_told_from_wrong():
    colours = Confusion.of(EVENT).colours().astype(int)
    assert (colours[0, 2] == 255).all()
    depth = 255 * 3 - colours.sum(axis=2)
    assert 0 < depth[2, 3] < depth[0, 1] < depth[1, 0]
    red, green = colours[..., 0], colours[..., 1]
    assert all(green[at] > red[at] for at in ((0, 0), (2, 2)))
    assert all(green[at] < red[at] for at in ((0, 1), (1, 0), (2, 3)))


def test_a_class_without_images_is_white():
    empty = {"attacked_pairs_validation": [], "class_totals_validation": [5, 0]}
    assert (Confusion.of(empty).colours()[1] == 255).all()


def test_names_are_drawn_without_accents_and_the_others_are_explained():
    names = ["Größe", "Øre", "猫", "3", "\udcff", "x" * 300]
    assert [class_word(number, names) for number in range(5)] == ["Grosse", "Ore", "2", "3", "4"]
    assert legend(names) == r"2 is 猫, 4 is \udcff"
    assert legend(["cat", "dog"]) == legend([]) == ""
    assert legend(["猫" * 200]).endswith("猫 ...")


@pytest.mark.parametrize("names", [(), NAMES, ("cat", "x" * 300, "猫")])
def test_cells_lie_where_their_classes_are(names):
    image = np.asarray(draw_confusion(Confusion.of(EVENT), names, "trial 0"))
    colours = Confusion.of(EVENT).colours()
    height, width, _ = image.shape
    # Cells end one margin before the picture's lower edge; the heading may be wider than they are.
    top = height - 12 - 3 * LARGEST_CELL
    (left,) = {
        at
        for at in range(width - 4 * LARGEST_CELL + 1)
        if (image[top + 2, at : at + LARGEST_CELL] == colours[0, 0]).all()
    } or {None}
    assert left is not None
    for row in range(3):
        for column in range(4):
            corner = image[top + row * LARGEST_CELL + 2, left + column * LARGEST_CELL + 2]
            assert corner.tolist() == colours[row, column].tolist()


def dark(image: Image.Image) -> int:
    """How many pixels are words."""
    return int((np.asarray(image.convert("L")) < 90).sum())


def test_counts_are_written_where_there_is_room():
    few = of_size(10)
    with_counts, without = draw_confusion(few, (), "x"), draw_confusion(Confusion(0 * few.counts), (), "x")
    assert dark(with_counts) > dark(without) + 200
    # A hundred classes: no words in cells of a few pixels.
    many = of_size(100)
    plain = Confusion(0 * many.counts)
    assert abs(dark(draw_confusion(many, (), "x")) - dark(draw_confusion(plain, (), "x"))) < 30


@pytest.mark.parametrize("classes", [1, 2, 10, 24, 43, 100, 1000])
@pytest.mark.parametrize("named", [False, True])
def test_it_has_a_size_that_a_screen_shows(classes, named):
    names = [f"a class with the number {number}" for number in range(classes)] if named else ()
    picture = draw_confusion(
        of_size(classes), names, "trial 3, epoch 27: 271 of 359 images stay right under attack (75.5 %)"
    )
    assert picture.width <= 1100
    assert picture.height <= 1100


def test_the_file_is_a_small_png():
    data = confusion_png(EVENT, NAMES, "trial 0, epoch 3")
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert len(data) < 20_000
