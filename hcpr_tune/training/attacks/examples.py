"""A picture of a few validation images before and after the attack, with the predicted classes.

The images are always the same and attacked as in the evaluation, so that pictures of two trainings are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from hcpr_tune.common.drawing import (
    FRAME,
    INK,
    PALE,
    PAPER,
    PHOTOS,
    RIGHT,
    WRONG,
    arrow,
    as_png,
    class_word,
    font,
    shortened,
    width_of,
)
from hcpr_tune.training.attacks.evaluation import random_starts, scored_positions, scoring_attack
from hcpr_tune.training.attacks.pgd import Classifier, predict_under_attack
from hcpr_tune.training.data.dataset import Data, Split, fixed_subset
from hcpr_tune.training.formats import number_format
from hcpr_tune.training.loop import TrainingState, torch_threads
from hcpr_tune.training.models.folding import fuse_conv_bn
from hcpr_tune.training.recipe import Evaluation, Recipe, Task

SHOWN = 6
SMALL, LARGE = 64, 96
"""Pixels: small images are enlarged to about the first, large ones shrunk to the second."""
MOST_BYTES = 150_000
"""A larger picture is reduced to 256 colours, so that a trial's curves and pictures stay below a megabyte."""


@dataclass(frozen=True)
class Examples:
    """Images (N, C, H, W) in [0, 1] before and after the attack; true and predicted classes (N,)."""

    images: np.ndarray
    attacked: np.ndarray
    true: Sequence[int]
    clean_classes: Sequence[int]
    attacked_classes: Sequence[int]


def examples_png(recipe: Recipe, data: Data, state: TrainingState) -> bytes:
    """The picture for the state after a rung, as a PNG file. Does not affect the training."""
    device = data.validation.labels.device
    # A user's model may draw random numbers in its forward pass.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch_threads(recipe.threads),
        number_format(recipe.evaluation.precision, device),
    ):
        model = fuse_conv_bn(state.scored_model())
        found = find_examples(model, data.validation, recipe.task, recipe.evaluation)
    picture = draw_examples(found, recipe.task, recipe.evaluation, data.class_names, state.epoch)
    png = as_png(picture)
    return png if len(png) <= MOST_BYTES else as_png(picture, colours=256)


def find_examples(model: Classifier, split: Split, task: Task, settings: Evaluation) -> Examples:
    """A few of the scored images, from as many classes as fit, sorted by class."""
    scored = scored_positions(split, settings)
    chosen = scored[torch.as_tensor(fixed_subset(split.labels.cpu().numpy()[scored.numpy()], SHOWN, settings.seed))]
    chosen = chosen[split.labels.cpu()[chosen].argsort(stable=True)]
    images, labels = split.fetch(chosen), split.labels[chosen.to(split.labels.device)]
    attacked = images.clone()
    config = scoring_attack(task, settings)
    starts = random_starts(images, chosen, task.threat, config, settings.seed)
    clean, classes = predict_under_attack(model, images, labels, task.threat, config, starts, shown=attacked)
    return Examples(
        images=images.cpu().numpy(),
        attacked=attacked.cpu().numpy(),
        true=labels.tolist(),
        # An image misclassified before the attack is not attacked: its class stays.
        clean_classes=torch.where(clean, labels, classes).tolist(),
        attacked_classes=classes.tolist(),
    )


TITLE, ROW_NAMES, GAP, LABEL, MOST_LABEL = 44, 92, 10, 16, 92
"""Pixels: the header, the row names at the left, the gap between images, a line of text, and the widest label."""
SIZE, ARROW = 12, 18
"""Pixels: the font, and an arrow with its margin."""


class Label(NamedTuple):
    """An image's true class, its predicted class, and whether they agree."""

    true: str
    taken: str
    right: bool


@dataclass(frozen=True)
class Layout:
    """Positions: tiles of `width` x `height` pixels in columns of `room` pixels; labels take `lines` lines."""

    width: int
    height: int
    room: int
    lines: int

    @classmethod
    def of(cls, tile: Image.Image, labels: Sequence[Label]) -> Layout:
        """Labels on one line if all fit, else on two."""
        widths = [(width_of(label.true, SIZE), ARROW + width_of(label.taken, SIZE)) for label in labels]
        one_line = max(map(sum, widths))
        lines, widest = (1, one_line) if one_line <= MOST_LABEL else (2, max(map(max, widths)))
        return cls(tile.width, tile.height, max(tile.width, min(MOST_LABEL, widest)), lines)

    @property
    def whole(self) -> tuple[int, int]:
        return ROW_NAMES + SHOWN * (self.room + GAP), self.top(2) + self.height + GAP

    def left(self, column: int) -> int:
        return ROW_NAMES + column * (self.room + GAP)

    def top(self, row: int) -> int:
        return TITLE + row * (self.height + LABEL * self.lines + GAP)


