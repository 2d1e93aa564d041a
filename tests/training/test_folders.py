"""Images of one's own in class folders, and torchvision's files: read, split, streamed, and every fault named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hcpr_tune.errors import InputError
from hcpr_tune.training.data import dataset as data_module
from hcpr_tune.training.data.dataset import batches, load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.data.node_cache import NodeCache
from hcpr_tune.training.recipe import Augmentation, Task

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def write_images(root, classes=("cat", "dog", "owl"), count=10, size=(12, 10), mode="RGB", suffix="png"):
    """A folder of class folders; each image has one value per class and number."""
    drawn = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = drawn.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            pixels[:, :, 0] = 40 * label + number
            Image.fromarray(pixels).convert(mode).save(root / name / f"{number:03d}.{suffix}")
    return root


def task(root, **settings):
    return Task(dataset=f"folder:{root}", **settings)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_folder_is_read_and_split_by_class(tmp_path, suffix):
    data = load_data(task(write_images(tmp_path / "f", suffix=suffix)))
    assert data.class_names == ("cat", "dog", "owl")
    assert (data.channels, data.classes, data.image_size) == (3, 3, (10, 12))
    assert torch.bincount(data.train.labels).tolist() == [6, 6, 6]
    assert torch.bincount(data.validation.labels).tolist() == [2, 2, 2]
    test = open_test(task(tmp_path / "f"))
    assert not set(test.indices) & (set(data.train.indices) | set(data.validation.indices))
    images = data.train.fetch(torch.arange(len(data.train)))
    assert images.min() >= 0
    assert images.max() <= 1


def test_pixels_are_those_of_the_files(tmp_path):
    data = load_data(task(write_images(tmp_path / "f")))
    first = data.train.fetch(torch.tensor([0]))[0]
    files = sorted((tmp_path / "f").rglob("*.png"))
    expected = np.asarray(Image.open(files[data.train.indices[0]])).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(first.numpy(), expected, rtol=0, atol=1e-7)


def test_all_gray_stays_gray_and_one_colour_image_makes_all_colour(tmp_path):
    root = write_images(tmp_path / "f", mode="L")
    assert load_data(task(root)).channels == 1
    Image.new("RGB", (12, 10), (200, 10, 10)).save(root / "cat" / "red.png")
    assert load_data(task(root)).channels == 3


def test_parts_of_their_own_are_used_and_the_test_part_is_not_opened(tmp_path):
    write_images(tmp_path / "f" / "train")
    write_images(tmp_path / "f" / "test", count=4)
    assert len(open_test(task(tmp_path / "f"))) == 12
    for path in (tmp_path / "f" / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    data = load_data(task(tmp_path / "f"))
    assert (len(data.train), len(data.validation)) == (24, 6)
    with pytest.raises(InputError, match="12 of the 12 images"):
        open_test(task(tmp_path / "f"))


def test_parts_with_other_classes_are_refused(tmp_path):
    write_images(tmp_path / "f" / "train")
    write_images(tmp_path / "f" / "test", classes=("cat", "dog"), count=4)
    with pytest.raises(InputError, match="it must have the same class folders"):
        open_test(task(tmp_path / "f"))


def test_other_sizes_are_refused_or_resized(tmp_path):
    root = write_images(tmp_path / "f")
    write_images(root, classes=("dog",), count=3, size=(20, 20))
    with pytest.raises(
        InputError, match=r"2 different sizes, for instance 12x10 \(.*\) and 20x20 \(dog/000.png\); set task.image_size"
    ):
        load_data(task(root))
    assert load_data(task(root, image_size=16)).train.shape == (3, 16, 16)


def test_all_unreadable_files_are_named_together(tmp_path):
    root = write_images(tmp_path / "f")
    (root / "cat" / "003.png").write_bytes(b"")
    (root / "dog" / "004.png").write_bytes((root / "dog" / "004.png").read_bytes()[:60])
    (root / "owl" / "text.jpg").write_text("not an image")
    with pytest.raises(InputError) as caught:
        load_data(task(root))
    message = str(caught.value)
    assert "3 of the 31 images" in message
    assert "cat/003.png (empty file)" in message
    assert "dog/004.png" in message
    assert "owl/text.jpg" in message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "there is no folder"),
        (lambda root: root.mkdir(), "at least 2 subfolders, one per class, got 0"),
        (lambda root: write_images(root, classes=("one",)), "at least 2 subfolders, one per class, got 1"),
        (lambda root: (write_images(root) / "empty").mkdir(), "classes without images: empty"),
        (lambda root: write_images(root, count=2), "class 0 .cat. has 2 images, and .* need one each; add images"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path, make, words):
    make(tmp_path / "f")
    with pytest.raises(InputError, match=words):
        load_data(task(tmp_path / "f"))


def test_images_that_do_not_fit_in_memory_are_streamed_and_give_the_same_batches(tmp_path, monkeypatch):
    root = write_images(tmp_path / "f")

    def drawn(data):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return list(batches(data.train, 4, generators[0], Augmentation(2, flip=True), generators[1]))

    resident = load_data(task(root))
    monkeypatch.setattr(data_module, "RESIDENT_SHARE", 0.0)
    streamed = load_data(task(root))
    assert resident.train.images is not None
    assert streamed.train.images is None
    for (a, b), (c, d) in zip(drawn(resident), drawn(streamed), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert torch.equal(resident.validation.fetch(torch.tensor([3, 1])), streamed.validation.fetch(torch.tensor([3, 1])))


def write_idx(root, train=200, test=50):
    """Tiny files in the format of Fashion-MNIST, where torchvision looks for them."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


def test_torchvisions_files_are_read_and_limited(tmp_path):
    write_idx(tmp_path)
    data = load_data(Task("fashion_mnist", str(tmp_path), images=100))
    assert (len(data.train), len(data.validation), data.train.shape) == (80, 20, (1, 28, 28))
    assert torch.bincount(data.train.labels).tolist() == [8] * 10
    assert data.class_names[0] == "T-shirt/top"
    assert len(open_test(Task("fashion_mnist", str(tmp_path)))) == 50


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *(
            (kind, lambda data, length=length: data[:length])
            for kind in ("images", "labels")
            for length in (0, 3, 10, 150)
        ),
        ("labels", lambda data: struct.pack(">II", 2049, 199) + data[8:-1]),
        ("labels", lambda data: data[:-1] + bytes([77])),
    ],
)
def test_torchvisions_files_that_are_not_whole_say_the_command_that_fetches_them(tmp_path, kind, change):
    write_idx(tmp_path)
    path = next((tmp_path / "FashionMNIST" / "raw").glob(f"train-{kind}*"))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=r"or incomplete; run: hcpr_tune data fashion_mnist --root"):
        load_data(Task("fashion_mnist", str(tmp_path)))


@pytest.mark.parametrize("root", ["x" * 300, "no\0such", "~nobodyatall/x"])
def test_a_root_that_cannot_be_there_is_one_line(tmp_path, root):
    with pytest.raises(InputError, match=r"the files of cifar10 are not in task.root|root must be text without"):
        load_data(Task("cifar10", root), NodeCache(tmp_path / "shared"))


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_missing_data_says_the_command_that_fetches_it(tmp_path, name):
    with pytest.raises(InputError, match=f"run: hcpr_tune data {name} --root {tmp_path}"):
        load_data(Task(name, str(tmp_path)))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_is_read(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.glob("*-ubyte.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    data = load_data(Task("fashion_mnist", str(tmp_path), validation_fraction=0.1))
    assert (len(data.train), len(data.validation)) == (54000, 6000)
