"""Names of the parts of a data set, and what is said of parts in the wrong place. Nothing is opened here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hcpr_tune.errors import InputError

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The usual names of parts, in upper or lower case."""
NEAR = ("dev", "eval", "evaluation", "heldout", "holdout", "trn", "tst", "tune", "tuning")
"""Names of parts that do not say clearly which part is meant."""


def part_of(name: str) -> str:
    """The part that a folder of this name is, empty for none."""
    return next((part for part, names in PARTS.items() if name.casefold() in names), "")


def near_part(name: str) -> bool:
    """Whether a name looks like that of a part: train_set, Test images, val2017, trian, dev."""
    words = re.findall(r"[a-z]+", name.casefold())
    known = [one for names in PARTS.values() for one in names] + [*NEAR]
    whole = "".join(words)
    alike = [one for one in difflib.get_close_matches(whole, known, 3, 0.79) if one[0] == whole[0]]
    return any(word in known for word in words) or whole.startswith(("train", "valid", "test")) or bool(alike)


def like_part(name: str) -> bool:
    """Whether a name is that of a part, or looks like one."""
    return bool(part_of(name)) or near_part(name)


def check_parts_are_not_classes(root: Path, names: Sequence[str]) -> None:
    """Raise `InputError` if the class folders of `root` can only be parts, whose images have no classes."""
    if len(names) > 1 and all(map(like_part, names)):
        given = " and ".join(f"{name}/" for name in names[:3])
        train = next((name for name in names if part_of(name) == "train"), names[0])
        raise InputError(
            f"task.dataset: {root} has {given}, which are parts and no classes, and no class folders in them; "
            f"sort the images into {root / train}/CLASS/"
        )


def check_parts_above_classes(
    root: Path, inside: Mapping[str, Sequence[str]], holds_classes: Callable[[Path], bool]
) -> None:
    """Raise `InputError` if the class folders of `root` have parts inside: test images would be trained on.

    inside: the subfolders of each class folder. holds_classes: whether a folder holds folders and no images. A class
    may have one subfolder that is called like a part, if not all classes do.
    """
    parts = {name: [one for one in names if like_part(one)] for name, names in inside.items()}
    certain = {name for name, names in inside.items() if len({*map(part_of, names)} - {""}) > 1}
    wrong = [name for name, found in parts.items() if name in certain or all(parts.values())]
    if not wrong:
        return
    first, found = wrong[0], parts[wrong[0]]
    told = " and ".join(f"{one}/" for one in found[:3])
    if holds_classes(root / first / found[0]):
        raise InputError(
            f"task.dataset: {root / first} has {told} with class folders in them, so it is a data set of its own and "
            f"no class of {root}; give {root / first}"
        )
    raise InputError(
        f"task.dataset: {len(wrong)} of {len(inside)} class folders in {root} have parts in them, {first}/ has {told}, "
        f"and test images would be trained on; move the parts above the classes, as {root / found[0] / first}/, "
        "or give those subfolders other names if they are no parts"
    )
