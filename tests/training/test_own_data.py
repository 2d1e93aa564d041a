"""A reader of a user's own: what it returns is used as it is, or refused in one line that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hcpr_tune.errors import InputError
from hcpr_tune.training import plugins
from hcpr_tune.training.data import dataset as data_module
from hcpr_tune.training.data.dataset import load_data
from hcpr_tune.training.data.heldout import open_test
from hcpr_tune.training.data.node_cache import NodeCache
from hcpr_tune.training.data.sources import check_parts, open_pool
from hcpr_tune.training.plugins import PluginError
from hcpr_tune.training.recipe import Task
from tests.training.test_folders import write_idx

SOURCE = """
import pathlib
import numpy as np
import torch
from hcpr_tune.training.data.registry import DatasetSpec

LABELS = np.arange(40) % 4
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)

def colour(root): return IMAGES, LABELS
def gray(root): return IMAGES[..., 0], LABELS.tolist(), ["a", "b", "c", "d"]
def one_channel(): return IMAGES[..., :1], torch.from_numpy(LABELS)
def tensor(): return torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.from_numpy(LABELS)

def floats(): return IMAGES / 255, LABELS
def four_channels(): return np.zeros((40, 6, 5, 4), np.uint8), LABELS
def ragged(): return [IMAGES[0], IMAGES[1, :3]], LABELS[:2]
def nothing(): return IMAGES[:0], LABELS[:0]
def too_few_labels(): return IMAGES, LABELS[1:]
def words(): return IMAGES, ["a"] * 40
def negative(): return IMAGES, LABELS - 1
def a_gap(): return IMAGES, np.where(LABELS == 2, 3, LABELS)
def one_class(): return IMAGES, LABELS * 0
def unnamed(): return IMAGES, LABELS, ["a", "b"]
def twice(): return IMAGES, LABELS, ["a", "a", "b", "c"]
def odd_names(): return IMAGES, LABELS, ["a", "b", "c", "d\\n"]
def alone(): return np.concatenate([IMAGES, IMAGES[:1]]), np.append(LABELS, 4)
def four(): return IMAGES, LABELS, LABELS, LABELS
def a_dict(): return {"train": (IMAGES, LABELS)}
def raises(root, train): return {}[root]
def leaves(): raise SystemExit(3)

class Items:
    def __init__(self, root=None, count=40, **more): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index): return IMAGES[index], int(LABELS[index])

class Empty(Items):
    def __len__(self): return 0
class Random(Items):
    def __getitem__(self, index): return np.random.randint(0, 256, (6, 5), np.uint8), 0
class Sizes(Items):
    def __getitem__(self, index): return IMAGES[index][: 5 if index == 7 else 6], int(LABELS[index])
class Alone(Items):
    def __getitem__(self, index): return IMAGES[index]
class Breaks(Items):
    targets = LABELS
    def __getitem__(self, index): return IMAGES[{7: "x"}.get(index, index) + 0], 0

def shape(train): return (IMAGES if train else IMAGES[:, :3]), LABELS
def classes(train): return (IMAGES, LABELS, "abcd" if train else "abcx")
def fewer(train): return (IMAGES, LABELS) if train else (IMAGES[:3], LABELS[:3])

def counted(train):
    with open("parts", "a") as file: file.write(f"{train} ")
    return IMAGES, LABELS

def from_file(root): return np.load(pathlib.Path(root) / "images.npy"), LABELS

WRONG = DatasetSpec(colour, shape=(3, 8, 8))
HALF = DatasetSpec(colour, white=128)
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(plugins.sys.modules, "own_data", raising=False)


def task(name, **settings):
    return Task(f"own_data:{name}", validation_fraction=0.2, test_fraction=0.2, **settings)