def draw_examples(
    examples: Examples, task: Task, settings: Evaluation, class_names: Sequence[str], epoch: int
) -> Image.Image:
    """A column per image; rows: clean, attacked, and the amplified difference."""
    change = examples.attacked - examples.images
    # The L-infinity ball bounds each pixel, so its factor is fixed; the L2 radius says little about a single pixel.
    largest = task.epsilon if task.norm == "linf" else float(np.abs(change).max())
    factor = max(1.0, 0.5 / largest) if largest else 1.0
    rows = [
        [_tile(image) for image in examples.images],
        [_tile(image) for image in examples.attacked],
        [_tile((0.5 + factor * one).clip(0, 1), smooth=False) for one in change],
    ]
    labels = _labels(examples, class_names)
    layout = Layout.of(rows[0][0], [*labels[0], *labels[1]])
    width, height = layout.width, layout.height
    picture = Image.new("RGB", layout.whole, PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, 6), f"epoch {epoch}: true class, and what the model takes it for", fill=INK, font=font(SIZE))
    attack = f"margin attack in the {task.norm} ball of radius {task.epsilon:.3g}, {settings.steps} steps"
    draw.text((GAP, 6 + LABEL), attack, fill=PALE, font=font(SIZE))
    words = (["clean"], ["attacked"], ["difference,", f"{factor:.3g} times", "(grey: none)"])
    photos: list[int] = []
    for row, tiles in enumerate(rows):
        for line, said in enumerate(words[row]):
            at = GAP, layout.top(row) + 4 + line * LABEL
            draw.text(at, said, fill=PALE if line else INK, font=font(SIZE))
        for column, tile in enumerate(tiles):
            left, top = layout.left(column) + (layout.room - width) // 2, layout.top(row)
            picture.paste(tile, (left, top))
            photos += left, top, left + width, top + height
            draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)
    for row, said_of in enumerate(labels):
        for column, label in enumerate(said_of):
            _draw_label(draw, layout, row, column, label)
    picture.info[PHOTOS] = " ".join(map(str, photos))
    return picture


def _tile(image: np.ndarray, smooth: bool = True) -> Image.Image:
    """An image (C, H, W) in [0, 1] at display size; pixels of a small one stay squares."""
    channels = image[:3] if len(image) >= 3 else image[:1]
    pixels = np.rint(255 * channels).astype(np.uint8).transpose(1, 2, 0)
    tile = Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))
    side = max(tile.size)
    scale = max(1, round(SMALL / side)) if side <= LARGE else LARGE / side
    size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
    shrinking = Image.Resampling.LANCZOS if smooth and scale < 1 else Image.Resampling.NEAREST
    return tile.resize(size, shrinking)


def _labels(examples: Examples, names: Sequence[str]) -> list[list[Label]]:
    """Labels of the clean images and of the attacked ones."""
    return [
        [
            Label(class_word(true, names), class_word(one, names), true == one)
            for true, one in zip(examples.true, taken, strict=True)
        ]
        for taken in (examples.clean_classes, examples.attacked_classes)
    ]


def _draw_label(draw: ImageDraw.ImageDraw, layout: Layout, row: int, column: int, label: Label) -> None:
    """Draw `true -> taken` centred below an image, on one line or two."""
    colour = RIGHT if label.right else WRONG
    left, top = layout.left(column), layout.top(row) + layout.height + 2
    true, taken = (shortened(word, layout.room - ARROW * (layout.lines - 1), SIZE) for word in label[:2])
    wide, second = width_of(true, SIZE), ARROW + width_of(taken, SIZE)
    if layout.lines == 1:
        start, arrow_at = left + (layout.room - wide - second) / 2, left + (layout.room + wide - second) / 2
    else:
        start, arrow_at = left + (layout.room - wide) / 2, left + (layout.room - second) / 2
    below = top + LABEL * (layout.lines - 1)
    draw.text((start, top), true, fill=colour, font=font(SIZE))
    arrow(draw, arrow_at + 3, below + 8, ARROW - 7, colour)
    draw.text((arrow_at + ARROW, below), taken, fill=colour, font=font(SIZE))
