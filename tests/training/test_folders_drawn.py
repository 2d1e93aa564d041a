"""Folders of images drawn at random: of all kinds of files, sizes, names and parts, with what people leave in them.

Of each it is known what must come of it: the images that were meant, pixel by pixel, and a word on all that was
skipped; or one line that names what is wrong. Nothing else may happen: no other exception, no hang, no file left out in
silence.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from hcpr_tune.api.datasets.starter import starter_space
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.sources import check_test_part, has_test_part, open_pool
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.recipe import Task
from tests.training.image_files import BAD, GOOD, Kind

T = TypeVar("T")

FEW, MANY = 60, 2000
MOST_SECONDS = 20.0
"""For one folder, on a machine that does other things too."""

CLASSES = (
    "cat",
    "dog",
    "owl",
    "Ünïcode",
    "two words",
    "日本",
    "a.b",
    "train",
    "no-1",
    'q"uote',
    "x" * 200,
    "b\\s",
    "{x}",
    "[red]",
    "%s",
)
PARTS = (
    {"train": "train"},
    {"train": "Train", "test": "Test"},
    {"train": "training", "validation": "val"},
    {"train": "TRAIN", "validation": "valid", "test": "testing"},
    {"train": "train", "validation": "Validation", "test": "test"},
)


@dataclass
class Drawn:
    """A folder on the disk, and what must come of it."""

    root: Path
    images: dict[str, np.ndarray] = field(default_factory=dict)
    """The expected pixels of each training and validation file, by its path, up to the `tolerance` of its kind."""
    tolerance: dict[str, int] = field(default_factory=dict)
    trained: int = 0
    skipped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Words of which an error must have one."""
    image_size: int = 0


def draw(root: Path, seed: tuple[int, int]) -> Drawn:
    """One folder, from its seed."""
    drawn = np.random.default_rng(seed)
    found = Drawn(root)
    side = int(drawn.integers(2, 12))
    found.image_size = int(drawn.choice([0, side, 7]))
    parts = PARTS[drawn.integers(len(PARTS))] if drawn.random() < 0.6 else {"train": "."}
    classes = list(drawn.choice(CLASSES, drawn.integers(2, 4), replace=False))
    gray = drawn.random() < 0.3
    # Gray or in colour as a whole, and what may be mixed with either.
    kinds = [kind for kind in GOOD if _is_gray(kind) == gray]
    for part, name in parts.items():
        for label in classes:
            for number in range(int(drawn.integers(4, 6))):
                kind = kinds[drawn.integers(len(kinds))]
                _write(
                    found, drawn, Path(name, label), number, kind, side, keep=part != "test", trained=part == "train"
                )
    for spoil in drawn.choice(np.array(SPOILS, dtype=object), drawn.integers(0, 3), replace=False):
        spoil(found, drawn, Path(parts["train"]), classes, side)
    return found


@cache
def _is_gray(kind: Kind) -> bool:
    return kind.make(np.random.default_rng(0), (2, 3))[1].shape[-1] == 1


def _write(found, drawn, folder, number, kind, side, keep=True, trained=True):
    for _ in range(20):  # a drawn picture may be one that cannot be seen on white
        data, means = kind.make(drawn, (side, side))
        if (
            kind in BAD
            or not (means == means[:1, :1]).all()
            or not kind.name.startswith(("RGBA", "LA", "P", "key", "shape"))
        ):
            break
    else:
        return
    below = Path("deep", "er") if drawn.random() < 0.1 else Path()
    path = found.root / folder / below / f"{number} {drawn.choice(['a', 'ß', 'x y', '.b'])}.{kind.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if keep:
        found.images[str(path)] = means
        found.tolerance[str(path)] = kind.tolerance
        found.trained += trained


def bad_image(found, drawn, part, classes, side):
    kind = BAD[drawn.integers(len(BAD))]
    path = found.root / part / classes[0] / f"bad.{kind.suffix}"
    path.write_bytes(kind.make(drawn, (side, side))[0])
    found.wrong.append(f"bad.{kind.suffix}")


def other_files(found, drawn, part, classes, side):
    for name in ("notes.txt", ".DS_Store", "Thumbs.db", "photo.heic", "._a.png", "no suffix", "labels.csv"):
        if drawn.random() < 0.5:
            folder = found.root / part / (classes[1] if drawn.random() < 0.7 else ".")
            (folder / name).write_bytes(b"x")
            found.skipped.append(name)


def dangling(found, drawn, part, classes, side):
    at = found.root / part / (classes[0] if drawn.random() < 0.5 else ".") / str(drawn.choice(["gone.png", "gone"]))
    at.symlink_to(found.root / "nothing")
    found.wrong.append(at.name)


def circle(found, drawn, part, classes, side):
    target = found.root / part / str(drawn.choice([".", *classes]))
    (found.root / part / classes[0] / "loop").symlink_to(target.resolve())
    found.skipped.append("loop")


def pipe(found, drawn, part, classes, side):
    os.mkfifo(found.root / part / classes[0] / "pipe.png")
    found.wrong.append("pipe.png")


def empty_class(found, drawn, part, classes, side):
    (found.root / part / "nobody").mkdir()
    found.wrong.append("nobody")