@pytest.mark.parametrize("name", ["colour", "tensor", "Items"])
def test_arrays_tensors_and_torch_data_sets_are_the_same_images(name):
    import own_data

    pool = open_pool(task(name))
    assert (pool.shape, pool.class_names) == ((3, 6, 5), ("0", "1", "2", "3"))
    np.testing.assert_array_equal(pool.decode([3, 9]), own_data.IMAGES[[3, 9]].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(pool.labels, own_data.LABELS)


@pytest.mark.parametrize(("name", "names"), [("gray", "abcd"), ("one_channel", "0123")])
def test_gray_images_have_one_channel(name, names):
    data = load_data(task(name))
    assert (data.channels, data.class_names) == (1, tuple(names))
    assert (len(data.train), len(data.validation), len(open_test(task(name)))) == (24, 8, 8)


def test_another_white_is_1():
    split = load_data(task("HALF")).train
    assert torch.equal(split.fetch(torch.tensor([0])), split.images[:1] / 128)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("floats", r"must have images of uint8 .* got float64 \(40, 6, 5, 3\); convert them, and leave ToTensor"),
        ("four_channels", r"C = 1 or 3; .* got uint8 \(40, 6, 5, 4\)"),
        ("ragged", "images or labels that are no array: .*inhomogeneous"),
        ("nothing", r"got uint8 \(0, 6, 5, 3\)"),
        ("too_few_labels", r"one whole number per image as its label, 40 in all, got int64 \(39,\)"),
        ("words", r"one whole number per image .* got <U1 \(40,\)"),
        ("negative", "labels from 0 to 2, one per class name, got -1 to 2"),
        ("a_gap", "no training image of 1 of its 4 classes: 2; number the labels"),
        ("one_class", "the number of classes must be at least 2, got 1"),
        ("unnamed", "labels from 0 to 1, one per class name, got 0 to 3"),
        ("twice", r"different texts .* got \['a', 'a', 'b', 'c'\]"),
        ("odd_names", "without control characters as class names"),
        ("alone", "class 4 has 1 images, and training, validation, test need one each"),
        ("four", "must return .*torch data set.*, got a tuple of 4"),
        ("a_dict", "must return .*torch data set.*, got dict"),
        ("Empty", "has no images; check where it looks for them"),
        ("Random", "its first image is another one each time it is read; leave random transforms out"),
        ("Sizes", r"image 7 is \(channels, height, width\) = \(3, 5, 5\), and image 0 \(3, 6, 5\)"),
        ("Alone", r"image 0 must come as a pair \(image, label\), got ndarray"),
        ("WRONG", r"\(channels, height, width\) = \(3, 8, 8\), got \(3, 6, 5\)"),
        ("NUMBER", "has a int of that name, which is not callable"),
        ("missing", "own_data has no such name"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, words):
    with pytest.raises(InputError, match=words) as caught:
        load_data(task(name))
    assert "task.dataset" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_refused_before_a_study_starts():
    for name in ("a_gap", "alone"):
        with pytest.raises(InputError, match="class"):
            check_parts(task(name))
    assert check_parts(task("gray")) == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "calling it with root='data', train=True raised KeyError: 'data'; fix it"),
        ("leaves", r"calling it ended with SystemExit: 3 \(own_data.py, line \d+\); fix it"),
        ("Breaks", "reading image 7 raised TypeError"),
    ],
)
def test_what_its_code_raises_is_shown_with_its_own_lines(name, words):
    with pytest.raises(PluginError, match=words) as caught:
        load_data(task(name))
    assert "own_data.py" in caught.value.details
    assert "hcpr_tune/" not in caught.value.details


def test_images_that_do_not_fit_into_memory_are_read_when_they_are_needed(monkeypatch):
    resident = load_data(task("Items"))
    monkeypatch.setattr(data_module, "RESIDENT_SHARE", 0.0)
    streamed = load_data(task("Items"))
    assert streamed.train.images is None
    chosen = torch.tensor([5, 2])
    assert torch.equal(streamed.train.fetch(chosen), resident.train.fetch(chosen))


def test_a_search_never_asks_for_the_test_part(tmp_path):
    load_data(task("counted"))
    assert (tmp_path / "parts").read_text() == "True "
    assert len(open_test(task("counted"))) == 40
    assert (tmp_path / "parts").read_text() == "True True False "


@pytest.mark.parametrize(
    ("name", "words"),
    [("shape", r"\(3, 6, 5\), got \(3, 3, 5\)"), ("classes", "the test part has the classes a, b, c, x, the training")],
)
def test_a_test_part_of_another_kind_is_refused(name, words):
    load_data(task(name))
    with pytest.raises(InputError, match=words):
        open_test(task(name))


def test_a_test_part_may_lack_classes():
    assert open_test(task("fewer")).labels.tolist() == [0, 1, 2]


def test_a_data_set_of_torchvision_that_is_not_registered_is_read_with_its_own_arguments(tmp_path):
    write_idx(tmp_path)
    ours, own = (Task(name, str(tmp_path)) for name in ("fashion_mnist", "torchvision.datasets:FashionMNIST"))
    for read in (lambda task: load_data(task).train, open_test):
        assert torch.equal(read(ours).images, read(own).images)
        assert torch.equal(read(ours).labels, read(own).labels)
    assert load_data(own).class_names == load_data(ours).class_names


def test_processes_share_its_images_as_long_as_they_are_the_same(tmp_path):
    folder = tmp_path / "shared"
    kept = []
    for value in (1, 1, 2):
        np.save(tmp_path / "images.npy", np.full((40, 6, 5), value, np.uint8))
        kept.append(load_data(task("from_file", root=str(tmp_path)), NodeCache(folder), shared_from=0))
        assert int(kept[-1].train.images.max()) == value
    assert sum(path.suffix == ".npy" for path in folder.iterdir()) == 4


def test_nothing_is_imported_that_no_one_has_vouched_for():
    with plugins.only_vouched():
        with pytest.raises(InputError, match=r"task\.dataset own_data:gray is code from a file that is not trusted"):
            load_data(task("gray"))
        assert "own_data" not in plugins.sys.modules
        plugins.vouch(["own_data:gray"])
        assert load_data(task("gray")).channels == 1
