"""A starter space for a folder of class folders, as a commented file filled in from a look at its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hcpr_tune.common.settings import in_toml
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.parts import dataset_folder, layout
from hcpr_tune.training.data.pool import Pool
from hcpr_tune.training.data.sources import check_test_part, folder_pool
from hcpr_tune.training.recipe import Task

SMALL_IMAGES, LARGE_IMAGES = 32, 64
MANY_IMAGES = 20_000
SIZES = (8, 16, 32, 64, 128, 224)


@dataclass(frozen=True)
class Look:
    """What is in the folder. `images`: their number in the training part; `parts`: the other parts, in words."""

    images: int
    classes: tuple[str, ...]
    channels: int
    size: int
    resized: bool
    parts: str
    notes: tuple[str, ...]


def look(folder: Path) -> Look:
    """Look at every image of the training part, and of the validation part if there is one.

    Of a test part only file names and headers are read. Raises `InputError` that names what is wrong.
    """
    parts = layout(dataset_folder(f"folder:{folder}"))
    # Any size will do to read the folder; the actual sizes are found next.
    pool = folder_pool(_task(folder, SMALL_IMAGES), parts)
    seen = pool.sizes[: pool.own_validation]
    sizes = Counter(pool.sizes)
    (height, width), _ = sizes.most_common(1)[0]
    size, resized = height, False
    if len(sizes) > 1 or height != width:
        middle = median(side for one, count in sizes.items() for side in one for _ in range(count))
        size, resized = min(SIZES, key=lambda size: abs(size - middle)), True
    resized = resized or not _test_has_size(folder, pool, size)
    check_test_part(_task(folder, size), pool.class_names, (pool.shape[0], size, size))
    own = [
        (parts.validation, f"{len(pool.sizes) - len(seen)} images to validate on"),
        (parts.test, "the test, not opened"),
    ]
    words = "; ".join(f"{part.name}/: {what}" for part, what in own if part is not None)
    return Look(len(seen), pool.class_names, pool.shape[0], size, resized, words, pool.notes)


def _task(folder: Path, image_size: int) -> Task:
    _toml(str(folder))  # raises a clear error for a path that a study file cannot hold
    return Task(dataset=f"folder:{folder}", image_size=image_size)


def _test_has_size(folder: Path, pool: Pool, size: int) -> bool:
    """Whether the test part's images need no resizing either. Other errors in them are found later."""
    try:
        check_test_part(_task(folder, 0), pool.class_names, (pool.shape[0], size, size))
    except InputError:
        return False
    return True


def starter_space(folder: Path, seen: Look | None = None) -> str:
    """The text of a search space for the folder, from the result of `look`."""
    seen = seen or look(folder)
    epsilon, reason = _epsilon(seen)
    model, width = _model(seen)
    batch_size = max(16, min(128, 2 ** int(seen.images / 20).bit_length() // 2))
    return TEMPLATE.format(
        folder=_toml(f"folder:{folder.resolve()}"),
        images=seen.images,
        classes=len(seen.classes),
        kind="gray" if seen.channels == 1 else "colour",
        names=", ".join(seen.classes[:10]) + (", ..." if len(seen.classes) > 10 else ""),
        size=f"{seen.size}x{seen.size}" + (" after resizing" if seen.resized else ""),
        parts=f"\n# Parts of their own: {seen.parts}." if seen.parts else "",
        image_size=f"\nimage_size = {seen.size} # the files have other sizes; they are resized to this square"
        if seen.resized
        else "",
        epsilon=f"{epsilon:.6g}",
        reason=reason,
        step_size=f"{epsilon / 4.5:.3g}",
        model=model,
        width=f"\nwidth = {width}" if width else "",
        batch_size=batch_size,
        augmentation=f"crop_padding = {max(1, seen.size // 8)}" + ("\nflip = true" if seen.channels == 3 else ""),
    )


def _toml(text: str) -> str:
    """A string in TOML. Raises `InputError` for a name that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the path {text!r} is not UTF-8, as a study file must be; rename the folder") from None
    return in_toml(text)


def _epsilon(seen: Look) -> tuple[float, str]:
    if seen.size < 12:
        return 0.15, "on so few pixels 8/255 changes nothing"
    if seen.channels == 1 and seen.size <= SMALL_IMAGES:
        return 0.1, "usual for small gray images is 0.1 to 0.3"
    if seen.size > LARGE_IMAGES:
        return 4 / 255, "4/255, usual for large colour images"
    return 8 / 255, "8/255, usual for small colour images"


def _model(seen: Look) -> tuple[str, int]:
    if seen.size > LARGE_IMAGES:
        return "torchvision:resnet18", 0
    if seen.size > SMALL_IMAGES or seen.images > MANY_IMAGES:
        return "resnet18", 0
    return "small_cnn", 32 if seen.channels == 3 else 16


TEMPLATE = """\
# A starter space for the folder's {images} {kind} images of {size}, {classes} classes ({names}).{parts}
# `hcpr_tune tune --space THIS --dry-run` prints it with every default filled in. Change what you know better.

description = "HCPR on your own images"
objective = "robust_accuracy" # on validation, margin attack of radius task.epsilon

[budget]
trials = 24

[task]
dataset = {folder}{image_size}
epsilon = {epsilon} # {reason}; the radius of the attack

[recipe]
epochs = 27 # gives rungs at 3, 9 and 27; raise it, and first_rung with it, if trials still gain at the end
batch_size = {batch_size}

[recipe.model]
name = "{model}"{width}

[recipe.augmentation]
{augmentation}

[recipe.attack]
epsilon = {epsilon} # the same radius in training as in the evaluation
step_size = {step_size}

[recipe.lr_schedule]
mode = "annealed"
shape = "cosine"

[recipe.pace]
ramp = 0.4
over = "segment"

[recipe.consistency]
start = 0.0
shape = "linear"
over = "segment"

[recipe.evaluation]
images = 1000
period = 3

# What varies. Centres are the published values.
[search]
"hcpr.scale" = {{ low = 4.0, high = 16.0, log = true }}
"hcpr.margin" = {{ low = 0.0, high = 0.4 }}
"hcpr.kl_weight" = {{ low = 0.3, high = 6.0, log = true }}
"hcpr.square_weight" = {{ low = 1.5, high = 20.0, log = true }}
"pace.start" = {{ low = 0.0, high = 1.0 }}
"pace.end" = {{ low = 0.0, high = 1.0 }}
"pace.ramp" = {{ low = 0.1, high = 0.8 }}
"pace.shape" = {{ choices = ["constant", "linear", "cosine"] }}
"consistency.ramp" = {{ low = 0.0, high = 0.5 }}
"optimiser.lr" = {{ low = 0.03, high = 0.2, log = true }}

[early_stopping]
first_rung = 3
reduction_factor = 3
"""