def odd_class(found, drawn, part, classes, side):
    name = os.fsdecode([b"c\xe4t", b"c\rt", b"c\nt", b"c\x1bt", b"c\x00t".replace(b"\x00", b"\x7f")][drawn.integers(5)])
    (found.root / part / name).mkdir()
    found.wrong.append(repr(name))


def small_class(found, drawn, part, classes, side):
    kind = GOOD[0]
    for number in range(int(drawn.integers(1, 3))):
        _write(found, drawn, part / "few", number, kind, side)
    found.wrong += ["few", "class folders"]


def other_size(found, drawn, part, classes, side):
    # As gray as the others: a part in colour beside one that is gray is refused.
    name = "L PNG" if all(means.shape[-1] == 1 for means in found.images.values()) else "RGB PNG"
    kind = next(kind for kind in GOOD if kind.name == name)
    _write(found, drawn, part / classes[0], 99, kind, side + 3)
    if not found.image_size:
        found.wrong += ["different sizes", "the training part"]


def near_name(found, drawn, part, classes, side):
    name = str(drawn.choice(["train2017", "Test images", "trian", "dev", "tset"]))
    for label in classes:
        _write(found, drawn, Path(name, label), 0, GOOD[0], side, keep=False)
    found.wrong.append(name if part != Path() else "parts or classes")


SPOILS: list[Callable] = [
    bad_image,
    other_files,
    other_files,
    dangling,
    circle,
    pipe,
    empty_class,
    odd_class,
    small_class,
    other_size,
    near_name,
]


def outcome(read: Callable[[], T]) -> tuple[T | None, str]:
    """What was read, or the line that says why not. Any other exception is a fault."""
    try:
        return read(), ""
    except InputError as error:
        return None, str(error)


def check(found: Drawn) -> None:
    """Read the folder as a search does, and as `init` does; raises `AssertionError` where the result is wrong."""
    task = Task(dataset=f"folder:{found.root}", image_size=found.image_size)

    def searched():
        pool = open_pool(task)
        check_test_part(task, pool.class_names, pool.shape)
        return pool, split_pool(pool, task, has_test_part(task))

    began = time.monotonic()
    read, refusal = outcome(searched)
    text, no_start = outcome(lambda: starter_space(found.root))
    assert time.monotonic() - began < MOST_SECONDS
    assert found.wrong or not no_start, f"init refused without a reason: {no_start}"
    if text is not None:
        assert tomllib.loads(text)["task"]["dataset"] == f"folder:{found.root}"
    if read is None:
        assert any(words in refusal for words in found.wrong), f"{refusal} names none of {found.wrong}"
        assert "; " in refusal, f"{refusal} says no way out"
        return
    pool, splits = read
    assert not found.wrong, f"accepted in spite of {found.wrong}"
    assert sorted(map(str, _files(pool))) == sorted(found.images)
    told = " ".join(pool.notes)
    missing = [name for name in found.skipped if name not in told and " more" not in told]
    assert not missing, f"skipped without a word: {missing}"
    _check_pixels(found, pool)
    assert sum(len(chosen) for chosen in splits.values()) == len(found.images)
    assert pool.own_validation in (None, found.trained)


def _files(pool) -> tuple[Path, ...]:
    """The files of a pool in their order."""
    return pool.decode.__self__.files


def _check_pixels(found: Drawn, pool) -> None:
    decoded = pool.decode(np.arange(len(pool.labels)))
    assert decoded.dtype == np.uint8
    for path, label, image in zip(map(str, _files(pool)), pool.labels, decoded, strict=True):
        means = found.images[path]
        assert f"/{pool.class_names[label]}/" in path
        if image.shape[1:] != means.shape[:2]:  # resized; what that does to single pixels is Pillow's affair
            assert image.shape[1:] == (found.image_size, found.image_size)
            assert abs(float(image.mean()) - float(means.mean())) < 40
            continue
        expected = np.broadcast_to(means, (*means.shape[:2], image.shape[0]))
        np.testing.assert_allclose(
            image.transpose(1, 2, 0), expected, rtol=0, atol=0.5 + found.tolerance[path], err_msg=path
        )


def check_many(folder: Path, seed: int, count: int) -> None:
    """So many folders; the seed and the number of the one that failed are in the message."""
    sys.stdout.write(f"folders of images drawn with seed {seed}\n")
    came = {"read": 0, "refused": 0}
    for number in range(count):
        root = folder / f"{number}"
        try:
            found = draw(root, (seed, number))
            check(found)
        except Exception as error:
            raise AssertionError(
                f"folder {number} of seed {seed} (left in {root}): {type(error).__name__}: {error}"
            ) from error
        came["refused" if found.wrong else "read"] += 1
        shutil.rmtree(root)
    sys.stdout.write(f"{came}\n")
    assert min(came.values()) > count // 5


def test_some_drawn_folders_are_read_rightly_or_refused_by_name(tmp_path):
    check_many(tmp_path, seed=1, count=FEW)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_drawn_folders_are_read_rightly_or_refused_by_name(tmp_path):
    check_many(tmp_path, seed=time.time_ns() % 10**9, count=MANY)
