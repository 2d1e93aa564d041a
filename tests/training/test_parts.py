"""Folders as people have them: usual part names, links, locks, odd names; what is skipped or wrong is reported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hcpr_tune.api.datasets.look import look
from hcpr_tune.api.datasets.starter import starter_space
from hcpr_tune.errors import InputError
from hcpr_tune.training.data.dataset import load_data, source_identity
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.data.parts import layout
from hcpr_tune.training.data.sources import check_test_part, open_pool
from hcpr_tune.training.data.splits import split_pool
from hcpr_tune.training.recipe import Task
from tests.training.test_folders import task, write_images


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Train", "Valid", "Test"), ("TRAIN", None, "TEST"),
     ("training", "validation", "testing"),
     ("train", "val", None), ("train", None, None), ("Training", None, "Testing")],
)  # fmt: skip
def test_the_usual_names_of_parts_are_known(tmp_path, train, validation, test):
    for count, name in ((10, train), (3, validation), (4, test)):
        if name is not None:
            write_images(tmp_path / name, count=count)
    data = load_data(task(tmp_path))
    assert data.class_names == ("cat", "dog", "owl")
    drawn_test = 0 if test else 2
    drawn_validation = 0 if validation else 2
    assert len(data.train) == 3 * (10 - drawn_validation - drawn_test)
    assert len(data.validation) == 3 * (3 if validation else 2)
    assert len(open_test(task(tmp_path))) == 3 * (4 if test else 2)


def test_a_validation_part_is_the_validation_split_and_nothing_of_it_is_trained_on(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", count=4)
    for path in (tmp_path / "val").rglob("*.png"):
        Image.new("RGB", (12, 10), (255, 0, 255)).save(path)
    for images in (0, 12):
        data = load_data(task(tmp_path, images=images))
        found = data.validation.stored(torch.arange(12))
        assert (found == torch.tensor([255, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1)).all()
        assert torch.bincount(data.validation.labels).tolist() == [4, 4, 4]
        assert len(data.train) == (12 if images else 24)
        assert len(open_test(task(tmp_path, images=images))) == 6
    pool = open_pool(task(tmp_path))
    splits = split_pool(pool, task(tmp_path), has_test_part=False)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(42))


def test_a_changed_validation_part_changes_the_name_that_images_are_shared_by(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", count=4)
    before = source_identity(task(tmp_path))
    (tmp_path / "val" / "cat" / "000.png").unlink()
    assert source_identity(task(tmp_path)) != before


@pytest.mark.parametrize("name", ["train_set", "trian", "Test images", "val2017", "dev", "hold-out", "tests"])
def test_names_near_those_of_parts_are_asked_about(tmp_path, name):
    write_images(tmp_path / "train")
    write_images(tmp_path / name)
    with pytest.raises(InputError, match=f"has {name}/: parts or classes. Rename parts to train, val and test"):
        load_data(task(tmp_path))


def test_a_class_may_be_called_like_a_part_or_nearly_so(tmp_path):
    assert load_data(task(write_images(tmp_path / "a", classes=("train", "bus", "trains")))).classes == 3
    assert load_data(task(write_images(tmp_path / "b", classes=("vest", "tests")))).classes == 2
    for folder in ("left", "right"):
        write_images(tmp_path / "c", classes=(f"trail/{folder}", f"oak/{folder}"), count=5)
    (tmp_path / "c" / "trail").rename(tmp_path / "c" / "elm")
    assert load_data(task(tmp_path / "c")).class_names == ("elm", "oak")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/a", "train/b", "cat"), "parts and classes are mixed"),
        (("train/a", "train/b", "test/a", "test/b", "extra/a"), "has test/, train/ next to extra/"),
        (("val/a", "val/b", "test/a", "test/b"), "but no train"),
        (("train/a", "train/b", "Train/a", "Train/b"), "has Train/, train/ for the same part"),
        (("train/a", "train/b", "val/a", "valid/a"), "has val/, valid/ for the same part"),
        (("train", "test", "cat"), "parts and classes are mixed"),
        (("train",), "train must have at least 2 subfolders, one per class, got 0"),
        (("train", "test"), "has test/ and train/, which are parts and no classes, .* into .*/train/CLASS/"),
        (("train_images", "test_images"), "has test_images/ and train_images/, which are parts and no classes"),
        (
            ("train/a", "train/b", "val/a", "val/c"),
            "val lacks b and also has c; it must have the same class folders",
        ),
        (("train/a", "train/b", "test/a"), "test must have at least 2 subfolders"),
        (("train/a", "train/b", "test/a", "test/b", "test/c"), "test also has c"),
    ],
)
def test_parts_that_are_not_clear_are_refused(tmp_path, names, words):
    for name in names:
        write_images(tmp_path, classes=(name,))
    with pytest.raises(InputError, match=words):
        load_data(task(tmp_path))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("cat/train", "cat/test", "dog/train", "dog/test"),
            "2 of 2 class folders in (.*)/f have parts in them, cat/ has test/ and train/, and test images would be "
            r"trained on; move the parts above the classes, as \1/f/test/cat/",
        ),
        (("cat/train", "cat/val", "dog"), "1 of 2 class folders .* cat/ has train/ and val/"),
        (("cat/Training", "dog/Training"), "2 of 2 class folders .* cat/ has Training/"),
        (("cat/train2017", "cat/val2017", "dog/train2017"), "2 of 2 class folders .* cat/ has train2017/ and val2017/"),
        (("train/cat/test", "train/dog/test"), "2 of 2 class folders in .*/f/train have parts"),
        (
            ("pets/train/cat", "pets/train/dog", "art/train/oil", "art/train/ink"),
            r"(\S+)/f/art has train/ with class folders in them, so it is a data set of its own and no class of \1/f; "
            r"give \1/f/art$",
        ),
        (
            ("pets/train/cat", "pets/train/dog"),
            r"(\S+)/f must have at least 2 subfolders, one per class, got 1; give \1/f/pets, which has train/$",
        ),
        (("pets/cat", "pets/dog"), ".*got 1; give .*/f/pets, which has cat/, dog/$"),
    ],
)
def test_parts_below_classes_are_refused_with_what_to_do_instead(tmp_path, names, words, command):
    for name in names:
        write_images(tmp_path / "f", classes=(name,), count=5)
    with pytest.raises(InputError, match=words):
        load_data(task(tmp_path / "f"))
    done = command("init", tmp_path / "f", "--out", "f.toml")
    assert done.returncode == 2
    assert re.search(f"hcpr_tune: error: FOLDER {tmp_path}/f: {words}", done.stderr.strip())
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_one_class_of_trains_is_no_training_part(tmp_path):
    for name in ("vehicles/train", "vehicles/bus", "animals"):
        write_images(tmp_path / "f", classes=(name,))
    assert load_data(task(tmp_path / "f")).class_names == ("animals", "vehicles")


def test_a_folder_of_loose_images_beside_the_parts_is_skipped_and_told(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=4)
    write_images(tmp_path, classes=("unlabelled",))
    assert load_data(task(tmp_path)).notes == (f"1 folder next to the parts of {tmp_path}: unlabelled/",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"size": (20, 20)},
            "test has colour images of 20x20, the training part colour images of 12x10; .* set task.image_size",
        ),
        ({"mode": "L"}, "test has gray images of 12x10, the training part colour images"),
        ({"classes": ("cat", "dog")}, "test lacks owl"),
    ],
)
def test_a_test_part_of_another_kind_is_found_before_a_search(tmp_path, change, words):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=2, **change)
    with pytest.raises(InputError, match=words):
        check_test_part(task(tmp_path), ("cat", "dog", "owl"), (3, 10, 12))


def test_comparing_the_test_part_decodes_no_pixel_of_it(tmp_path):
    """Only the first bytes of a file, with its kind and size, are there; nobody could look at its image."""
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=3)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:45])
    check_test_part(task(tmp_path), ("cat", "dog", "owl"), (3, 10, 12))
    with pytest.raises(InputError, match="9 of the 9 images"):
        open_test(task(tmp_path))


def test_everything_that_is_skipped_is_counted_and_named(tmp_path):
    root = write_images(tmp_path / "f")
    (root / "labels.csv").write_text("")
    (root / ".git").mkdir()
    (root / "cat" / "notes.txt").write_text("")
    (root / "cat" / "photo.heic").write_bytes(b"x")
    (root / "dog" / "._000.png").write_bytes(b"Mac")
    (root / "dog" / ".ipynb_checkpoints").mkdir()
    (root / "dog" / ".ipynb_checkpoints" / "000.png").write_bytes((root / "dog" / "000.png").read_bytes())
    (root / "owl" / "again").symlink_to(root / "owl")
    (root / "owl" / "cats").symlink_to(root / "cat")
    (root / "owl" / "all").symlink_to(root)
    data = load_data(task(root))
    assert len(data.train) + len(data.validation) == 24
    assert list(data.notes) == [
        f"1 hidden folder next to the class folders of {root}: .git",
        f"1 file next to the class folders of {root}: labels.csv",
        "3 links that were not followed (each leads to a folder that was already read or belongs to another class or "
        "part)"
        f" in {root}: owl/again, owl/all, owl/cats",
        f"2 hidden files or folders in {root}: dog/._000.png, dog/.ipynb_checkpoints",
        f"2 files without an image suffix in {root}: cat/notes.txt, cat/photo.heic",
    ]


def test_what_is_decided_about_images_is_told_and_a_run_of_the_command_tells_it(tmp_path, command):
    root = write_images(tmp_path / "f", size=(10, 10))
    Image.new("L", (10, 10), 3).save(root / "cat" / "gray.png")
    Image.fromarray(np.full((10, 10), 900, "<u2")).save(root / "cat" / "deep.png")
    glass = np.random.default_rng(0).integers(0, 256, (10, 10, 4), dtype=np.uint8)
    Image.fromarray(glass).save(root / "dog" / "glass.png")
    (root / "dog" / "notes.txt").write_text("")
    done = command("init", "f", "--out", "f.toml")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith(("converted", "skipped", "colour"))] == [
        "colour       colour, three channels; 2 of 33 are gray, and become colour",
        "converted    1 image: gray of 16 bits (65535 is white)",
        "converted    1 image has transparent parts, which are shown on white, in f: dog/glass.png",
        "converted    1 dark 16-bit image (65535 is white, and it stays below 4096) in f: cat/deep.png",
        "converted    2 images are gray among others in colour, and become colour, in f: cat/deep.png, cat/gray.png",
        "skipped      1 file without an image suffix in f: dog/notes.txt",
    ]


def test_linked_folders_and_jfif_are_read(tmp_path):
    root = write_images(tmp_path / "f", count=10)
    write_images(tmp_path, classes=("elsewhere",), count=5, suffix="jpg")
    for path in (tmp_path / "elsewhere").iterdir():
        path.rename(path.with_suffix(".jfif"))
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    write_images(tmp_path, classes=("other",), count=5)
    (root / "yak").symlink_to(tmp_path / "other")
    assert np.bincount(open_pool(task(root)).labels).tolist() == [15, 10, 10, 5]


def _link_to_nothing(root):
    (root / "cat" / "gone.png").symlink_to(root / "nothing.png")


def _class_to_nothing(root):
    (root / "yak").symlink_to(root / "nothing")


def _link_in_a_circle(root):
    (root / "cat" / "one.png").symlink_to(root / "cat" / "two.png")
    (root / "cat" / "two.png").symlink_to(root / "cat" / "one.png")


def _pipe(root):
    os.mkfifo(root / "cat" / "pipe.png")


def _device(root):
    (root / "cat" / "zero.png").symlink_to("/dev/zero")


def _no_utf8(root):
    os.rename(root / "cat", os.fsencode(root) + b"/c\xe4t")  # noqa: PTH104


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_link_to_nothing, r"1 files or folders in .* cannot be accessed: cat/gone.png \(a broken link\)"),
        (_class_to_nothing, "broken links: yak; replace or remove them"),
        (_link_in_a_circle, r"cannot be accessed: cat/one.png \(Too many levels of symbolic links\)"),
        (_pipe, r"cat/pipe.png \(not a regular file\)"),
        (_device, r"cat/zero.png \(not a regular file\)"),
        (_no_utf8, r"must be UTF-8 without control characters, got 'c\\udce4t'"),
        (lambda root: (root / "cat").rename(root / "c\ra\nt"), r"without control characters, got 'c\\ra\\nt'"),
        (lambda root: (root / "cat").rename(root / "c\x1b[2Jat"), r"without control characters, got 'c\\x1b\[2Jat'"),
        (
            lambda root: (root / "yak").symlink_to(root / "cat"),
            "yak/ and cat/ in .* are the same folder through a link",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(tmp_path, make, words):
    root = write_images(tmp_path / "f")
    make(root)
    for read in (lambda: load_data(task(root)), lambda: starter_space(root)):
        with pytest.raises(InputError, match=words) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "no\0such", "~nobodyatall/x", "none", "file", "circle", "x/" * 3000])
def test_a_folder_that_cannot_be_there_is_one_line(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(
        InputError,
        match=r"task.dataset: (there is no folder|the folder .* cannot be accessed)|dataset must be text without",
    ) as caught:
        load_data(Task(dataset=f"folder:{name}"))
    assert len(str(caught.value)) < 700


LOCKED = """
import os, sys
from hcpr_tune.errors import InputError
from hcpr_tune.api.datasets.starter import starter_space
from hcpr_tune.training.recipe import Task
from hcpr_tune.training.data.sources import check_test_part, open_pool
from pathlib import Path
if os.getuid() == 0:
    os.setuid(65534)  # root may look at everything
