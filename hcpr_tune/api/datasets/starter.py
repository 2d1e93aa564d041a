"""A starter space for a folder of class folders, as a commented file filled in from a look at its images."""

from __future__ import annotations

from pathlib import Path

from hcpr_tune.api.datasets.look import Look, look, text_in_toml
from hcpr_tune.common.text import clean, listed

SMALL_IMAGES, LARGE_IMAGES = 32, 64
MANY_IMAGES = 20_000
SCORED = 1000
"""At most so many validation images score each trial."""


def starter_space(folder: Path, seen: Look | None = None) -> str:
    """The text of a search space for the folder, from the result of `look`."""
    seen = seen or look(folder)
    epsilon, reason = _epsilon(seen)
    model, width = _model(seen)
    parts = _part_words(seen)
    batch_size = max(16, min(128, 2 ** int(seen.images / 20).bit_length() // 2))
    steps = -(-seen.train // batch_size)
    return TEMPLATE.format(
        folder=text_in_toml(f"folder:{folder.resolve()}"),
        images=f"{seen.images:,}",
        train=f"{seen.train:,}",
        validation=f"{seen.validation:,}",
        scored=SCORED,
        classes=len(seen.classes),
        kind="gray" if seen.channels == 1 else "colour",
        names=clean(listed([name[:60] for name in seen.classes])),
        size=f"{seen.size}x{seen.size}" + (" after resizing" if seen.resized else ""),
        parts=f"\n# Parts of their own: {parts}." if parts else "",
        image_size=f"\nimage_size = {seen.size} # the files have other sizes; they are resized to this square"
        if seen.resized
        else "",
        epsilon=f"{epsilon:.6g}",
        reason=reason,
        step_size=f"{epsilon / 4.5:.3g}",
        model=model,
        width=f"\nwidth = {width}" if width else "",
        batch_size=batch_size,
        steps=steps,
        augmentation=f"crop_padding = {max(1, seen.size // 8)}" + ("\nflip = true" if seen.channels == 3 else ""),
    )


def _part_words(seen: Look) -> str:
    own = [
        (seen.own_validation, f"{seen.validation} images to validate on"),
        (seen.own_test, "the test, not opened"),
    ]
    return "; ".join(f"{name}/: {what}" for name, what in own if name)


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
#:schema ./space.schema.json
# A starter space for the folder's {images} {kind} images of {size}, {classes} classes ({names}).{parts}
# `hcpr_tune tune --space THIS --dry-run` prints it with every default filled in. Change what you know better.

description = "HCPR on your own images"
objective = "robust_accuracy" # on validation, margin attack of radius task.epsilon
seed = 0

[budget]
trials = 24

[task]
dataset = {folder}{image_size}
epsilon = {epsilon} # {reason}; the radius of the attack, for images in [0, 1]

# Trial 0: the published recipe (scale 8, margin 0.2, kl_weight 1.2, square_weight 6, pace 1, SGD 0.1 with momentum
# 0.9), adapted to the task. What differs from the published numbers, and why:
[recipe]
epochs = 27 # published 100; gives rungs at 3, 9 and 27; raise it and first_rung if trials still gain at the end
batch_size = {batch_size} # published 128; {train} training images make {steps} steps an epoch

[recipe.model]
name = "{model}"{width}

[recipe.augmentation]
{augmentation}

[recipe.attack]
epsilon = {epsilon} # published 0.031; trained at the evaluation radius
step_size = {step_size} # published 0.007; the same ratio to epsilon, 10 steps as published

[recipe.optimiser]
lr = 0.1

# The learning rate anneals in every segment between rungs and returns to full in the next: a rung scores an annealed
# model.
[recipe.lr_schedule]
mode = "annealed"
shape = "cosine"

# The pace and the consistency weights may ramp over each segment; constant is the published recipe.
[recipe.pace]
start = 1.0
end = 1.0
ramp = 0.4
shape = "constant"
over = "segment"

[recipe.consistency]
start = 0.0
end = 1.0
ramp = 0.0
shape = "linear"
over = "segment"

[recipe.evaluation]
images = {scored} # at most; of {validation} validation images
period = 3 # robust accuracy every third epoch; every rung is one of them

# What is searched. The ranges of the HCPR coefficients are centred, roughly, on the published values.
[search]
"hcpr.scale" = {{ low = 4.0, high = 16.0, log = true }}
"hcpr.margin" = {{ low = 0.0, high = 0.4 }}
"hcpr.kl_weight" = {{ low = 0.3, high = 6.0, log = true }}
"hcpr.square_weight" = {{ low = 1.5, high = 20.0, log = true }}
"pace.shape" = {{ choices = ["constant", "linear", "cosine"] }}
"pace.end" = {{ low = 0.0, high = 1.0 }}
"pace.start" = {{ low = 0.0, high = 1.0, when = {{ "pace.shape" = ["linear", "cosine"] }} }} # else no start
"pace.ramp" = {{ low = 0.1, high = 0.8, when = {{ "pace.shape" = ["linear", "cosine"] }} }}
"consistency.ramp" = {{ low = 0.0, high = 0.5 }}
"optimiser.lr" = {{ low = 0.03, high = 0.2, log = true }}

# A rung stops all but the best third of its trials, unless it is 95 % certain that its ranking has nothing to do with
# the end's (rank correlation below 0.1).
[early_stopping]
method = "asha"
first_rung = 3
reduction_factor = 3

# At the end the best recipes and the published one are trained again on fresh seeds, under one schedule over the whole
# training: these scores say which is the answer.
[replication]
replicates = 2
finalists = 2

[sampler]
name = "tpe"
startup_trials = 8

[resources]
cpus_per_trial = 1
gpus_per_trial = "auto"

# At the end these models of the answer and of the published recipe are attacked with AutoAttack, in at most this many
# seconds. `hcpr_tune verdict NAME` does it thoroughly, on other seeds.
[verdict]
seconds_at_end = 60
"""