for read in (lambda: open_pool(Task(dataset="folder:" + sys.argv[1])), lambda: starter_space(Path(sys.argv[1]))):
    try:
        read()
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("locked", ["f", "f/cat", "f/cat/deep", "f/cat/000.png"])
def test_what_may_not_be_looked_at_is_refused_by_name(tmp_path, locked):
    root = write_images(tmp_path / "f")
    write_images(root, classes=("cat/deep",))
    tmp_path.chmod(0o755)
    (tmp_path / locked).chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, "f"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
    finally:
        (tmp_path / locked).chmod(0o700)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert locked.removeprefix("f/") in line
        assert "Permission denied" in line


def test_the_parts_are_not_one_folder(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(InputError, match=r"train/ and test/ in .* are the same folder through a link"):
        load_data(task(tmp_path))


def test_a_link_from_one_part_into_another_is_not_followed(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=4)
    (tmp_path / "train" / "cat" / "more").symlink_to(tmp_path / "test" / "cat")
    data = load_data(task(tmp_path))
    assert len(data.train) + len(data.validation) == 30
    assert "1 link that was not followed" in data.notes[0]


def test_folders_deeper_than_the_stack_are_read(tmp_path, monkeypatch):
    root = write_images(tmp_path / "f")
    data = (root / "cat" / "000.png").read_bytes()
    monkeypatch.chdir(root / "cat")
    for _ in range(1200):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    Path("deep.png").write_bytes(data)
    try:
        monkeypatch.chdir(tmp_path)
        assert len(open_pool(task(root)).labels) == 31
        assert source_identity(task(root))
    finally:
        # Python cannot remove so deep a folder, pytest neither.
        subprocess.run(["rm", "-rf", root / "cat"], check=True, timeout=200)


ODD_NAMES = ['q"uote', "back\\slash", "lüge", "new\nline", "tab\tand\rmore", "del\x7f", "a" * 255]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_starter_is_valid_toml_whatever_the_folder_is_called(tmp_path, name):
    root = write_images(tmp_path / name, size=(16, 16))
    values = tomllib.loads(starter_space(root))
    assert values["task"]["dataset"] == f"folder:{root}"


def test_a_path_that_is_no_utf8_is_refused_by_the_starter(tmp_path):
    root = tmp_path / os.fsdecode(b"f\xfflder")
    write_images(root)
    with pytest.raises(InputError, match="is not UTF-8, as a study file must be; rename the folder"):
        starter_space(root)


def test_the_starter_says_the_parts_and_resizes_a_test_part_of_other_sizes(tmp_path):
    write_images(tmp_path / "train", size=(16, 16))
    write_images(tmp_path / "val", count=4, size=(16, 16))
    write_images(tmp_path / "test", count=4, size=(16, 16))
    text = starter_space(tmp_path)
    assert "# Parts of their own: val/: 12 images to validate on; test/: the test, not opened.\n" in text
    assert "image_size" not in text
    write_images(tmp_path / "test", count=4, size=(20, 16))
    assert tomllib.loads(starter_space(tmp_path))["task"]["image_size"] == 16
    assert look(tmp_path).images == 30


def test_a_class_of_two_images_gets_advice_that_helps(tmp_path):
    root = write_images(tmp_path / "f")
    write_images(root, classes=("yak",), count=2)
    with pytest.raises(
        InputError, match=r"class 3 .yak. has 2 images, and training, validation, test need one each; add images"
    ):
        load_data(task(root))
    with pytest.raises(
        InputError, match=r"task.images = 3 leaves class 0 .cat. 1 images for training and validation; raise it"
    ):
        load_data(task(write_images(tmp_path / "g"), images=3))


def test_a_file_that_changes_while_it_is_used_is_named(tmp_path):
    pool = open_pool(task(write_images(tmp_path / "f")))
    Image.new("RGB", (5, 5)).save(tmp_path / "f" / "cat" / "000.png")
    with pytest.raises(InputError, match=r"000.png has changed since it was checked"):
        pool.decode([0])
    (tmp_path / "f" / "cat" / "000.png").unlink()
    with pytest.raises(InputError, match=r"000.png can no longer be read: No such file"):
        pool.decode([0])


def test_the_layout_is_found_without_opening_a_file(tmp_path):
    for name in ("train", "val", "test"):
        write_images(tmp_path / name)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    found = layout(tmp_path)
    assert (found.train, found.validation, found.test) == tuple(tmp_path / name for name in ("train", "val", "test"))
